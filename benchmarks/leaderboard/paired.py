"""The paired test of models against a reference: Wilcoxon's signed-rank test over folds, Holm's correction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from scipy.stats import wilcoxon

DECIMALS = 12
"""Differences below 1e-12 are rounding, not a difference: they must not break ties."""


@dataclass(frozen=True)
class PairedTest:
    """A model against the reference in the mean of the six missing conditions.

    Attributes:
        difference: the mean over folds of this model minus the reference, in [-1, 1].
        p: of the Wilcoxon signed-rank test over folds, two-sided.
        p_holm: the same after Holm's correction over all models compared in this metric.
        folds: the number of folds compared.
    """

    difference: float
    p: float
    p_holm: float
    folds: int


def paired_tests(values: Mapping[str, Mapping[int, Mapping[int, float]]], reference: str) -> dict[str, PairedTest]:
    """Test each model against the reference, fold by fold, on the mean over seeds.

    Args:
        values: by model, fold and seed.
        reference: one of the models.

    Returns:
        by model, without the reference and the models that cannot be compared: a fold counts where both
        have runs of the same seeds, and two folds are needed.
    """
    own = values[reference]
    differences: dict[str, list[float]] = {}
    for model, folds in values.items():
        common = [fold for fold in folds if fold in own and folds[fold].keys() == own[fold].keys()]
        if model != reference and len(common) >= 2:
            differences[model] = [fmean(folds[fold].values()) - fmean(own[fold].values()) for fold in common]
    p = [_wilcoxon(difference) for difference in differences.values()]
    return {
        model: PairedTest(fmean(difference), raw, corrected, len(difference))
        for (model, difference), raw, corrected in zip(differences.items(), p, holm(p), strict=True)
    }


def _wilcoxon(differences: Sequence[float]) -> float:
    """The two-sided p, exact for few folds; 1 where nothing differs."""
    rounded = np.round(differences, DECIMALS)
    return float(wilcoxon(rounded).pvalue) if rounded.any() else 1.0


def holm(p: Sequence[float]) -> list[float]:
    """Holm's correction: p values that may all be compared with one level.

    The k-th smallest of m is multiplied by m - k + 1 (at most 1), and none may be below a smaller one's.

    Example:
        >>> holm([0.25, 0.125, 0.5])
        [0.5, 0.375, 0.5]
    """
    corrected = [0.0] * len(p)
    highest = 0.0
    for done, place in enumerate(sorted(range(len(p)), key=lambda place: p[place])):
        highest = max(highest, min(1.0, (len(p) - done) * p[place]))
        corrected[place] = highest
    return corrected


def smallest_p(folds: int) -> float:
    """The least p that the test can give over this many folds: all differences have one sign.

    Example:
        >>> smallest_p(5)
        0.0625
    """
    return 2.0 ** (1 - folds)
