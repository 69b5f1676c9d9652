"""Sentiment and other values on a scale: L1 loss, MAE, correlation and the accuracies of this field."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from datamodules.errors import InputError
from ifmmin.tasks.base import Score, Task

WIDEST_SCALE = 100
"""Most units of a scale: pairs of whole numbers on it are counted under each condition."""

_MOMENTS = 7
"""n, Σ|p - y|, Σp, Σy, Σp², Σy², Σpy."""


SIMS_EDGES = (-0.7, -0.1, 0.1, 0.7)
"""Where one of CH-SIMS's five classes ends; the edge belongs to the class below."""

SIMS_LEVELS = ("negative", "weakly negative", "neutral", "weakly positive", "positive")

_FIVE = 2  # Acc-5 clips to -2..2


class Regression(Task):
    """One value per utterance: the output is the value, labels are floats, NaN where unknown.

    As CMU-MOSI and CMU-MOSEI are scored: MAE; Pearson's correlation; ``Acc7``, accuracy after clipping to the scale
    and rounding to whole numbers (seven of them from -3 to 3; the digit follows the scale); accuracy and weighted F1
    of the sign, counted both ways: ``has0``, negative against not negative, over all utterances, and ``non0``,
    negative against positive, over those whose true value is not 0. A scale from -n to n, n above 2, has ``Acc5`` too,
    after clipping to -2..2.

    A scale from -1 to 1 is scored as CH-SIMS is (Yu et al., ACL 2020, and MMSA's code): predictions are clipped to the
    scale first; ``Acc5`` has the classes of :data:`SIMS_EDGES`, ``Acc3`` joins its two negative and its two positive
    ones, ``Acc2`` and its weighted F1 tell positive from not positive.

    Args:
        low: the least value of the scale.
        high: its greatest.

    Raises:
        InputError: the scale is empty, or wider than :data:`WIDEST_SCALE`.

    >>> task = Regression(-3, 3)
    >>> task.outputs, task.mode("MAE"), task.mode("Corr"), task.scores[2].name
    (1, 'min', 'max', 'Acc7')
    >>> [score.name for score in Regression(-1, 1).scores]
    ['MAE', 'Corr', 'Acc5', 'Acc3', 'Acc2', 'F1']
    """

    name: ClassVar[str] = "regression"
    counts_key: ClassVar[str] = "sums"
    counts_dtype: ClassVar[torch.dtype] = torch.float64
    limited: ClassVar[str] = "MAE"
    outputs = 1
    class_names: tuple[str, ...] = ()

    def __init__(self, low: float = -3.0, high: float = 3.0) -> None:
        if not 0 < high - low <= WIDEST_SCALE:
            raise InputError(
                f"scale {low}..{high}: the first must be below the second, by at most {WIDEST_SCALE}; "
                "rescale the labels."
            )
        self.low, self.high = float(low), float(high)
        self._first = math.ceil(low)
        self._sims = (self.low, self.high) == (-1.0, 1.0)
        whole = tuple(map(str, range(self._first, math.floor(high) + 1)))
        self.levels = SIMS_LEVELS if self._sims else whole
        self._signs = 4 if self._sims else 8
        self.shape = (_MOMENTS + len(self.levels) ** 2 + self._signs,)
        # Joined to fewer classes by clipping; rounding and clipping to whole numbers may change places.
        joined = {1: "Acc3"} if self._sims else {}
        if not self._sims and -self.low == self.high and len(whole) > 2 * _FIVE + 1:
            joined = {_FIVE: "Acc5"}
        self._joined = joined
        signs = ("Acc2", "F1") if self._sims else ("Acc2_has0", "F1_has0", "Acc2_non0", "F1_non0")
        self.scores = (
            Score("MAE", higher_is_better=False, percent=False),
            Score("Corr", percent=False),
            *map(Score, (f"Acc{len(self.levels)}", *joined.values(), *signs)),
        )

    def spec(self) -> dict[str, Any]:
        """See :class:`~ifmmin.tasks.Task`."""
        return {"name": self.name, "low": self.low, "high": self.high}

    def loss(self, outputs: Tensor, label: Tensor) -> Tensor:
        """Mean absolute error of outputs [B, 1]."""
        return F.l1_loss(outputs[:, 0], label.to(outputs.dtype))

    def distillation(self, outputs: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
        """Mean absolute difference to the teacher's values; a value has no temperature."""
        return F.l1_loss(outputs, teacher)

    def count(self, outputs: Tensor, label: Tensor) -> Tensor:
        """Moments, the pair of levels and the signs of each row of known label: float64 [B, K].

        Raises:
            ValueError: a label is outside the scale.
        """
        known = ~label.isnan()
        y = label.double().where(known, 0.0)
        if bool((known & ((y < self.low) | (y > self.high))).any()):
            raise ValueError(f"a label is outside {self.low}..{self.high}")
        p = outputs[:, 0].double()
        p = p.clamp(self.low, self.high) if self._sims else p
        moments = torch.stack([torch.ones_like(y), (p - y).abs(), p, y, p * p, y * y, p * y], dim=1)
        levels = len(self.levels)
        true, predicted = (self._level(value) for value in (y, p))
        matrix = F.one_hot(true * levels + predicted, levels * levels)
        positive = F.one_hot(2 * (y > 0).long() + (p > 0).long(), 4)
        signs = [positive]
        if not self._sims:
            signs = [F.one_hot(2 * (y >= 0).long() + (p >= 0).long(), 4), positive * (y != 0)[:, None]]
        counted = torch.cat([moments, matrix.double(), *(sign.double() for sign in signs)], dim=1)
        # Selected, not multiplied: an unknown row may be NaN.
        return counted.where(known[:, None], 0.0)

    def _level(self, values: Tensor) -> Tensor:
        """Place of each value in :attr:`levels`, int64 [B]."""
        if self._sims:  # labels are float32: in float64 a 0.1 would be above the edge
            return torch.bucketize(values.float(), torch.tensor(SIMS_EDGES, device=values.device))
        rounded = values.clamp(self.low, self.high).round().long() - self._first
        return rounded.clamp(0, len(self.levels) - 1)

    def evaluate(self, counts: Tensor) -> dict[str, Tensor]:
        """Every score of counts [..., K]."""
        n, error, p, y, pp, yy, py = counts[..., :_MOMENTS].unbind(-1)
        spread_p, spread_y = pp - p * p / n, yy - y * y / n
        # Sums of equal values differ by rounding alone: no correlation is defined there.
        varies = (spread_p > 1e-12 * pp) & (spread_y > 1e-12 * yy)
        corr = (py - p * y / n) / (spread_p * spread_y).clamp(min=0).sqrt()
        matrix = self.matrix(counts)
        found = [error / n, corr.where(varies, torch.nan).clamp(-1, 1), _accuracy(matrix)]
        found += [_accuracy(_clipped(matrix, most)) for most in self._joined]
        for signs in counts[..., -self._signs :].unflatten(-1, (-1, 2, 2)).unbind(-3):
            found += [_accuracy(signs), _weighted_f1(signs)]
        return {score.name: value for score, value in zip(self.scores, found, strict=True)}

    def number(self, counts: Tensor) -> Tensor:
        """Rows counted, int64 [...]."""
        return counts[..., 0].long()

    def matrix(self, counts: Tensor) -> Tensor:
        """Confusion matrices over :attr:`levels`, int64 [..., L, L]."""
        levels = len(self.levels)
        matrix: Tensor = counts[..., _MOMENTS : -self._signs].unflatten(-1, (levels, levels)).long()
        return matrix

    def answers(self, outputs: Tensor) -> Tensor:
        """Values, float32 [R, 1], not clipped to the scale."""
        return outputs.float()

    def named(self, answer: Tensor) -> dict[str, float]:
        """Name the value."""
        return {"value": float(answer[0])}


def _accuracy(confusion: Tensor) -> Tensor:
    """Share on the diagonal [...] of counts [..., C, C]; NaN for an empty matrix."""
    counts = confusion.double()
    accuracy: Tensor = counts.diagonal(dim1=-2, dim2=-1).sum(-1) / counts.sum((-2, -1))
    return accuracy


def _clipped(confusion: Tensor, most: int) -> Tensor:
    """Counts [..., L, L] of levels around a middle one, with those beyond ``most`` from it joined to the last."""
    size = confusion.shape[-1]
    level = (torch.arange(size, device=confusion.device) - size // 2).clamp(-most, most) + most
    joined = F.one_hot(level, 2 * most + 1).double()
    return joined.T @ confusion.double() @ joined


def _weighted_f1(confusion: Tensor) -> Tensor:
    """F1 of each class weighted by how often it occurs [...], of counts [..., C, C]; NaN for an empty matrix."""
    counts = confusion.double()
    right, true, predicted = counts.diagonal(dim1=-2, dim2=-1), counts.sum(-1), counts.sum(-2)
    f1 = 2 * right / (true + predicted).clamp(min=1)
    weighted: Tensor = (f1 * true).sum(-1) / true.sum(-1)
    return weighted
