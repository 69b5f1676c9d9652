"""Against scikit-learn: per condition, pooled, over batches and over two processes."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, f1_score
from torch import Tensor, distributed
from torch.multiprocessing.spawn import spawn

from datamodules.conditions import CONDITIONS, MISSING_CONDITIONS
from ifmmin.tasks import SUMMARY_ROWS, Classification, ConditionCounts
from ifmmin.tasks.classification import macro_f1, unweighted_accuracy, weighted_accuracy

CLASSES = 4
TASK = Classification([f"class {number}" for number in range(CLASSES)])
METRICS = ("WA", "UA", "F1")


def random_rows(count: int, seed: int = 0, classes: int = CLASSES) -> tuple[Tensor, Tensor, Tensor]:
    """prediction, label and condition of ``count`` rows; predictions are right more often than not."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.randint(classes, (count,), generator=generator)
    guess = torch.randint(classes, (count,), generator=generator)
    prediction = label.where(torch.rand(count, generator=generator) < 0.5, guess)
    return prediction, label, torch.randint(len(CONDITIONS), (count,), generator=generator)


def sklearn_scores(label: Tensor, prediction: Tensor) -> dict[str, float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # predicted classes that do not occur
        return {
            "WA": float(accuracy_score(label, prediction)),
            "UA": float(balanced_accuracy_score(label, prediction)),
            "F1": float(f1_score(label, prediction, average="macro")),
        }


def logits(prediction: Tensor) -> Tensor:
    """Outputs whose most probable class is ``prediction``."""
    return torch.nn.functional.one_hot(prediction, CLASSES).float()


def confusion_of(prediction: Tensor, label: Tensor, condition: Tensor) -> Tensor:
    metric = TASK.metric()
    metric.update(logits(prediction), label, condition)
    return metric.compute()


def test_confusion_equals_sklearn_and_adds_up_over_batches() -> None:
    prediction, label, condition = random_rows(501)
    metric = TASK.metric()
    for start in range(0, 501, 64):
        part = slice(start, start + 64)
        metric.update(logits(prediction[part]), label[part], condition[part])
    confusion = metric.compute()
    assert confusion.dtype == torch.int64
    assert confusion.shape == (7, CLASSES, CLASSES)
    for position in range(7):
        rows = condition == position
        expected = confusion_matrix(label[rows], prediction[rows], labels=range(CLASSES))
        np.testing.assert_array_equal(confusion[position].numpy(), expected)
    metric.reset()
    metric.update(logits(prediction[:1]), label[:1], condition[:1])
    assert metric.compute().sum() == 1


@pytest.mark.parametrize("seed", range(5))
def test_summary_equals_sklearn_per_condition_pooled_and_mean(seed: int) -> None:
    prediction, label, condition = random_rows(300, seed)
    summary = TASK.summarise(confusion_of(prediction, label, condition))
    assert tuple(summary) == SUMMARY_ROWS
    expected = {}
    for position, name in enumerate(CONDITIONS):
        rows = condition == position
        expected[name] = sklearn_scores(label[rows], prediction[rows])
    missing = condition != CONDITIONS.index("avt")
    expected["pooled"] = sklearn_scores(label[missing], prediction[missing])
    expected["mean"] = {
        metric: float(np.mean([expected[name][metric] for name in MISSING_CONDITIONS])) for metric in METRICS
    }
    for row, values in expected.items():
        assert summary[row] == pytest.approx(values, abs=1e-12), row


@pytest.mark.parametrize(
    ("label", "prediction"),
    [
        ([0, 0, 2], [0, 2, 2]),  # class 1 and 3 neither occur nor are predicted
        ([0, 0, 2], [0, 1, 2]),  # class 1 is predicted and does not occur
        ([0, 1, 1], [0, 0, 0]),  # class 1 occurs and is never predicted
        ([3, 3], [0, 1]),  # nothing right
        ([2], [2]),
    ],
)
def test_classes_that_do_not_occur(label: list[int], prediction: list[int]) -> None:
    truth, guess = torch.tensor(label), torch.tensor(prediction)
    confusion = confusion_of(guess, truth, torch.zeros_like(truth))
    summary = TASK.summarise(confusion)
    assert summary["a"] == pytest.approx(sklearn_scores(truth, guess), abs=1e-12)
    assert summary["pooled"] == pytest.approx(summary["a"], abs=1e-12)


def test_leading_dimensions_and_empty_matrices() -> None:
    confusion = confusion_of(*random_rows(200)).view(7, 1, CLASSES, CLASSES).clone()
    confusion[3] = 0
    for function in (weighted_accuracy, unweighted_accuracy, macro_f1):
        values = function(confusion)
        assert values.shape == (7, 1)
        assert values.dtype == torch.float64
        assert values[3].isnan().all()
        for position in (0, 6):
            torch.testing.assert_close(values[position, 0], function(confusion[position, 0]), rtol=0, atol=0)


def test_what_is_not_answered_is_none() -> None:
    prediction, label, _ = random_rows(50)
    text_only = TASK.summarise(confusion_of(prediction, label, torch.full_like(label, CONDITIONS.index("t"))))
    nothing = dict.fromkeys(METRICS)
    assert all(text_only[row] == nothing for row in ("a", "v", "av", "at", "vt", "mean", "avt"))
    assert text_only["t"] == text_only["pooled"] == pytest.approx(sklearn_scores(label, prediction), abs=1e-12)
    complete_only = TASK.summarise(confusion_of(prediction, label, torch.full_like(label, CONDITIONS.index("avt"))))
    assert complete_only["pooled"] == complete_only["mean"] == nothing


def test_rows_of_unknown_class_are_not_counted() -> None:
    prediction, label, condition = random_rows(100)
    label[::3] = -1
    known = label >= 0
    expected = confusion_of(prediction[known], label[known], condition[known])
    assert torch.equal(confusion_of(prediction, label, condition), expected)


@pytest.mark.parametrize(("label", "condition"), [(4, 0), (0, 7), (0, -1), (-2, 1)])
def test_values_outside_their_range_are_refused(label: int, condition: int) -> None:
    metric = TASK.metric()
    with pytest.raises(ValueError, match="is outside"):
        metric.update(torch.zeros(1, CLASSES), torch.tensor([label]), torch.tensor([condition]))
    assert metric.counts.sum() == 0


def _count_on_a_rank(rank: int, folder: str, metric: ConditionCounts) -> None:
    # The metric comes from the parent, so that its state lies in memory that both processes share.
    distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    prediction, *rest = random_rows(101)
    rows = (logits(prediction), *rest)
    for start in range(rank, 101, 20):  # ranks see different numbers of rows
        metric.update(*(column[start : start + 20 : 2] for column in rows))
    torch.save(metric.compute(), f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


def test_two_processes_equal_one(tmp_path: Path) -> None:
    metric = TASK.metric()
    spawn(_count_on_a_rank, args=(str(tmp_path), metric), nprocs=2)
    expected = confusion_of(*random_rows(101))
    for rank in (0, 1):
        assert torch.equal(torch.load(tmp_path / f"{rank}.pt", weights_only=True), expected)
