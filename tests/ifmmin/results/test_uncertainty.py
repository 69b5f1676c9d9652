"""Bootstrap intervals, against a naive loop that draws utterances one by one."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from sklearn.metrics import recall_score

from datamodules.conditions import CONDITIONS
from datamodules.errors import InputError
from datamodules.storage.layouts import IEMOCAP_LAYOUT
from ifmmin.results.predictions import Predictions
from ifmmin.results.uncertainty import (
    Intervals,
    add_up,
    bootstrap_intervals,
    intervals_from_json,
    speakers,
    table_scores,
    utterance_counts,
)
from ifmmin.tasks import SUMMARY_ROWS, Classification, Regression, Task

CLASSES = Classification(["angry", "happy", "neutral", "sad"])


def predicted(task: Task, utterances: int, seed: int = 0) -> Predictions:
    """Answers under all seven conditions, right about half of the time."""
    rng = np.random.default_rng(seed)
    names = [f"Ses01{'MF'[place % 2]}_impro01_{'FM'[place % 2]}{place:03d}" for place in range(utterances)]
    conditions = np.tile(np.arange(7), utterances)
    label: npt.NDArray[Any]
    if task.class_names:
        label = rng.integers(0, 4, utterances).repeat(7)
        answers = rng.random((len(label), 4)) + np.eye(4)[label] * 0.4
        answers /= answers.sum(1, keepdims=True)
    else:
        label = rng.uniform(-3, 3, utterances).astype(np.float32).repeat(7)
        answers = (label + rng.normal(0, 1, len(label)))[:, None]
    return Predictions(
        task, [name for name in names for _ in CONDITIONS], conditions, answers.astype(np.float32), label
    )


def naive_ends(predictions: Predictions, score: str, rows: list[int], seed: int) -> tuple[float, float]:
    """Draw utterances, score what their rows under some conditions say, 1000 times."""
    rng = np.random.default_rng(seed)
    answers, label = np.asarray(predictions.answers).reshape(-1, 7, 4), np.asarray(predictions.labels).reshape(-1, 7)
    guess = answers.argmax(-1)
    values = []
    for _ in range(1000):
        drawn = rng.integers(0, len(label), len(label))
        y, p = label[drawn][:, rows].ravel(), guess[drawn][:, rows].ravel()
        recalls = [np.mean(p[y == c] == c) for c in range(4) if (y == c).any()]
        values.append(np.mean(y == p) if score == "WA" else np.mean(recalls))
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def test_as_a_naive_loop_with_other_draws() -> None:
    predictions = predicted(CLASSES, 150)
    names, counts = utterance_counts(predictions)
    assert len(names) == 150
    found = bootstrap_intervals(CLASSES, counts)
    assert found is not None
    assert found.units == 150
    for score in ("WA", "UA"):
        for row, conditions in {"a": [0], "avt": [6], "pooled": list(range(6))}.items():
            assert found.values[row][score] == pytest.approx(naive_ends(predictions, score, conditions, 5), abs=0.012)


def test_scores_of_a_table_are_those_of_scikit_learn() -> None:
    predictions = predicted(CLASSES, 60)
    counts = utterance_counts(predictions)[1]
    scores = table_scores(CLASSES, counts.sum(0)[None])[0]
    label = np.asarray(predictions.labels).reshape(-1, 7)
    guess = np.asarray(predictions.answers).argmax(-1).reshape(-1, 7)
    ua = [recall_score(label[:, place], guess[:, place], average="macro") for place in range(7)]
    rows = dict(zip(SUMMARY_ROWS, scores[:, 1], strict=True))
    assert [rows[condition] for condition in CONDITIONS] == pytest.approx(ua)
    assert rows["mean"] == pytest.approx(np.mean(ua[:6]))


def test_of_a_regression() -> None:
    task = Regression()
    predictions = predicted(task, 200)
    found = bootstrap_intervals(task, utterance_counts(predictions)[1])
    assert found is not None
    error = np.abs(np.asarray(predictions.answers)[:, 0] - np.asarray(predictions.labels)).reshape(-1, 7)[:, 0]
    # The mean's interval by the normal approximation.
    half = 1.96 * error.std() / np.sqrt(200)
    assert found.values["a"]["MAE"] == pytest.approx((error.mean() - half, error.mean() + half), abs=0.02)
    assert all(ends is not None for row in found.values.values() for ends in row.values())


def test_the_same_every_time_and_fast() -> None:
    counts = utterance_counts(predicted(CLASSES, 2000))[1]
    bootstrap_intervals(CLASSES, counts[:10])  # imports
    started = time.process_time()
    first = bootstrap_intervals(CLASSES, counts)
    assert time.process_time() - started < 2  # 0.3 s of one idle core
    assert first == bootstrap_intervals(CLASSES, counts)


def test_speakers_are_drawn_whole() -> None:
    names, counts = utterance_counts(predicted(CLASSES, 40))
    who, summed = add_up(counts, speakers(names, IEMOCAP_LAYOUT))
    assert who == ["Ses01F", "Ses01M"]
    assert torch.equal(summed.sum(0), counts.sum(0))
    found = bootstrap_intervals(CLASSES, summed, "speakers")
    assert found is not None
    # Of two speakers, half of the draws are both, a quarter is one or the other alone.
    alone = sorted(float(CLASSES.evaluate(of[0])["WA"]) for of in summed)
    assert found.values["a"]["WA"] == pytest.approx(tuple(alone))
    with pytest.raises(InputError, match=r"the id u1 does not name its speaker \(nor do 1 more of 3\)"):
        speakers(["Ses01F_impro01_F000", "u1", "u2"], IEMOCAP_LAYOUT)


def test_unknown_labels_unanswered_conditions_and_single_units() -> None:
    predictions = predicted(CLASSES, 20)
    labels = np.asarray(predictions.labels).copy()
    labels[:7] = -1
    answered = np.flatnonzero(np.asarray(predictions.conditions) == 2).tolist()
    some = Predictions(
        CLASSES,
        [predictions.utterances[place] for place in answered],
        np.asarray(predictions.conditions)[answered],
        np.asarray(predictions.answers)[answered],
        labels[answered],
    )
    names, counts = utterance_counts(some)
    assert len(names) == 19
    found = bootstrap_intervals(CLASSES, counts)
    assert found is not None
    assert found.values["a"]["WA"] is None
    assert found.values["mean"]["WA"] is None
    assert found.values["pooled"] == found.values["t"]
    assert bootstrap_intervals(CLASSES, counts[:1]) is None


def test_they_read_back() -> None:
    found = Intervals("speakers", 3, {"a": {"WA": (0.25, 0.5), "UA": None}})
    assert intervals_from_json(found.to_json()) == found
    assert found.caption() == "[ ]: 95% bootstrap interval over 3 speakers"
    with pytest.raises(ValueError, match="frames"):
        intervals_from_json(found.to_json() | {"over": "frames"})
