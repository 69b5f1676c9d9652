"""Emotion classes: cross entropy, WA, UA and macro F1, from one confusion matrix per condition."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from ifmmin.tasks.base import Score, Task


class Classification(Task):
    """One of C emotion classes per utterance: outputs are logits, labels class numbers, -1 where unknown.

    Args:
        class_names: C names, in label order.

    >>> task = Classification(["angry", "happy", "neutral", "sad"])
    >>> task.outputs, [score.name for score in task.scores], task.mode("UA")
    (4, ['WA', 'UA', 'F1'], 'max')
    """

    name: ClassVar[str] = "classification"
    counts_key: ClassVar[str] = "confusion"
    counts_dtype: ClassVar[torch.dtype] = torch.int64
    limited: ClassVar[str] = "WA"
    scores = (Score("WA"), Score("UA"), Score("F1"))

    def __init__(self, class_names: Sequence[str]) -> None:
        self.class_names = self.levels = tuple(class_names)
        self.outputs = len(self.class_names)
        self.shape = (self.outputs, self.outputs)

    def spec(self) -> dict[str, Any]:
        """See :class:`~ifmmin.tasks.Task`; the class names travel apart."""
        return {"name": self.name}

    def loss(self, outputs: Tensor, label: Tensor) -> Tensor:
        """Cross entropy, the mean over the rows, with class numbers [B] or probabilities [B, C]."""
        if not label.is_floating_point():
            return F.cross_entropy(outputs, label)
        dtype = torch.promote_types(outputs.dtype, label.dtype)  # probabilities lose digits in half precision
        return F.cross_entropy(outputs.to(dtype), label.to(dtype))

    def distillation(self, outputs: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
        """T² KL(teacher ‖ outputs) of the probabilities at temperature T, the mean over the rows.

        Hinton, Vinyals, Dean, "Distilling the knowledge in a neural network", 2015; T² keeps the gradient's scale.
        """
        student, target = ((logits / temperature).log_softmax(dim=1) for logits in (outputs, teacher))
        return temperature**2 * F.kl_div(student, target, reduction="batchmean", log_target=True)

    def count(self, outputs: Tensor, label: Tensor) -> Tensor:
        """One 1 per row of known label, at [true class, most probable class]: int64 [B, C, C].

        Raises:
            ValueError: a label is outside -1..C-1.
        """
        classes = self.outputs
        if bool(((label < -1) | (label >= classes)).any()):
            raise ValueError(f"a label is outside -1..{classes - 1}")
        cell = label.clamp(min=0) * classes + outputs.argmax(dim=1)
        ones = F.one_hot(cell, classes * classes) * (label >= 0)[:, None]
        return ones.view(-1, classes, classes)

    def evaluate(self, counts: Tensor) -> dict[str, Tensor]:
        """WA, UA and F1 of confusion matrices [..., C, C]."""
        return {"WA": weighted_accuracy(counts), "UA": unweighted_accuracy(counts), "F1": macro_f1(counts)}

    def number(self, counts: Tensor) -> Tensor:
        """Rows counted, int64 [...]."""
        return counts.sum((-2, -1))

    def matrix(self, counts: Tensor) -> Tensor:
        """The counts themselves."""
        return counts

    def answers(self, outputs: Tensor) -> Tensor:
        """Probabilities, float32 [R, C]."""
        return outputs.float().softmax(dim=1)

    def named(self, answer: Tensor) -> dict[str, float]:
        """Name the probability of each class."""
        return dict(zip(self.class_names, answer.tolist(), strict=True))


def weighted_accuracy(confusion: Tensor) -> Tensor:
    r"""WA, the share of utterances predicted right: :math:`\sum_i n_{ii} / \sum_{ij} n_{ij}`.

    Args:
        confusion: counts [..., C, C], true classes in rows.

    Returns:
        float64 [...] in [0, 1]; NaN for an empty matrix.

    >>> import torch
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

    >>> import torch
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

    >>> import torch
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
