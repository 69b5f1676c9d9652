"""The regression task against scikit-learn, SciPy and loops, per condition and pooled."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr
from sklearn.metrics import accuracy_score, f1_score, mean_absolute_error
from torch import Tensor

from datamodules.conditions import CONDITIONS, MISSING_CONDITIONS
from datamodules.errors import InputError
from ifmmin.tasks import Regression, Score, task_of

TASK = Regression(-3, 3)


def random_rows(count: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs [count, 1], labels of which some are 0, and conditions."""
    generator = torch.Generator().manual_seed(seed)
    label = (torch.randn(count, generator=generator) * 1.5).clamp(-3, 3)
    label[::7] = 0.0
    outputs = label[:, None] + torch.randn(count, 1, generator=generator)
    return outputs, label, torch.randint(len(CONDITIONS), (count,), generator=generator)


def reference(outputs: Tensor, label: Tensor) -> dict[str, float]:
    """Every score as the field computes it, by other libraries."""
    p, y = outputs[:, 0].double().numpy(), label.double().numpy()
    rounded = [np.round(np.clip(values, -3, 3)).astype(int) for values in (y, p)]
    signed = y != 0
    return {
        "MAE": float(mean_absolute_error(y, p)),
        "Corr": float(pearsonr(y, p).statistic),
        "Acc7": float(accuracy_score(*rounded)),
        "Acc5": float(accuracy_score(*(np.round(np.clip(values, -2, 2)).astype(int) for values in (y, p)))),
        "Acc2_has0": float(accuracy_score(y >= 0, p >= 0)),
        "F1_has0": float(f1_score(y >= 0, p >= 0, average="weighted")),
        "Acc2_non0": float(accuracy_score(y[signed] > 0, p[signed] > 0)),
        "F1_non0": float(f1_score(y[signed] > 0, p[signed] > 0, average="weighted")),
    }


@pytest.mark.parametrize("seed", range(3))
def test_scores_equal_sklearn_and_scipy_per_condition_pooled_and_mean(seed: int) -> None:
    outputs, label, condition = random_rows(700, seed)
    metric = TASK.metric()
    for start in range(0, 700, 64):
        part = slice(start, start + 64)
        metric.update(outputs[part], label[part], condition[part])
    summary = TASK.summarise(metric.compute())
    expected = {}
    for position, name in enumerate(CONDITIONS):
        expected[name] = reference(outputs[condition == position], label[condition == position])
    missing = condition != CONDITIONS.index("avt")
    expected["pooled"] = reference(outputs[missing], label[missing])
    expected["mean"] = {
        score.name: float(np.mean([expected[name][score.name] for name in MISSING_CONDITIONS])) for score in TASK.scores
    }
    for row, values in expected.items():
        assert summary[row] == pytest.approx(values, abs=1e-9), row
    assert TASK.number(metric.compute()).tolist() == condition.bincount(minlength=7).tolist()


@pytest.mark.parametrize("seed", range(3))
def test_a_scale_from_minus_1_to_1_is_scored_as_ch_sims_is(seed: int) -> None:
    rng = np.random.default_rng(seed)
    y = (rng.integers(-5, 6, 500) / 5).astype(np.float32)  # the mean of five annotators
    p = (y + 0.6 * rng.standard_normal(500)).astype(np.float32)
    p[:9] = [-0.7, -0.1, 0.0, 0.1, 0.7, -1.0, 1.0, -4.0, 4.0]
    task = Regression(-1, 1)
    metric = task.metric()
    metric.update(torch.from_numpy(p)[:, None], torch.from_numpy(y), torch.zeros(500, dtype=torch.int64))
    clipped = p.clip(-1, 1)
    five = [np.digitize(each, np.array([-0.7, -0.1, 0.1, 0.7], np.float32), right=True) for each in (y, clipped)]
    three = [np.digitize(each, np.array([-0.1, 0.1], np.float32), right=True) for each in (y, clipped)]
    expected = {
        "MAE": float(mean_absolute_error(y.astype(np.float64), clipped.astype(np.float64))),
        "Corr": float(pearsonr(y.astype(np.float64), clipped.astype(np.float64)).statistic),
        "Acc5": float(accuracy_score(*five)),
        "Acc3": float(accuracy_score(*three)),
        "Acc2": float(accuracy_score(y > 0, clipped > 0)),
        "F1": float(f1_score(y > 0, clipped > 0, average="weighted")),
    }
    assert task.summarise(metric.compute())["a"] == pytest.approx(expected, abs=1e-9)
    assert task.levels[2] == "neutral"
    assert task.matrix(metric.compute())[0].sum() == 500


