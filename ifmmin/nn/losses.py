"""Losses shared by the models."""

from __future__ import annotations

import torch
from torch import Tensor


def central_moments(sample: Tensor, moments: int = 5) -> Tensor:
    """The mean and the central moments c_2..c_K of each coordinate over a sample (Zellinger et al., ICLR 2017).

    Args:
        sample: [N, ..., D].
        moments: K, at least 1.

    Returns:
        [K, ..., D], float32 for a sample in half precision.
    """
    # In half precision the fifth powers would be noise.
    sample = sample.to(torch.promote_types(sample.dtype, torch.float32))
    mean = sample.mean(dim=0)
    found, centred = [mean], sample - mean
    power = centred
    for _ in range(2, moments + 1):
        # Repeated products: a power by multiplication is faster than pow and has exact gradients at 0.
        power = power * centred
        found.append(power.mean(dim=0))
    return torch.stack(found)


def moment_discrepancy(left: Tensor, right: Tensor) -> Tensor:
    """CMD_K [...] of two samples, of which the :func:`central_moments` [K, ..., D] are given."""
    squares = (left - right).square().sum(dim=-1)
    coincide = squares == 0
    # sqrt has an infinite slope at 0: it is evaluated elsewhere and its result replaced.
    return torch.where(coincide, squares, torch.where(coincide, torch.ones_like(squares), squares).sqrt()).sum(dim=0)


def central_moment_discrepancy(x: Tensor, y: Tensor, moments: int = 5) -> Tensor:
    r"""Central moment discrepancy CMD_K between two samples.

    .. math:: CMD_K = \lVert E x - E y \rVert_2 + \sum_{k=2}^{K} \lVert c_k(x) - c_k(y) \rVert_2

    with c_k the k-th central moment of each coordinate over the sample.

    Zellinger et al., ICLR 2017, equation 1; the factors ``1/|b - a|^k`` are 1, as in IF-MMIN's code.

    Args:
        x: [N, D].
        y: [M, D].
        moments: K, at least 1.

    Returns:
        a non-negative scalar, float32 for samples in half precision; 0 with a zero gradient where all moments coincide.

    >>> import torch
    >>> x = torch.tensor([[0.0], [1.0]])
    >>> round(float(central_moment_discrepancy(x, x + 1)), 6)
    1.0
    """
    return moment_discrepancy(central_moments(x, moments), central_moments(y, moments))


def wasserstein2(mean_x: Tensor, std_x: Tensor, mean_y: Tensor, std_y: Tensor) -> Tensor:
    r"""2-Wasserstein distance between each of N and each of M Gaussians with diagonal covariance.

    .. math:: W_2^2 = \lVert μ_1 - μ_2 \rVert_2^2 + \lVert σ_1 - σ_2 \rVert_2^2

    The case of commuting covariances of Dowson and Landau, "The Fréchet distance between
    multivariate normal distributions", Journal of Multivariate Analysis 12, 1982.

    Args:
        mean_x: μ₁, [N, D].
        std_x: σ₁, [N, D], positive.
        mean_y: μ₂, [M, D].
        std_y: σ₂, [M, D], positive.

    Returns:
        [N, M], non-negative, float32 for Gaussians in half precision; 0 with a zero gradient where two coincide.

    >>> import torch
    >>> one = torch.ones(1, 1)
    >>> float(wasserstein2(0 * one, one, 3 * one, 5 * one))
    5.0
    """
    x, y = torch.cat([mean_x, std_x], dim=-1), torch.cat([mean_y, std_y], dim=-1)
    exact = torch.promote_types(x.dtype, torch.float32)  # cdist knows no half precision
    # Not by matrix products: they lose the small distances, which are those that matter.
    return torch.cdist(x.to(exact), y.to(exact), compute_mode="donot_use_mm_for_euclid_dist")
