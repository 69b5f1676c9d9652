"""Distillation of predictions between views of an utterance: of itself, of another modality, of the complete view.

Tian, Zhang, Lin, Qu, Xie, Ma: "Farewell to mutual information: variational distillation for cross-modal person
re-identification", CVPR 2021. A code z of an observation v keeps what v tells of the label if p(y|z) follows p(y|v): no
mutual information is estimated. The last function is the same for missing modalities: the answer to what is there
follows the answer to everything.

Each takes ``follow``, the loss of outputs [n, O] that follow a teacher's [n, O], a scalar:
:meth:`ifmmin.tasks.Task.distillation`, which is KL(teacher ‖ outputs) for classes. No gradient reaches a teacher. All
are 0 with a zero gradient where no row has what they need.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from itertools import combinations, permutations

import torch
from torch import Tensor

Follow = Callable[[Tensor, Tensor], Tensor]


def self_distillation(follow: Follow, observed: Tensor, compressed: Tensor, known: Tensor) -> Tensor:
    r"""VSD: what a code tells follows what its observation tells.

    .. math:: \tfrac1M \sum_m KL(sg\,p(y|v_m) \,\|\, p(y|z_m))

    Args:
        follow: see the module.
        observed: outputs [B, M, O] from v_m.
        compressed: outputs [B, M, O] from z_m.
        known: bool [B, M], where there is a modality m; nothing else is read.

    Returns:
        a scalar, of each modality the mean over its rows.
    """
    pairs = ((m, m) for m in range(known.shape[1]))
    return _over_pairs(follow, compressed, observed.detach(), known, pairs)


def cross_distillation(
    follow: Follow, observed: Tensor, compressed: Tensor, known: Tensor, weights: Tensor | None = None
) -> Tensor:
    r"""VCD: what a code tells follows what the observation of every other modality tells.

    .. math:: \frac{\sum_{i \ne j} w_i KL(sg\,p(y|v_i) \,\|\, p(y|z_j))}{\sum_{i \ne j} w_i}

    Args:
        follow: see the module.
        observed: outputs [B, M, O] from v_m.
        compressed: outputs [B, M, O] from z_m.
        known: bool [B, M], where there is a modality m; nothing else is read.
        weights: w [M], positive, of each modality as a teacher; None: alike.

    Returns:
        a scalar; a pair is averaged over the rows that have both.
    """
    pairs = ((j, i) for i, j in permutations(range(known.shape[1]), 2))
    return _over_pairs(follow, compressed, observed.detach(), known, pairs, weights)


def mutual_learning(distance: Follow, compressed: Tensor, known: Tensor) -> Tensor:
    r"""VML: the codes of two modalities tell the same.

    .. math:: \tfrac{2}{M (M - 1)} \sum_{i < j} D(p(y|z_i), p(y|z_j))

    Args:
        distance: D, :func:`jensen_shannon` or :func:`symmetric` of a ``follow``; both sides have a gradient.
        compressed: outputs [B, M, O] from z_m.
        known: bool [B, M], where there is a modality m.

    Returns:
        a scalar; a pair is averaged over the rows that have both.
    """
    return _over_pairs(distance, compressed, compressed, known, combinations(range(known.shape[1]), 2))


def full_to_partial(follow: Follow, partial: Tensor, complete: Tensor, rows: Tensor | None = None) -> Tensor:
    r"""What is answered to a part of an utterance follows what is answered to all of it.

    .. math:: KL(sg\,p(y|\mathrm{complete}) \,\|\, p(y|\mathrm{condition}))

    Args:
        follow: see the module.
        partial: outputs [B, O] under some condition.
        complete: outputs [B, O] of the same utterances whole.
        rows: bool [B], the rows to average over; None: all.
    """
    if rows is not None and not bool(rows.all()):
        partial, complete = partial[rows], complete[rows]
    return follow(partial, complete.detach()) if len(partial) else partial.sum()


def jensen_shannon(left: Tensor, right: Tensor) -> Tensor:
    r"""Jensen-Shannon divergence of logits, the mean over rows.

    .. math:: \tfrac12 KL(p \,\|\, m) + \tfrac12 KL(q \,\|\, m), \quad m = \tfrac12 (p + q)

    Lin, "Divergence measures based on the Shannon entropy", IEEE Transactions on Information Theory 37, 1991.

    Args:
        left: [B, C], of p.
        right: [B, C], of q.

    Returns:
        a scalar between 0 and ln 2.

    >>> import torch
    >>> same = torch.tensor([[1.0, 2.0]])
    >>> float(jensen_shannon(same, same + 3))
    0.0
    """
    p, q = left.log_softmax(dim=1), right.log_softmax(dim=1)
    middle = torch.logaddexp(p, q) - math.log(2)
    return ((p.exp() * (p - middle) + q.exp() * (q - middle)).sum(dim=1) / 2).mean()


def symmetric(follow: Follow) -> Follow:
    """Make a distance of a loss: half of each side that follows the other; both sides have a gradient."""
    return lambda left, right: (follow(left, right) + follow(right, left)) / 2


def _over_pairs(
    loss: Follow,
    outputs: Tensor,
    teacher: Tensor,
    known: Tensor,
    pairs: Iterable[tuple[int, int]],
    weights: Tensor | None = None,
) -> Tensor:
    """Mean over pairs (m, n) of the loss of ``outputs`` of m and ``teacher`` of n over the rows that have both.

    ``weights`` [M] are of n.
    """
    terms, teachers = [], []
    for m, n in pairs:
        teachers.append(n)
        both = known[:, m] & known[:, n]
        # Nothing is taken of a row that lacks one, so that its values may be anything.
        student = outputs[both, m]
        terms.append(loss(student, teacher[both, n]) if len(student) else student.sum())
    if weights is None:
        return torch.stack(terms).mean()
    shares = weights[teachers]
    return (shares * torch.stack(terms)).sum() / shares.sum()
