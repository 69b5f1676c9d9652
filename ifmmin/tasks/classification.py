"""WA, UA and macro F1 per condition, from one confusion matrix per condition.

Everything here is counted, never averaged over batches: a metric of a split is a function of the
seven confusion matrices of that split, which add up over batches, ranks and conditions.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric

from datamodules.conditions import COMPLETE, CONDITIONS, MISSING_CONDITIONS

METRICS: tuple[str, str, str] = ("WA", "UA", "F1")
"""The columns of a summary."""

SUMMARY_ROWS: tuple[str, ...] = (*MISSING_CONDITIONS, "mean", "pooled", COMPLETE)
"""The rows of a summary, in the order in which they are shown."""


class ConditionConfusion(Metric):
    """One confusion matrix per condition, summed over batches and ranks.

    Args:
        num_classes: the number of classes C.

    Example:
        >>> metric = ConditionConfusion(num_classes=2)
        >>> label, prediction = torch.tensor([0, 1, 1]), torch.tensor([0, 0, 1])
        >>> metric.update(prediction, label, condition=torch.tensor([0, 0, 6]))
        >>> metric.compute()[0]
        tensor([[1, 0],
                [1, 0]])
    """

    full_state_update = False
    is_differentiable = False
    confusion: Tensor

    def __init__(self, num_classes: int) -> None:
        """Start with nothing counted."""
        super().__init__()
        self.num_classes = num_classes
        shape = (len(CONDITIONS), num_classes, num_classes)
        self.add_state("confusion", torch.zeros(shape, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, prediction: Tensor, label: Tensor, condition: Tensor) -> None:
        """Count a batch.

        Args:
            prediction: int64 [B], the predicted class, in [0, C).
            label: int64 [B], the true class; rows of unknown class, -1, are not counted.
            condition: int64 [B], positions in :data:`~datamodules.conditions.CONDITIONS`.

        Raises:
            ValueError: a class or a condition lies outside its range.
        """
        classes, shape = self.num_classes, self.confusion.shape
        low = torch.stack([prediction, label + 1, condition]) >= 0
        high = (prediction < classes) & (label < classes) & (condition < len(CONDITIONS))
        if not bool((low & high).all()):
            raise ValueError(f"a prediction, label or condition lies outside its range ({classes} classes)")
        cell = (condition * classes + label) * classes + prediction
        # Rows of unknown class go to one more bin, which is dropped.
        cell = torch.where(label >= 0, cell, shape.numel())
        counts = torch.bincount(cell, minlength=shape.numel() + 1)[:-1].view(shape)
        # Not in place: a spawned process shares the memory of the state that it was handed.
        self.confusion = self.confusion + counts

    def compute(self) -> Tensor:
        """int64 [7, C, C]: per condition, true classes in rows, predicted classes in columns."""
        return self.confusion


def weighted_accuracy(confusion: Tensor) -> Tensor:
    r"""WA, the share of utterances predicted right: :math:`\sum_i n_{ii} / \sum_{ij} n_{ij}`.

    Args:
        confusion: counts [..., C, C], true classes in rows.

    Returns:
        float64 [...] in [0, 1]; NaN for an empty matrix.

    Example:
        >>> weighted_accuracy(torch.tensor([[3, 1], [0, 0]])).item()
        0.75
    """
    counts = confusion.double()
    return _diagonal(counts).sum(-1) / counts.sum((-2, -1))


def unweighted_accuracy(confusion: Tensor) -> Tensor:
    r"""UA, the mean recall over the classes that occur: :math:`\mathrm{mean}_i\, n_{ii} / \sum_j n_{ij}`.

    Args:
        confusion: counts [..., C, C], true classes in rows.

    Returns:
        float64 [...] in [0, 1]; NaN for an empty matrix.

    Example:
        >>> unweighted_accuracy(torch.tensor([[3, 1], [0, 1]])).item()
        0.875
    """
    counts = confusion.double()
    return _mean_of_ratios(_diagonal(counts), counts.sum(-1))


def macro_f1(confusion: Tensor) -> Tensor:
    r"""The mean over classes of :math:`2 n_{ii} / (\sum_j n_{ij} + \sum_j n_{ji})`.

    A class that neither occurs nor is predicted is left out, as scikit-learn does.

    Args:
        confusion: counts [..., C, C], true classes in rows.

    Returns:
        float64 [...] in [0, 1]; NaN for an empty matrix.

    Example:
        >>> macro_f1(torch.tensor([[2, 0, 0], [0, 3, 0], [0, 0, 0]])).item()
        1.0
    """
    counts = confusion.double()
    return _mean_of_ratios(2 * _diagonal(counts), counts.sum(-1) + counts.sum(-2))


def _diagonal(counts: Tensor) -> Tensor:
    """[..., C]: the right predictions of each class."""
    return counts.diagonal(dim1=-2, dim2=-1)


def _mean_of_ratios(numerator: Tensor, denominator: Tensor) -> Tensor:
    """[...]: the mean of numerator / denominator over the last axis, where the denominator is not 0."""
    defined = denominator > 0
    ratios = numerator / denominator.where(defined, 1.0)
    return (ratios * defined).sum(-1) / defined.sum(-1)


def scores(confusion: Tensor) -> dict[str, float | None]:
    """WA, UA and F1 of one confusion matrix [C, C]; None for each where it is empty.

    Example:
        >>> scores(torch.tensor([[1, 0], [0, 1]]))
        {'WA': 1.0, 'UA': 1.0, 'F1': 1.0}
        >>> scores(torch.zeros(2, 2))
        {'WA': None, 'UA': None, 'F1': None}
    """
    if not bool(confusion.any()):
        return dict.fromkeys(METRICS)
    functions = (weighted_accuracy, unweighted_accuracy, macro_f1)
    return {name: float(function(confusion)) for name, function in zip(METRICS, functions, strict=True)}


def summarise(confusion: Tensor) -> dict[str, dict[str, float | None]]:
    """The table that results are compared by.

    Args:
        confusion: counts [7, C, C], as :meth:`ConditionConfusion.compute` gives them.

    Returns:
        for every row of :data:`SUMMARY_ROWS`, a value in [0, 1] for every one of :data:`METRICS`, or
        None where the row is not answered. A condition is answered if its matrix holds anything.
        ``"mean"`` is the arithmetic mean over the six missing conditions, None unless all six are
        answered. ``"pooled"`` is the metric of the sum of their matrices, over those answered.
        The complete condition ``"avt"`` enters neither.
    """
    matrices = dict(zip(CONDITIONS, confusion.cpu(), strict=True))
    rows = {condition: scores(matrix) for condition, matrix in matrices.items()}
    missing = [rows[condition] for condition in MISSING_CONDITIONS]
    rows["mean"] = {metric: _mean([row[metric] for row in missing]) for metric in METRICS}
    rows["pooled"] = scores(torch.stack([matrices[condition] for condition in MISSING_CONDITIONS]).sum(0))
    return {row: rows[row] for row in SUMMARY_ROWS}


def _mean(values: list[float | None]) -> float | None:
    """The arithmetic mean, or None if any value is."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None
