"""Tensor fusion of embeddings, whole and of low rank, and polynomial pooling.

All read a 1 before each embedding, so that a product of all of them holds every product of some. An absent modality
enters as zeros: [1; 0] leaves out exactly the terms with it, and keeps all others.

Plain ``torch.nn``: nothing here knows Lightning.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def with_one(embedding: Tensor) -> Tensor:
    """[1; h] of h [B, E]: [B, 1 + E].

    >>> with_one(torch.tensor([[5.0, 6.0]])).tolist()
    [[1.0, 5.0, 6.0]]
    """
    return F.pad(embedding, (1, 0), value=1.0)


def tensor_product(embeddings: Sequence[Tensor]) -> Tensor:
    r"""[1; h_1] ⊗ [1; h_2] ⊗ …, flattened, the last index first to change.

    Zadeh et al., "Tensor fusion network for multimodal sentiment analysis", EMNLP 2017, equation 2.

    Args:
        embeddings: h_m [B, E_m], at least one; zeros where modality m is absent.

    Returns:
        [B, Π_m (1 + E_m)].

    >>> tensor_product([torch.tensor([[2.0]]), torch.tensor([[5.0, 7.0]])]).tolist()
    [[1.0, 5.0, 7.0, 2.0, 10.0, 14.0]]
    """
    first, *others = (with_one(embedding) for embedding in embeddings)
    for other in others:
        first = (first[:, :, None] * other[:, None, :]).flatten(1)
    return first


class LowRankFusion(nn.Module):
    r"""A linear function of :func:`tensor_product` whose weights have a low rank, without that product.

    Liu et al., "Efficient low-rank multimodal fusion with modality-specific factors", ACL 2018, equation 8:

    .. math::
        \sum_r w_r \prod_m F_m^r [1; h_m] + b

    Args:
        dims: E_m of each modality.
        output_dim: O.
        rank: R, the number of products that are added up.

    Example:
        >>> LowRankFusion([8, 6], output_dim=4, rank=2)([torch.zeros(5, 8), torch.zeros(5, 6)]).shape
        torch.Size([5, 4])
    """

    def __init__(self, dims: Sequence[int], output_dim: int, rank: int) -> None:
        super().__init__()
        self.factors = nn.ParameterList(torch.empty(rank, 1 + dim, output_dim) for dim in dims)
        self.weights = nn.Parameter(torch.empty(rank))
        self.bias = nn.Parameter(torch.zeros(output_dim))
        for factor in self.factors:
            for matrix in factor:
                nn.init.xavier_normal_(matrix)
        nn.init.xavier_normal_(self.weights[None])

    def forward(self, embeddings: Sequence[Tensor]) -> Tensor:
        """Fuse h_m [B, E_m], zeros where modality m is absent, to [B, O]."""
        product = self.weights[:, None, None]
        for embedding, factor in zip(embeddings, self.factors, strict=True):
            product = product * (with_one(embedding) @ factor)
        return product.sum(dim=0) + self.bias


class PolynomialPooling(nn.Module):
    r"""A function of the products of P coordinates of f = [1; z] each, whose weights have a low rank.

    Hou et al., "Deep multimodal multilinear fusion with high-order polynomial pooling", NeurIPS 2019: a linear function
    of f ⊗ … ⊗ f, its weights in CP form:

    .. math::
        y_o = \sum_r w_{or} \prod_{p=1}^{P} f_{pro}^T f + b_o

    It is a polynomial of degree P in z. It starts near a linear one: every factor is 1 and a small function of z.

    Args:
        dim: E, width of z.
        output_dim: O.
        rank: R, the number of products that are added up.
        order: P.

    Example:
        >>> PolynomialPooling(8, output_dim=4, rank=2)(torch.zeros(5, 8)).shape
        torch.Size([5, 4])
    """

    def __init__(self, dim: int, output_dim: int, rank: int, order: int = 2) -> None:
        super().__init__()
        self.factors = nn.Parameter(torch.empty(order, rank, output_dim, 1 + dim))
        self.weights = nn.Parameter(torch.empty(output_dim, rank))
        self.bias = nn.Parameter(torch.zeros(output_dim))
        nn.init.normal_(self.factors, std=(1 + dim) ** -0.5)
        nn.init.ones_(self.factors[..., 0])
        nn.init.normal_(self.weights, std=rank**-0.5)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Pool z [B, E], zeros where a part of it is absent, to [B, O]."""
        f = with_one(embeddings)
        product = self.weights.T
        for factor in self.factors:
            product = product * F.linear(f, factor.flatten(0, 1)).unflatten(1, factor.shape[:2])
        return product.sum(dim=1) + self.bias
