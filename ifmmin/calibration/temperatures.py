"""One temperature per condition: fitted on validation, kept in the checkpoint, applied to probabilities.

Guo et al., "On calibration of modern neural networks", ICML 2017: logits are divided by T > 0, which changes no
ranking of the classes, so no accuracy. Softmax of log-probabilities over T is the same, so a model whose answers come
from no logits is calibrated alike.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from datamodules.conditions import CONDITIONS
from datamodules.errors import InputError
from ifmmin.calibration.measures import log_probability
from ifmmin.tasks import Task

if TYPE_CHECKING:
    from ifmmin.results.predictions import Predictions

LOWEST, HIGHEST = 0.05, 20.0
"""Bounds of a temperature: where every validation answer is right, the best one would be 0."""

_STEPS = 60  # halvings of ln(HIGHEST / LOWEST): below float64's precision


def fit_temperature(probability: Tensor, label: Tensor) -> float:
    """Find the temperature in [LOWEST, HIGHEST] whose probabilities have the least NLL.

    NLL is convex in 1/T, so its derivative has one change of sign; it is found by bisection in ln T, the same on
    every machine.

    Args:
        probability: [N, C], N at least 1; rows add up to 1.
        label: int64 [N], 0..C-1.

    >>> import torch
    >>> sure = torch.tensor([[0.99, 0.01]]).repeat(4, 1)
    >>> temperature = fit_temperature(sure, torch.tensor([0, 0, 0, 1]))  # right three times in four
    >>> calibrated(sure, temperature)[0].round(decimals=4)
    tensor([0.7500, 0.2500], dtype=torch.float64)
    """
    logits = log_probability(probability)
    right = logits.gather(1, label[:, None])

    def slope(temperature: float) -> float:
        """Derivative of NLL by 1/T: the mean logit that is expected, minus the mean of the true class's."""
        expected = ((logits / temperature).softmax(dim=1) * logits).sum(dim=1, keepdim=True)
        return float((expected - right).mean())

    low, high = math.log(LOWEST), math.log(HIGHEST)
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if slope(math.exp(middle)) > 0:  # too sure: a larger T lowers NLL
            low = middle
        else:
            high = middle
    return min(max(math.exp((low + high) / 2), LOWEST), HIGHEST)  # rounding may pass a bound, which readers refuse


def fit_temperatures(predictions: Predictions) -> dict[str, float]:
    """Fit the temperature of each condition that has an answer with a known label; none of a regression."""
    if not predictions.task.class_names:
        return {}
    probability, label, condition = answered(predictions)
    found = {}
    for place, name in enumerate(CONDITIONS):
        rows = condition == place
        if bool(rows.any()):
            found[name] = fit_temperature(probability[rows], label[rows])
    return found


def answered(predictions: Predictions) -> tuple[Tensor, Tensor, Tensor]:
    """Answers of known label of a classification: float64 [N, C], int64 [N] and their conditions [N]."""
    probability, label, condition = map(
        torch.as_tensor, (predictions.answers, predictions.labels, predictions.conditions)
    )
    known = label >= 0
    return probability[known].double().cpu(), label[known].long().cpu(), condition[known].long().cpu()


def calibrated(probability: Tensor, temperature: float | Tensor) -> Tensor:
    """Probabilities at a temperature, float64 [N, C].

    Args:
        probability: [N, C].
        temperature: of all rows, or [N].
    """
    if isinstance(temperature, Tensor):
        temperature = temperature.double()[:, None]
    return (log_probability(probability) / temperature).softmax(dim=1)


def by_row(condition: Tensor, temperatures: Mapping[str, float]) -> Tensor:
    """Temperature of each row, float64 [N], NaN where its condition has none; ``condition`` int64 [N]."""
    return torch.tensor([temperatures.get(name, math.nan) for name in CONDITIONS], dtype=torch.float64)[condition]


def check_confidence(task: Task, calibrated: bool, abstain_below: float | None) -> None:
    """Refuse calibration of a regression, and a threshold that is no probability.

    Raises:
        InputError: naming the option.
    """
    for name, given in {"calibrated": calibrated, "abstain_below": abstain_below is not None}.items():
        if given and not task.class_names:
            raise InputError(f"{name}: a {task.name} answers with a value; only probabilities of classes have that.")
    if abstain_below is not None and not 0 <= abstain_below <= 1:
        raise InputError(f"abstain_below {abstain_below}: give a probability, from 0 to 1.")


def check_asked(
    task: Task, temperatures: Mapping[str, float], source: str, calibrated: bool, abstain_below: float | None
) -> None:
    """Refuse, before anything is read, what no answer of a checkpoint could be.

    Args:
        task: of its model.
        temperatures: that it has.
        source: the checkpoint.
        calibrated: whether its probabilities are to be calibrated.
        abstain_below: how probable a class must be.

    Raises:
        InputError: see :func:`check_confidence`; or it has no temperature at all.
    """
    check_confidence(task, calibrated, abstain_below)
    if calibrated and not temperatures:
        check_temperatures(temperatures, ["any condition"], source)


def check_temperatures(temperatures: Mapping[str, float], conditions: Iterable[str], source: str) -> None:
    """Refuse conditions that have no temperature.

    Raises:
        InputError: naming the conditions and the remedy.
    """
    if lacking := [name for name in conditions if name not in temperatures]:
        raise InputError(
            f"{source}: has no temperature of {', '.join(lacking)}, so its probabilities are not calibrated; "
            "validate --calibrate true --ckpt_path FILE.ckpt fits them on validation; save a saved model again then."
        )


def store_temperatures(checkpoint: str | Path, temperatures: Mapping[str, float]) -> None:
    """Write temperatures into a checkpoint; the file is the old one until the new one is on the disk.

    Args:
        checkpoint: one that ``fit`` wrote.
        temperatures: by condition.

    Raises:
        InputError: it cannot be read.
        OSError: it cannot be written.
    """
    from ifmmin.checkpoints.reading import load_safely
    from ifmmin.checkpoints.writing import write_checkpoint

    stored = load_safely(checkpoint)
    stored["ifmmin"]["temperatures"] = dict(temperatures)
    write_checkpoint(stored, Path(checkpoint))
