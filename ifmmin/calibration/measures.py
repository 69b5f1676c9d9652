"""How honest probabilities are: ECE, Brier score, NLL and the area under the risk-coverage curve."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.functional.classification import multiclass_calibration_error

from ifmmin.tasks import Score

BINS = 15
"""Bins of confidence, of equal width."""

MEASURES = (Score("ECE", False), Score("Brier", False, False), Score("NLL", False, False), Score("AURC", False, False))
"""Lower is better; ECE is read in percent."""

_LEAST = torch.finfo(torch.float32).tiny  # a probability that float32 rounds to 0 has a logarithm all the same


def measures(probability: Tensor, label: Tensor) -> dict[str, float]:
    r"""Compute every measure of :data:`MEASURES` by name.

    ECE, the expected calibration error (Guo et al. 2017), is the mean absolute difference of accuracy and confidence
    over 15 bins of confidence, weighted by their rows. The Brier score is the mean of :math:`\sum_c (p_c - y_c)^2`, in
    [0, 2]; NLL the mean of :math:`-\ln p_y`. AURC: :func:`risk_coverage_area`.

    Args:
        probability: [N, C], N at least 1; rows add up to 1.
        label: int64 [N], 0..C-1.

    >>> import torch
    >>> certain = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    >>> found = measures(certain, torch.tensor([0, 1]))
    >>> found["ECE"], found["Brier"], found["AURC"]
    (0.5, 1.0, 0.5)
    """
    probability, classes = probability.double(), probability.shape[1]
    confidence, predicted = probability.max(dim=1)
    return {
        "ECE": float(multiclass_calibration_error(probability, label, classes, n_bins=BINS)),
        "Brier": float((probability - F.one_hot(label, classes)).square().sum(dim=1).mean()),
        "NLL": float(F.nll_loss(log_probability(probability), label)),
        "AURC": risk_coverage_area(confidence, predicted != label),
    }


def log_probability(probability: Tensor) -> Tensor:
    """Natural logarithm, float64, of probabilities that float32 may have rounded to 0."""
    return probability.double().clamp(min=_LEAST).log()


def risk_coverage_area(confidence: Tensor, wrong: Tensor) -> float:
    """Area under the risk-coverage curve: the mean, over k = 1..N, of the error rate among the k surest answers.

    Answers of equal confidence count as if drawn among each other at random, so their order does not matter.
    Geifman, El-Yaniv, "Selective classification for deep neural networks", 2017.

    Args:
        confidence: [N], N at least 1.
        wrong: bool [N].

    >>> import torch
    >>> risk_coverage_area(torch.tensor([0.9, 0.8]), torch.tensor([False, True]))
    0.25
    """
    _, group, rows = torch.unique(-confidence, return_inverse=True, return_counts=True)  # the surest first
    errors = torch.zeros(len(rows), dtype=torch.float64).index_add(0, group, wrong.double())
    expected = (errors / rows).repeat_interleave(rows)
    return float((expected.cumsum(0) / torch.arange(1, len(expected) + 1)).mean())
