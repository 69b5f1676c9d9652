"""Gaussians with diagonal covariance: heads, draws, densities, KL divergence, product of experts; entropy of samples.

Plain ``torch.nn``: nothing here knows Lightning.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ifmmin.nn.precision import full_precision

SOFTPLUS_SHIFT = 5.0
"""Subtracted before the softplus, so that a new head gives a small σ."""

SMALLEST_STD = 1e-9
"""Below, 1/σ² would overflow in float32."""

Spread = Literal["softplus", "log_variance"]
"""What a head's second half is: s with σ = softplus(s - 5), or log σ²."""


class Gaussian(NamedTuple):
    """Independent Gaussians.

    Attributes:
        mean: μ, [..., E].
        std: σ, [..., E], positive.
    """

    mean: Tensor
    std: Tensor

    def sample(self, noise: Tensor | None = None) -> Tensor:
        """Draw μ + σ ε [..., E] with ε ~ N(0, 1), or the given ``noise``."""
        return self.mean + self.std * (torch.randn_like(self.mean) if noise is None else noise)


class GaussianHead(nn.Module):
    """One linear layer that gives μ and σ.

    Args:
        input_dim: width of the input.
        dim: E.
        spread: how σ is written: ``softplus`` (Alemi et al., "Deep variational information bottleneck", ICLR 2017) or
            ``log_variance`` (Kingma and Welling, "Auto-encoding variational Bayes", ICLR 2014).

    Example:
        >>> import torch
        >>> found = GaussianHead(8, 3)(torch.zeros(5, 8))
        >>> found.mean.shape, bool((found.std > 0).all())
        (torch.Size([5, 3]), True)
    """

    def __init__(self, input_dim: int, dim: int, spread: Spread = "softplus") -> None:
        super().__init__()
        self.linear = nn.Linear(input_dim, 2 * dim)
        self.spread = spread

    def forward(self, features: Tensor) -> Gaussian:
        """Map [..., input_dim] to Gaussians [..., E], in float32 for half precision."""
        given = self.linear(features)
        mean, spread = given.to(torch.promote_types(given.dtype, torch.float32)).chunk(2, dim=-1)
        std = F.softplus(spread - SOFTPLUS_SHIFT) if self.spread == "softplus" else (spread / 2).exp()
        return Gaussian(mean, std.clamp(min=SMALLEST_STD))


def kl_to_standard_normal(gaussian: Gaussian) -> Tensor:
    r"""KL divergence of each coordinate from a standard normal.

    .. math:: KL(N(μ, σ^2) \,\|\, N(0, 1)) = \tfrac12 (μ^2 + σ^2 - \ln σ^2 - 1)

    Returns:
        [..., E], not negative; the sum over E is the divergence of a code, the mean that per coordinate.

    >>> import torch
    >>> kl_to_standard_normal(Gaussian(torch.tensor([0.0, 2.0]), torch.ones(2))).tolist()
    [0.0, 2.0]
    """
    return (gaussian.mean.square() + gaussian.std.square() - 1) / 2 - gaussian.std.log()


def known_kl(gaussian: Gaussian, known: Tensor) -> Tensor:
    """Mean over what is known, and over coordinates, of :func:`kl_to_standard_normal`.

    Args:
        gaussian: [B, ..., E]; read where ``known``.
        known: bool [B, ...].

    Returns:
        a scalar; 0 with a zero gradient where nothing is known.
    """
    divergence = kl_to_standard_normal(Gaussian(gaussian.mean[known], gaussian.std[known]))
    return divergence.sum() / max(1, divergence.numel())


def product_of_experts(experts: Gaussian, present: Tensor) -> Gaussian:
    r"""Multiply the densities of the experts that are present with that of a standard normal.

    .. math:: Λ = 1 + \sum_m σ_m^{-2}, \quad μ = Λ^{-1} \sum_m σ_m^{-2} μ_m, \quad σ^2 = Λ^{-1}

    Hinton, "Training products of experts by minimizing contrastive divergence", Neural Computation 14, 2002; with a
    prior as one of them: Wu and Goodman, "Multimodal generative models for scalable weakly-supervised learning",
    NeurIPS 2018. An expert that is absent is not in the product, and σ can only grow by that.

    Args:
        experts: [B, M, E]; finite even where absent.
        present: bool [B, M].

    Returns:
        [B, E], in float32 for half precision; a standard normal where nothing is present.

    >>> import torch
    >>> two = Gaussian(torch.tensor([[[3.0], [9.0]]]), torch.ones(1, 2, 1))
    >>> product_of_experts(two, torch.tensor([[True, False]])).mean.item()
    1.5
    """
    with full_precision(experts.mean):
        exact = torch.promote_types(experts.mean.dtype, torch.float32)
        precision = experts.std.to(exact).square().reciprocal() * present[..., None]
        total = 1 + precision.sum(dim=1)
        return Gaussian((precision * experts.mean.to(exact)).sum(dim=1) / total, total.rsqrt())


