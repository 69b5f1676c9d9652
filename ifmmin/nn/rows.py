"""Rows of a batch that read the same, to compute once what they share."""

from __future__ import annotations

import torch
from torch import Tensor


def distinct(keys: Tensor) -> tuple[Tensor, Tensor]:
    """Return the first position of each distinct key, int64 [P], and for each of ``keys`` [R] which of them it is.

    >>> [each.tolist() for each in distinct(torch.tensor([7, 3, 7, 3]))]
    [[1, 0], [1, 0, 1, 0]]
    """
    values, which = keys.unique(return_inverse=True)
    first = torch.full_like(values, len(keys))
    return first.scatter_reduce(0, which, torch.arange(len(keys), device=keys.device), "amin"), which
