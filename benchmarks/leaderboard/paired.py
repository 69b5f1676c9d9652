"""Paired tests of models against a reference, over folds: Wilcoxon's signed-rank test and the corrected t test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import fmean, variance

import numpy as np
from scipy.stats import t as student
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
        p_t: of the t test, two-sided, corrected for overlap unless the folds are independent; None where the sizes of
            the splits are unknown.
        p_t_holm: the same after Holm's correction.
        training_sets: the number of distinct training sets of these folds.
    """

    difference: float
    p: float
    p_holm: float
    folds: int
    p_t: float | None
    p_t_holm: float | None
    training_sets: int


@dataclass(frozen=True)
class Fold:
    """What the corrected t test needs to know of a fold.

    Attributes:
        training: equal of folds with the same training utterances.
        train_size: their number; None if unknown.
        test_size: number of utterances tested.
        independent: whether it shares no utterance with another fold.
    """

    training: str
    train_size: int | None
    test_size: int
    independent: bool = False


def paired_tests(
    values: Mapping[str, Mapping[int, Mapping[int, float]]], reference: str, splits: Mapping[int, Fold] | None = None
) -> dict[str, PairedTest]:
    """Test each model against the reference, fold by fold, on the mean over seeds.

    Args:
        values: by model, fold and seed.
        reference: one of the models.
        splits: of the folds; without them, there is no t test and every fold has a training set of its own.

    Returns:
        by model, without the reference and the models that cannot be compared: a fold counts where both
        have runs of the same seeds, and two folds are needed.
    """
    own = values[reference]
    splits = splits or {}
    differences: dict[str, dict[int, float]] = {}
    for model, folds in values.items():
        common = [fold for fold in folds if fold in own and folds[fold].keys() == own[fold].keys()]
        if model != reference and len(common) >= 2:
            differences[model] = {fold: fmean(folds[fold].values()) - fmean(own[fold].values()) for fold in common}
    p = {model: _wilcoxon(list(found.values())) for model, found in differences.items()}
    p_t = {model: _corrected(found, splits) for model, found in differences.items()}
    known = {model: value for model, value in p_t.items() if value is not None}
    p_holm, p_t_holm = (dict(zip(found, holm(list(found.values())), strict=True)) for found in (p, known))
    return {
        model: PairedTest(
            difference=fmean(found.values()),
            p=p[model],
            p_holm=p_holm[model],
            folds=len(found),
            p_t=p_t[model],
            p_t_holm=p_t_holm.get(model),
            training_sets=len({splits[fold].training if fold in splits else fold for fold in found}),
        )
        for model, found in differences.items()
    }


def _corrected(differences: Mapping[int, float], splits: Mapping[int, Fold]) -> float | None:
    """P of :func:`corrected_t` over training sets: folds that share one are one larger test set.

    Folds that are independent draws overlap in nothing; the correction is 0, which leaves the paired t test.
    """
    folds = sorted((splits[fold].training, fold) for fold in differences if fold in splits)
    sizes = {fold: splits[fold].train_size for _, fold in folds}
    if len(folds) < len(differences) or None in sizes.values():
        return None
    groups = [[fold for _, fold in group] for _, group in groupby(folds, key=lambda pair: pair[0])]
    if len(groups) < 2:
        return None
    tested = sum(splits[fold].test_size for fold in differences)
    trained = sum(sizes[group[0]] or 0 for group in groups)
    independent = all(splits[fold].independent for fold in differences)
    ratio = 0.0 if independent else tested / trained
    return corrected_t([fmean(differences[fold] for fold in group) for group in groups], ratio)


def corrected_t(differences: Sequence[float], ratio: float) -> float:
    """The corrected resampled t test of Nadeau and Bengio ("Inference for the generalization error", 2003), two-sided.

    The variance of the mean of n differences is taken as (1/n + ratio) s², not s²/n: their training sets overlap, so
    the differences are not independent.

    Args:
        differences: one per resampling, at least two.
        ratio: size of the test set over size of the training set.

    Example:
        >>> round(corrected_t([0.01, 0.03, 0.02, 0.00, 0.04], 1 / 4), 4)
        0.1324
    """
    rounded = [round(value, DECIMALS) for value in differences]
    if not any(rounded):
        return 1.0
    spread = variance(rounded)
    if spread == 0:
        return 0.0
    statistic = fmean(rounded) / ((1 / len(rounded) + ratio) * spread) ** 0.5
    return float(2 * student.sf(abs(statistic), len(rounded) - 1))


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
