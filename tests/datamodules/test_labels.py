"""Labels of classes and of values, from files to batches."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from datamodules.errors import CorpusError
from datamodules.labels import Classes, LabelScheme, Scale
from datamodules.storage.check import check_corpus
from datamodules.storage.problems import Problems, Strict
from tests.datamodules.corpora import RegressionSample, load_ids, write_regression_corpus

IDS = ["u1", "u2", "u3"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_regression_corpus(tmp_path, utterances=20)


@pytest.mark.parametrize("values", [[-3, 0, 3], [-3.0, 0.25, 3.0], [[-3.0], [0.25], [3.0]]])
def test_values_on_the_scale_are_read_as_float32(values: list[Any]) -> None:
    read = Scale(-3, 3).read(Path("trn_label.npy"), IDS, np.array(values), Strict())
    assert read is not None
    assert read.numbers.dtype == np.float32
    assert read.numbers.tolist() == np.ravel(values).tolist()
    assert read.soft is None
    assert read.known.all()


def test_values_that_are_no_number_are_unknown_on_demand() -> None:
    labels = np.array([1, np.nan, 2])
    read = Scale(-3, 3).read(Path("trn_label.npy"), IDS, labels, Strict(), drop_unknown=True)
    assert read is not None
    assert read.known.tolist() == [True, False, True]
    with pytest.raises(CorpusError, match="utterance u3: label 5"):
        Scale(-3, 3).read(Path("trn_label.npy"), IDS, np.array([1, np.nan, 5]), Strict(), drop_unknown=True)


@pytest.mark.parametrize(
    ("scheme", "labels", "message"),
    [
        (Scale(-3, 3), np.array([0, 3.5, -4]), "trn_label.npy: utterance u2: label 3.5 is outside -3..3 (and 1 more"),
        (Scale(-3, 3), np.array([0, 0, np.nan]), "trn_label.npy: utterance u3: label nan is outside -3..3;"),
        (Scale(-3, 3), np.array([np.inf, 0, 0]), "trn_label.npy: utterance u1: label inf is outside -3..3;"),
        (
            Scale(-3, 3),
            np.zeros((3, 2)),
            "trn_label.npy: holds float64 [3, 2] where one value an utterance is expected;",
        ),
        (Scale(-3, 3), np.array(["a", "b", "c"]), "trn_label.npy: holds <U1 [3] where one value"),
        (Classes(("calm", "angry")), np.array([0, 1, 2]), "trn_label.npy: utterance u3: label 2 is outside 0..1;"),
    ],
)
def test_labels_outside_the_scheme_are_one_problem(scheme: LabelScheme, labels: npt.NDArray[Any], message: str) -> None:
    problems = Problems()
    assert scheme.read(Path("trn_label.npy"), IDS, labels, problems) is None
    assert [str(problem).startswith(message) for problem in problems.found] == [True]
    with pytest.raises(CorpusError, match="^" + re.escape(message)):
        scheme.read(Path("trn_label.npy"), IDS, labels, Strict())


def test_batches_give_each_utterance_its_value(root: Path) -> None:
    data = RegressionSample(str(root))
    data.setup("fit")
    assert (data.task, data.class_names) == ({"name": "regression", "low": -3.0, "high": 3.0}, [])
    stored = dict(zip(load_ids(root, 1, "val"), np.load(root / "target" / "1" / "val_label.npy"), strict=True))
    found: dict[str, float] = {}
    for batch in data.in_order("val"):
        assert batch.labels.dtype == torch.float32
        found |= dict(zip(batch.utterances, batch.labels.tolist(), strict=True))
    assert found == stored


def test_the_check_shows_number_mean_and_range_of_values(root: Path) -> None:
    report = check_corpus(root, RegressionSample.layout)
    values = np.load(root / "target" / "2" / "trn_label.npy").astype(np.float64)
    shown = report.summary.folds[2].counts["train"]
    assert report.lines == []
    assert (shown["utterances"], shown["min"], shown["max"]) == (len(values), values.min(), values.max())
    assert shown["mean"] == pytest.approx(values.mean(), rel=1e-5)


def test_a_changed_value_changes_the_fingerprint(root: Path) -> None:
    def fingerprint() -> str:
        data = RegressionSample(str(root))
        data.setup("fit")
        return data.fingerprint

    before, path = fingerprint(), root / "target" / "1" / "tst_label.npy"
    values = np.load(path)
    values[0] = -values[0] / 2
    np.save(path, values)
    assert fingerprint() != before
