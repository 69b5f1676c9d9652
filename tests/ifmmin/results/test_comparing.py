"""Two runs on the same utterances, against tests and loops of others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom

from datamodules.errors import InputError
from ifmmin.results.comparing import Difference, Scored, check_comparable, compare, read_scored
from ifmmin.results.files import write_results
from ifmmin.results.predictions import Predictions
from ifmmin.results.results import Results
from ifmmin.results.uncertainty import utterance_counts
from ifmmin.tasks import Regression, Task
from tests.ifmmin.results.test_uncertainty import CLASSES, predicted


def scored(seed: int, task: Task = CLASSES, utterances: int = 150, **facts: Any) -> Scored:
    """A made-up run; those of one number of utterances have the same labels."""
    labels = predicted(task, utterances).labels
    other = predicted(task, utterances, seed)
    if task.class_names:
        answers = np.asarray(other.answers) + np.eye(4)[np.asarray(labels)] * 0.1
        answers /= answers.sum(1, keepdims=True)
    else:
        answers = np.asarray(labels)[:, None] + np.random.default_rng(seed).normal(0, 1 + seed, (len(labels), 1))
    predictions = Predictions(task, other.utterances, other.conditions, answers.astype(np.float32), labels)
    counts = utterance_counts(predictions)[1].sum(0)
    values: dict[str, Any] = {"corpus": "IEMOCAP", "fold": 1, "split": "test", "record": {"data_fingerprint": "f"}}
    values |= facts
    results = Results(is_synthetic=False, model="M", seed=seed, task=task, counts=counts, **values)
    return Scored(Path(f"run{seed}"), results, predictions)


def found(differences: list[Difference], row: str, score: str) -> Difference:
    (one,) = [each for each in differences if (each.row, each.score) == (row, score)]
    return one


def test_mcnemar_and_the_paired_interval_as_a_naive_loop() -> None:
    first, second = scored(0), scored(1)
    one = found(compare(first, second), "t", "WA")
    right = []
    for run in (first, second):
        answers = np.asarray(run.predictions.answers).reshape(-1, 7, 4)[:, 2].argmax(-1)
        right.append(answers == np.asarray(run.predictions.labels).reshape(-1, 7)[:, 2])
    b, c = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
    assert (one.only_first, one.only_second) == (b, c)
    assert one.p == pytest.approx(min(1.0, 2 * binom.cdf(min(b, c), b + c, 0.5)))
    assert one.difference == pytest.approx(right[1].mean() - right[0].mean())
    rng = np.random.default_rng(9)
    draws = [rng.integers(0, 150, 150) for _ in range(2000)]
    naive = np.percentile([right[1][draw].mean() - right[0][draw].mean() for draw in draws], [2.5, 97.5])
    assert one.interval == pytest.approx(tuple(naive), abs=0.012)


def test_a_run_against_itself_differs_by_nothing() -> None:
    for one in compare(scored(0), scored(0)):
        assert (one.difference, one.interval) == (0, (0, 0))
        assert one.p is None or one.p == 1
    assert found(compare(scored(0), scored(1)), "pooled", "WA").p is None


def test_a_regression_has_intervals_but_no_mcnemar() -> None:
    one = found(compare(scored(0, Regression()), scored(1, Regression())), "avt", "MAE")
    assert one.difference is not None
    assert one.difference > 0
    assert one.interval is not None
    assert one.interval[0] > 0
    assert one.p is None


@pytest.mark.parametrize(
    ("facts", "what"),
    [
        ({"corpus": "MSP-IMPROV"}, "corpus"),
        ({"fold": 2}, "fold"),
        ({"split": "val"}, "split"),
        ({"record": {"data_fingerprint": "g"}}, "data fingerprint"),
        ({"utterances": 149}, "utterance Ses01F_impro01_M149 is not in both"),
        ({"task": Regression()}, "task"),
    ],
)
def test_runs_on_other_data_are_refused(facts: dict[str, Any], what: str) -> None:
    with pytest.raises(InputError, match=what):
        check_comparable(scored(0), scored(1, **facts))


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    for task in (CLASSES, Regression()):
        before = scored(0, task, utterances=9)
        hostile = [f"={name}\r\n" for name in before.predictions.utterances]
        values = {"=σ": np.linspace(0, 1, len(hostile), dtype=np.float32), "rarely": np.full(len(hostile), np.nan)}
        predictions = replace(before.predictions, utterances=hostile, values=values)
        write_results(before.results, tmp_path / task.name, predictions=predictions)
        after = read_scored(tmp_path / task.name)
        assert after.predictions.utterances == hostile
        np.testing.assert_array_equal(after.predictions.answers, before.predictions.answers)
        np.testing.assert_array_equal(after.predictions.labels, before.predictions.labels)
        assert list(after.predictions.values) == list(values)
        for name, column in values.items():
            np.testing.assert_array_equal(after.predictions.values[name], column)
        assert after.results.scores() == before.results.scores()
    single = scored(0, utterances=1)
    with pytest.raises(InputError, match="single utterance"):
        compare(single, single)