def log_density(gaussian: Gaussian, values: Tensor) -> Tensor:
    """Log density [...], in nats, of values [..., E], constants included.

    >>> import torch
    >>> round(float(log_density(Gaussian(torch.zeros(2), torch.ones(2)), torch.zeros(2))), 4)  # -log 2π
    -1.8379
    """
    with full_precision(values):
        values = values.to(gaussian.mean.dtype)
        loss = F.gaussian_nll_loss(gaussian.mean, values, gaussian.std.square(), full=True, reduction="none")
        return -loss.sum(dim=-1)


class ConditionalGaussian(nn.Module):
    r"""q(y | x) = N(μ(x), σ²(x)), a model of one vector given another, whose log likelihood bounds their information.

    .. math:: I(x; y) ≥ H(y) + E \log q(y | x)

    Barber and Agakov, "The IM algorithm: a variational approach to information maximization", NIPS 2003. μ and log σ²
    are networks of one hidden layer; log σ² is in (-1, 1), so that no density can grow without bound.

    Args:
        input_dim: width of x.
        output_dim: width of y, and of the hidden layers.
        hidden_dim: of the hidden layers, if another.

    Example:
        >>> import torch
        >>> ConditionalGaussian(3, 2)(torch.zeros(5, 3), torch.zeros(5, 2)).shape
        torch.Size([5])
    """

    def __init__(self, input_dim: int, output_dim: int, hidden_dim: int | None = None) -> None:
        super().__init__()
        hidden = hidden_dim or output_dim
        self.mean, self.log_variance = (
            nn.Sequential(nn.Linear(input_dim, hidden), nn.ReLU(), nn.Linear(hidden, output_dim)) for _ in range(2)
        )

    def given(self, x: Tensor) -> Gaussian:
        """q(· | x) of x [n, input_dim]: [n, output_dim], in the precision of the parameters."""
        with full_precision(x):
            x = x.to(next(self.parameters()).dtype)
            return Gaussian(self.mean(x), (self.log_variance(x).tanh() / 2).exp())

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Log density [n], in nats, of y [n, output_dim] given x [n, input_dim]."""
        return log_density(self.given(x), y)


def group_entropy(features: Tensor, groups: Tensor, count: int, ridge: float = 1e-4) -> Tensor:
    r"""Entropy of a Gaussian fitted to each group of rows, in nats: the mean over the groups of two rows and more.

    .. math:: \frac12 \log \det \left( 2 π e (Σ_g + ε I) \right)

    with Σ_g the covariance (divided by the number) of the rows of group g.

    Args:
        features: [N, D].
        groups: int64 [N], the group of each row; rows outside 0..count-1 belong to none.
        count: number of groups.
        ridge: ε; keeps the value finite where rows are fewer than D, or alike.

    Returns:
        a scalar, float32 for features in half precision; 0 with a zero gradient where no group has two rows.

    >>> import torch
    >>> features, groups = torch.tensor([[0.0], [2.0], [5.0]]), torch.tensor([0, 0, 1])
    >>> round(float(group_entropy(features, groups, count=2)), 3)  # of a standard deviation of 1
    1.419
    """
    exact = torch.promote_types(features.dtype, torch.float32)
    with full_precision(features):
        features = features.to(exact)
        member = (groups[:, None] == torch.arange(count, device=groups.device)).to(exact)
        number = member.sum(dim=0)
        size = number.clamp(min=1)[:, None]
        centred = features - member @ (member.T @ features / size)
        covariance = torch.einsum("ng,ni,nj->gij", member, centred, centred) / size[..., None]
        width = features.shape[1]
        identity = torch.eye(width, dtype=exact, device=features.device)
        entropy = (width * math.log(2 * math.pi * math.e) + torch.logdet(covariance + ridge * identity)) / 2
        fitted = number >= 2
        return (entropy * fitted).sum() / fitted.sum().clamp(min=1)