def test_rounded_values_form_a_confusion_matrix() -> None:
    outputs, label, condition = (
        torch.tensor([[2.4], [-9.0], [0.2]]),
        torch.tensor([3.0, -2.6, 0.0]),
        torch.zeros(3).long(),
    )
    metric = TASK.metric()
    metric.update(outputs, label, condition)
    matrix = TASK.matrix(metric.compute())[0]
    assert TASK.levels == ("-3", "-2", "-1", "0", "1", "2", "3")
    assert {tuple(cell) for cell in matrix.nonzero().tolist()} == {(6, 5), (0, 0), (3, 3)}


def test_unknown_labels_and_constant_predictions() -> None:
    outputs, label, condition = random_rows(50)
    label[::2] = torch.nan
    metric = TASK.metric()
    metric.update(outputs, label, torch.zeros_like(condition))
    summary = TASK.summarise(metric.compute())
    assert summary["a"] == pytest.approx(reference(outputs[1::2], label[1::2]), abs=1e-9)
    assert set(summary["v"].values()) == {None}
    metric.reset()
    metric.update(torch.full((50, 1), 0.1), random_rows(50)[1], torch.zeros_like(condition))
    constant = TASK.summarise(metric.compute())["a"]
    assert constant["Corr"] is None  # not defined, and no noise of rounding
    assert constant["MAE"] is not None


def test_a_label_outside_the_scale_is_refused() -> None:
    with pytest.raises(ValueError, match="outside"):
        TASK.metric().update(torch.zeros(1, 1), torch.tensor([3.5]), torch.tensor([0]))


def test_loss_direction_and_answers() -> None:
    outputs, label = torch.tensor([[1.0], [-1.0]]), torch.tensor([0.5, -3.0])
    assert float(TASK.loss(outputs, label)) == pytest.approx(1.25)
    assert (TASK.mode("MAE"), TASK.mode("Corr")) == ("min", "max")
    assert TASK.named(TASK.answers(outputs)[0]) == {"value": 1.0}
    assert [score.name for score in Regression(0, 4).scores][2:4] == ["Acc5", "Acc2_has0"]
    assert [score.name for score in Regression(-2.5, 2.5).scores][2:4] == ["Acc5", "Acc2_has0"]
    with pytest.raises(KeyError):
        TASK.score("UA")


def test_a_task_is_made_from_plain_values() -> None:
    again = task_of(TASK.spec())
    assert isinstance(again, Regression)
    assert again.spec() == {"name": "regression", "low": -3.0, "high": 3.0}
    assert task_of(None, ["calm", "angry"]).outputs == 2
    with pytest.raises(InputError, match="task 'ranking' is not known"):
        task_of({"name": "ranking"})
    with pytest.raises(InputError, match="at least two"):
        task_of(None, ["calm"])


def test_values_are_written_as_people_read_them() -> None:
    assert Score("WA").format(-0.00001) == "0.00"
    assert Score("MAE", percent=False).format(0.12345) == "0.123"
    assert Score("MAE", percent=False).format(None) == "–"


def test_a_student_follows_its_teachers_values() -> None:
    student, teacher = torch.tensor([[1.0], [2.0], [-1.0]]), torch.tensor([[1.5], [0.0], [-1.0]])
    assert Regression().distillation(student, teacher, 2.0).item() == pytest.approx((0.5 + 2 + 0) / 3)
