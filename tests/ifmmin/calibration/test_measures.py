"""ECE, Brier, NLL and the risk-coverage area against loops and scikit-learn; temperatures against SciPy."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from sklearn.metrics import brier_score_loss, log_loss
from torch import Tensor

from datamodules.conditions import CONDITIONS
from ifmmin.calibration import (
    calibrated,
    fit_temperature,
    fit_temperatures,
    measures,
    risk_coverage_area,
    store_temperatures,
)
from ifmmin.calibration.measures import log_probability
from ifmmin.calibration.temperatures import HIGHEST, LOWEST, by_row
from ifmmin.results.predictions import Predictions
from ifmmin.tasks import Classification, Regression


def answers(size: int = 200, classes: int = 4, sharpness: float = 2.0, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Probabilities of a model that is right more often than not, and surer than it should be."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.randint(classes, (size,), generator=generator)
    logits = torch.randn(size, classes, generator=generator)
    logits[torch.arange(size), label] += 0.8
    return (sharpness * logits).double().softmax(dim=1), label


def ece_by_loop(probability: np.ndarray, label: np.ndarray, bins: int = 15) -> float:
    total, n = 0.0, len(label)
    for place in range(bins):
        inside = [row for row in range(n) if place / bins <= probability[row].max() < (place + 1) / bins]
        if inside:
            confidence = sum(probability[row].max() for row in inside) / len(inside)
            accuracy = sum(probability[row].argmax() == label[row] for row in inside) / len(inside)
            total += len(inside) / n * abs(confidence - accuracy)
    return total


def area_by_permutations(confidence: list[float], wrong: list[bool]) -> Fraction:
    """Mean area over every order in which a tie may be broken."""
    orders = [
        order
        for order in itertools.permutations(range(len(wrong)))
        if all(confidence[a] >= confidence[b] for a, b in itertools.pairwise(order))
    ]
    areas = []
    for order in orders:
        risks = [Fraction(sum(wrong[row] for row in order[:k]), k) for k in range(1, len(order) + 1)]
        areas.append(sum(risks, Fraction()) / len(risks))
    return sum(areas, Fraction()) / len(areas)


@pytest.mark.parametrize("classes", [2, 4, 7])
def test_measures_are_those_of_loops_and_of_scikit_learn(classes: int) -> None:
    probability, label = answers(classes=classes)
    found = measures(probability, label)
    plain, true = probability.double().numpy(), label.numpy()
    assert found["ECE"] == pytest.approx(ece_by_loop(plain, true), abs=1e-6)
    assert found["ECE"] > 0.1
    assert found["NLL"] == pytest.approx(log_loss(true, plain, labels=range(classes)), abs=1e-7)
    one_hot = np.eye(classes)[true]
    assert found["Brier"] == pytest.approx(sum(brier_score_loss(one_hot[:, c], plain[:, c]) for c in range(classes)))
    order = sorted(range(len(true)), key=lambda row: -plain[row].max())
    wrong = [plain[row].argmax() != true[row] for row in order]
    risks = [sum(wrong[:k]) / k for k in range(1, len(wrong) + 1)]
    assert found["AURC"] == pytest.approx(sum(risks) / len(risks))


def test_perfect_answers_measure_zero() -> None:
    label = torch.tensor([2, 0, 1])
    found = measures(torch.eye(3)[label], label)
    assert found == pytest.approx({"ECE": 0.0, "Brier": 0.0, "NLL": 0.0, "AURC": 0.0}, abs=1e-7)


def test_a_wrong_answer_of_probability_zero_has_a_finite_nll() -> None:
    assert math.isfinite(measures(torch.tensor([[1.0, 0.0]]), torch.tensor([1]))["NLL"])


@pytest.mark.parametrize("seed", range(6))
def test_the_area_of_tied_answers_is_the_mean_over_their_orders(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    confidence = torch.randint(1, 4, (6,), generator=generator) / 4
    wrong = torch.rand(6, generator=generator) < 0.5
    expected = area_by_permutations(confidence.tolist(), wrong.tolist())
    assert risk_coverage_area(confidence, wrong) == pytest.approx(float(expected))


def nll(probability: Tensor, label: Tensor, temperature: float) -> float:
    logits = np.log(probability.double().numpy()) / temperature
    logits -= logits.max(axis=1, keepdims=True)
    total = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(label)), label.numpy()]
    return float(total.mean())


@pytest.mark.parametrize("sharpness", [0.5, 1.5, 3.0, 6.0])
def test_the_temperature_is_scipys(sharpness: float) -> None:
    probability, label = answers(sharpness=sharpness)
    best = minimize_scalar(
        lambda log: nll(probability, label, math.exp(log)),
        bounds=(math.log(LOWEST), math.log(HIGHEST)),
        method="bounded",
        options={"xatol": 1e-9},
    )
    found = fit_temperature(probability, label)
    assert found == pytest.approx(math.exp(best.x), rel=1e-4)
    assert nll(probability, label, found) <= best.fun + 1e-12
    assert (found > 1) == (sharpness > 1)
    after = calibrated(probability, found)
    assert torch.equal(after.argmax(dim=1), probability.argmax(dim=1))
    assert measures(after, label)["NLL"] == pytest.approx(nll(probability, label, found))
    assert measures(after, label)["NLL"] <= measures(probability, label)["NLL"]


def test_the_temperature_of_answers_that_are_all_right_is_the_lowest() -> None:
    sure = torch.tensor([[0.9, 0.1]])
    right, wrong = (fit_temperature(sure, torch.tensor([label])) for label in (0, 1))
    assert right == pytest.approx(LOWEST)
    assert wrong == pytest.approx(HIGHEST)
    assert LOWEST <= right < wrong <= HIGHEST


def test_probabilities_over_a_temperature_are_those_of_the_logits() -> None:
    logits = 3 * torch.randn(50, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    temperature = torch.linspace(0.5, 4, 50, dtype=torch.float64)
    expected = (logits / temperature[:, None]).softmax(dim=1)
    assert torch.allclose(calibrated(logits.softmax(dim=1), temperature), expected)


def predictions(condition: Tensor, sharpness: list[float]) -> Predictions:
    parts = [answers(len(condition), sharpness=each, seed=place) for place, each in enumerate(sharpness)]
    row = torch.arange(len(condition))
    probability = torch.stack([part[0] for part in parts])[condition, row]
    label = torch.stack([part[1] for part in parts])[condition, row]
    label[::10] = -1
    names = [f"u{place}" for place in range(len(condition))]
    return Predictions(Classification(["a", "b", "c", "d"]), names, condition, probability, label)


def test_each_condition_has_its_own_temperature() -> None:
    condition = torch.arange(420) % 6  # nothing under the complete one
    found = predictions(condition, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    temperatures = fit_temperatures(found)
    assert list(temperatures) == list(CONDITIONS[:6])
    for place, name in enumerate(CONDITIONS[:6]):
        rows = (condition == place) & (torch.as_tensor(found.labels) >= 0)
        expected = fit_temperature(torch.as_tensor(found.answers)[rows], torch.as_tensor(found.labels)[rows])
        assert temperatures[name] == expected
    assert temperatures["vt"] > 2 * temperatures["a"]
    rows = by_row(torch.tensor([0, 6, 1]), temperatures)
    assert rows[[0, 2]].tolist() == [temperatures["a"], temperatures["v"]]
    assert bool(rows[1].isnan())


def test_a_regression_has_no_temperatures() -> None:
    values = Predictions(Regression(-3, 3), ["u"], np.array([0]), np.array([[0.5]]), np.array([1.0]))
    assert fit_temperatures(values) == {}


def test_log_probabilities_are_finite_and_ordered() -> None:
    found = log_probability(torch.tensor([0.0, 1e-45, 1e-30, 1.0]))
    assert found.isfinite().all()
    assert found[2] > found[1] == found[0]


def test_storing_temperatures_changes_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    torch.save({"state_dict": {"w": torch.ones(3)}, "ifmmin": {"model": "M"}, "epoch": 3}, path)
    store_temperatures(path, {"a": 1.5})
    store_temperatures(path, {"av": 2.5})
    stored = torch.load(path, weights_only=True)
    assert stored["ifmmin"] == {"model": "M", "temperatures": {"av": 2.5}}
    assert torch.equal(stored["state_dict"]["w"], torch.ones(3))
    assert stored["epoch"] == 3
    assert [file.name for file in tmp_path.iterdir()] == ["model.ckpt"]
