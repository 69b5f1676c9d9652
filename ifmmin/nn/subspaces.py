"""What modalities share and what each has for itself (Hazarika et al., ACM Multimedia, 2020), as parts of models.

Plain ``torch.nn``: nothing here knows Lightning.
"""

from __future__ import annotations

from itertools import combinations
from typing import NamedTuple

import torch
from torch import Tensor, nn

from datamodules.conditions import MODALITIES
from ifmmin.nn.losses import invariance_discrepancy, known_mse
from ifmmin.nn.precision import full_precision


class Subspaces(NamedTuple):
    """What is made of each modality, each [B, 3, E]; of absent ones it means nothing.

    Attributes:
        embeddings: u, of the utterance.
        private: p.
        shared: s.
    """

    embeddings: Tensor
    private: Tensor
    shared: Tensor


class ModalityLinear(nn.ModuleDict):
    """A linear layer for each modality.

    Args:
        dim: E, width of input and output.

    Example:
        >>> ModalityLinear(4)(torch.zeros(5, 3, 4)).shape
        torch.Size([5, 3, 4])
    """

    def __init__(self, dim: int) -> None:
        super().__init__({name: nn.Linear(dim, dim) for name in MODALITIES})

    def forward(self, values: Tensor) -> Tensor:
        """Map [B, 3, E] to [B, 3, E]."""
        return torch.stack([layer(values[:, m]) for m, layer in enumerate(self.values())], dim=1)


def present_mean(values: Tensor, present: Tensor) -> Tensor:
    """Mean [B, E] of values [B, 3, E] over what is ``present``, bool [B, 3], at least one True in a row.

    >>> present_mean(torch.tensor([[[1.0], [3.0], [9.0]]]), torch.tensor([[True, True, False]])).tolist()
    [[2.0]]
    """
    return (present[..., None] * values).sum(dim=1) / present.sum(dim=1, keepdim=True)


def orthogonality(x: Tensor, y: Tensor, detached: bool = True) -> Tensor:
    r"""How far from orthogonal the coordinates of two samples are.

    .. math:: \frac{1}{DE} \lVert X^T Y \rVert_F^2

    with X and Y centred over the sample, and each row divided by its norm.

    Args:
        x: [N, D].
        y: [N, E]; row i is another representation of row i of ``x``.
        detached: norms have no gradient, as in MISA's code: the gradient then also shrinks rows towards their mean, the
            more the smaller they are.

    Returns:
        a non-negative scalar, float32 for samples in half precision; 0 with a zero gradient for fewer than two rows.

    >>> import torch
    >>> x = torch.tensor([[1.0], [-1.0]])
    >>> round(float(orthogonality(x, x)), 4), float(orthogonality(x[:1], x[:1]))
    (4.0, 0.0)
    """
    exact = torch.promote_types(x.dtype, torch.float32)
    with full_precision(x):
        scaled = []
        for sample in (x.to(exact), y.to(exact)):
            centred = sample - sample.sum(dim=0) / max(1, len(sample))
            norm = (centred.detach() if detached else centred).norm(dim=1, keepdim=True)
            scaled.append(centred / (norm + 1e-6))
        products: Tensor = scaled[0].T @ scaled[1]
        return products.square().mean()


def separation(private: Tensor, shared: Tensor, known: Tensor, detached: bool = True) -> Tensor:
    """L_diff: sum of six :func:`orthogonality` terms, private to shared of each modality and private of each pair.

    Args:
        private: p [B, M, E].
        shared: s [B, M, E].
        known: bool [B, M]; each term is over the rows that have its modalities.
        detached: of :func:`orthogonality`.
    """
    modalities = range(private.shape[1])
    terms = [orthogonality(private[known[:, m], m], shared[known[:, m], m], detached) for m in modalities]
    for m, n in combinations(modalities, 2):
        both = known[:, m] & known[:, n]
        terms.append(orthogonality(private[both, m], private[both, n], detached))
    return torch.stack(terms).sum()


def subspace_losses(
    parts: Subspaces, reconstruct: nn.Module, known: Tensor, detached: bool = True
) -> dict[str, Tensor]:
    """MISA's losses of what is ``known``, bool [B, 3].

    Args:
        parts: u, p and s.
        reconstruct: maps p + s [B, 3, E] to u.
        known: what enters; a term that nothing enters is 0 with a zero gradient.
        detached: of :func:`orthogonality`.

    Returns:
        ``diff``: :func:`separation`; ``sim``: the mean CMD_5 of s over the pairs of modalities; ``recon``: the mean
        squared error of u.
    """
    return {
        "diff": separation(parts.private, parts.shared, known, detached),
        "sim": invariance_discrepancy(parts.shared, known=known),
        "recon": known_mse(reconstruct(parts.private + parts.shared), parts.embeddings, known),
    }
