"""Weakly supervised correlation: members of different utterances put together, and how far apart their labels are.

Plain ``torch.nn``: nothing here knows Lightning.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor


def draw_misaligned(known: Tensor, count: int, generator: torch.Generator | None = None) -> Tensor:
    """Draw members of M modalities, each of another utterance.

    Args:
        known: bool [N, M], the modalities that utterances have.
        count: the most that are drawn.
        generator: of random numbers; None: PyTorch's own.

    Returns:
        int64 [T, M], T <= ``count``: the utterance of each member, which has that modality; T is 0 where no M
        different utterances were found.

    >>> import torch
    >>> drawn = draw_misaligned(torch.ones(50, 3, dtype=torch.bool), 200)
    >>> drawn.shape, all(len(set(row)) == 3 for row in drawn.tolist())
    (torch.Size([200, 3]), True)
    """
    members = []
    for column in known.unbind(dim=1):
        having = column.nonzero()[:, 0]
        if not len(having):
            return having.new_empty(0, known.shape[1])
        # Twice as many: those that repeat an utterance are dropped.
        place = torch.randint(len(having), (2 * count,), generator=generator, device=known.device)
        members.append(having[place])
    drawn = torch.stack(members, dim=1)
    pairs = list(combinations(range(drawn.shape[1]), 2))
    repeats = torch.stack([drawn[:, m] == drawn[:, n] for m, n in pairs]).any(dim=0)
    return drawn[~repeats][:count]


def label_distance(x: Tensor, y: Tensor) -> Tensor:
    """How far apart labels [T] or probabilities [T, C] are: [T].

    Class numbers: 0 or 1; probabilities: their total variation, which is that of certain ones; values: the absolute
    difference.

    >>> label_distance(torch.tensor([0, 1]), torch.tensor([0, 2])).tolist()
    [0.0, 1.0]
    >>> label_distance(torch.tensor([[0.5, 0.5]]), torch.tensor([[1.0, 0.0]])).tolist()
    [0.5]
    """
    if not x.is_floating_point():
        return (x != y).to(torch.get_default_dtype())
    return (x - y).abs() if x.dim() == 1 else (x - y).abs().sum(dim=1) / 2


def misalignment(labels: Sequence[Tensor], largest: float, margin: float = 0.1) -> Tensor:
    r"""Target of misaligned members, from the labels of their utterances; that of aligned ones is 0.

    .. math:: \frac{\sqrt{\sum_{m < n} d(y_m, y_n)^2} + α}{γ + α}

    Mai, Sun, Zeng, Hu: "Excavating multimodal correlation for representation learning", Information Fusion 91, 2023.

    Args:
        labels: of each member, [T] or [T, C], see :func:`label_distance`.
        largest: γ, the largest root that there can be, see :func:`largest_root`.
        margin: α, which tells misaligned members of one label from aligned ones.

    Returns:
        [T], above 0 and at most 1.

    >>> same, other = torch.tensor([0]), torch.tensor([1])
    >>> round(float(misalignment([same, same, other], largest_root(3))), 3)
    0.827
    """
    squares = torch.stack([label_distance(x, y).square() for x, y in combinations(labels, 2)]).sum(dim=0)
    return (squares.sqrt() + margin) / (largest + margin)


def largest_root(members: int, span: float = 1.0) -> float:
    """The γ of :func:`misalignment` for M members whose labels are at most ``span`` apart: of M (M - 1) / 2 pairs.

    >>> round(largest_root(3, span=6.0), 2)
    10.39
    """
    return span * math.sqrt(math.comb(members, 2))
