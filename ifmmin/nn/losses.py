"""Losses shared by the models."""

from __future__ import annotations

from itertools import combinations
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from ifmmin.nn.precision import full_precision

Discrepancy = Literal["published", "bounded", "zellinger", "none"]
"""Forms of :func:`invariance_discrepancy`; ``none`` leaves the term out."""


def known_mse(values: Tensor, targets: Tensor, known: Tensor) -> Tensor:
    """Mean squared error over what is known of the targets.

    Args:
        values: [B, M, D].
        targets: [B, M, D], of M modalities; read where ``known``.
        known: bool [B, M].

    Returns:
        a scalar; 0 with a zero gradient where nothing is known.

    >>> import torch
    >>> targets = torch.tensor([[[1.0], [torch.nan]]])
    >>> float(known_mse(torch.zeros(1, 2, 1), targets, torch.tensor([[True, False]])))
    1.0
    """
    if bool(known.all()):
        return F.mse_loss(values, targets)
    errors = (values[known] - targets[known]).square()
    return errors.sum() / max(1, errors.numel())


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


def moment_discrepancy(left: Tensor, right: Tensor, width: float = 1.0) -> Tensor:
    """CMD_K [...] of two samples, of which the :func:`central_moments` [K, ..., D] are given.

    Args:
        left: of one sample.
        right: of the other.
        width: b - a, the length of the interval that bounds both; the k-th term is divided by its k-th power.
    """
    squares = (left - right).square().sum(dim=-1)
    coincide = squares == 0
    # sqrt has an infinite slope at 0: it is evaluated elsewhere and its result replaced.
    distances = torch.where(coincide, squares, torch.where(coincide, torch.ones_like(squares), squares).sqrt())
    if width != 1.0:
        k = torch.arange(1, len(distances) + 1, dtype=distances.dtype, device=distances.device)
        distances = distances / (width**k).view(-1, *[1] * (distances.ndim - 1))
    return distances.sum(dim=0)


def central_moment_discrepancy(x: Tensor, y: Tensor, moments: int = 5, width: float = 1.0) -> Tensor:
    r"""Central moment discrepancy CMD_K between two samples.

    .. math:: CMD_K = \frac{1}{|b-a|} \lVert E x - E y \rVert_2
        + \sum_{k=2}^{K} \frac{1}{|b-a|^k} \lVert c_k(x) - c_k(y) \rVert_2

    with c_k the k-th central moment of each coordinate over the sample and [a, b] an interval that holds all values.

    Zellinger et al., "Central moment discrepancy (CMD) for domain-invariant representation learning", ICLR 2017,
    equation 1. IF-MMIN's code leaves the factors out (a ``width`` of 1) and bounds nothing.

    Args:
        x: [N, D].
        y: [M, D].
        moments: K, at least 1.
        width: b - a.

    Returns:
        a non-negative scalar, float32 for samples in half precision; 0 with a zero gradient where all moments coincide.

    >>> import torch
    >>> x = torch.tensor([[0.0], [1.0]])
    >>> round(float(central_moment_discrepancy(x, x + 1)), 6)
    1.0
    """
    return moment_discrepancy(central_moments(x, moments), central_moments(y, moments), width)


def standardised(features: Tensor, eps: float = 1e-5) -> Tensor:
    r"""Scale each coordinate to mean 0 and standard deviation 1 over everything else.

    .. math:: \frac{x - μ}{\sqrt{σ^2 + ε}}

    μ and σ² (divided by the count) are functions of the sample: the gradient passes through both, so that it is
    orthogonal to a shift and, but for ε, to a change of scale.

    Args:
        features: [..., D].
        eps: ε; keeps the gradient finite where a coordinate is constant.

    Returns:
        [..., D], float32 for features in half precision.
    """
    features = features.to(torch.promote_types(features.dtype, torch.float32))
    over = tuple(range(features.ndim - 1))
    centred = features - features.mean(dim=over)
    return centred / (centred.square().mean(dim=over) + eps).sqrt()


def invariance_discrepancy(
    H: Tensor, form: Discrepancy = "published", moments: int = 5, known: Tensor | None = None
) -> Tensor:
    r"""IF-MMIN's L_cmd: the mean over the pairs of modalities of CMD_K between their features.

    .. math:: \frac{1}{3} \sum_{m < n} CMD_K(b(H_m), b(H_n))

    - ``published`` (Zuo et al., ICASSP 2023, and their code): b(H) = H, with factors of 1. CMD_K(αH) falls with every
      α < 1, so that shrinking H lowers it without making the modalities any more alike.
    - ``zellinger`` (Zellinger et al., ICLR 2017, equation 1): b(H) = tanh H, between a = -1 and b = 1, with the factors
      ``1/2^k``. Large features no longer count by their fifth powers; shrinking still lowers it.
    - ``bounded`` (ours): b(H) = tanh of H :func:`standardised` over batch and modalities together, with the same
      factors. αH + β has the discrepancy of H, so that only modalities that are more alike lower it.

    Args:
        H: [B, M, D], the features of M modalities.
        form: any of :data:`Discrepancy` but ``none``.
        moments: K, at least 1.
        known: bool [B, M], the features that are of something; None: all. A pair of modalities is then compared over
            the rows that have both, and the mean is over the pairs that some row has.

    Returns:
        a non-negative scalar, float32 for features in half precision; 0 with a zero gradient where moments coincide, or
        where no row has two modalities.

    >>> import torch
    >>> H = torch.randn(64, 3, 8, dtype=torch.float64) + torch.arange(3)[:, None]
    >>> [bool(invariance_discrepancy(H / 9, form) < 0.9 * invariance_discrepancy(H, form))
    ...  for form in ("published", "zellinger", "bounded")]
    [True, True, False]
    """
    gaps = None if known is None or bool(known.all()) else known
    width = 1.0
    if form == "zellinger":
        H, width = H.tanh(), 2.0
    elif form == "bounded":
        width = 2.0
        if gaps is None:
            H = standardised(H).tanh()
        else:
            bounded = standardised(H[gaps]).tanh()
            H = bounded.new_zeros(H.shape).masked_scatter(gaps[..., None], bounded)
    if gaps is not None:
        return _over_pairs(H, gaps, moments, width)
    found = central_moments(H, moments)
    left, right = zip(*combinations(range(H.shape[1]), 2), strict=True)
    return moment_discrepancy(found[:, left], found[:, right], width).mean()


def _over_pairs(H: Tensor, known: Tensor, moments: int, width: float) -> Tensor:
    """Mean CMD over the pairs of modalities that some row has, each over the rows that have both."""
    terms = []
    for m, n in combinations(range(H.shape[1]), 2):
        both = known[:, m] & known[:, n]
        if bool(both.any()):
            x, y = (central_moments(H[both, modality], moments) for modality in (m, n))
            terms.append(moment_discrepancy(x, y, width))
    return torch.stack(terms).mean() if terms else 0.0 * H.sum()


def decoupled_contrast(x: Tensor, y: Tensor, scale: Tensor | float) -> Tensor:
    r"""Decoupled InfoNCE between two views of the same things: the pair itself is not in the denominator.

    .. math:: -\frac{1}{2N} \sum_i \left( \log \frac{e^{s \cos(x_i, y_i)}}{\sum_{j \ne i} e^{s \cos(x_i, y_j)}}
        + \log \frac{e^{s \cos(y_i, x_i)}}{\sum_{j \ne i} e^{s \cos(y_i, x_j)}} \right)

    Yeh et al., "Decoupled contrastive learning", ECCV 2022. pytorch-metric-learning has InfoNCE (``NTXentLoss``) with
    the pair in the denominator alone. CIF-MMIN's code adds 1e-10 to the denominator and 1e-20 to the ratio, which
    change nothing but where there are no negatives.

    Args:
        x: [N, D].
        y: [N, D]; row i is the other view of row i of ``x``.
        scale: s, the inverse of a temperature.

    Returns:
        a scalar, float32 for half precision; 0 with a zero gradient for fewer than two rows, which are no negatives.

    >>> import torch
    >>> x = torch.eye(3)
    >>> round(float(decoupled_contrast(x, x, 2.0)), 4)  # log 2 - 2
    -1.3069
    """
    exact = torch.promote_types(x.dtype, torch.float32)
    with full_precision(x):
        logits = scale * F.normalize(x.to(exact), dim=1) @ F.normalize(y.to(exact), dim=1).T
        if len(x) < 2:
            return logits.sum() * 0
        itself = torch.eye(len(x), dtype=torch.bool, device=x.device)
        others = logits.masked_fill(itself, -torch.inf)
        return ((others.logsumexp(dim=0) + others.logsumexp(dim=1)) / 2 - logits.diagonal()).mean()


def info_nce(x: Tensor, y: Tensor, scale: float = 1.0) -> Tensor:
    r"""InfoNCE: each row of x is told from which row of y it belongs to, by their cosine.

    .. math:: -\frac{1}{N} \sum_i \log \frac{e^{s \cos(x_i, y_i)}}{\sum_j e^{s \cos(x_i, y_j)}}

    Oord, Li, Vinyals, "Representation learning with contrastive predictive coding", arXiv 1807.03748. The
    ``NTXentLoss`` of pytorch-metric-learning gives the same from a list of N² (N - 1) pairs, far more slowly.

    Args:
        x: [N, D].
        y: [N, D]; row i belongs to row i of ``x``.
        scale: s, the inverse of a temperature.

    Returns:
        a scalar, float32 for half precision; 0 with a zero gradient for fewer than two rows, which are no negatives.

    >>> import torch
    >>> x = torch.eye(2)
    >>> round(float(info_nce(x, x)), 4)  # log(1 + 1/e)
    0.3133
    """
    exact = torch.promote_types(x.dtype, torch.float32)
    with full_precision(x):
        logits = scale * F.normalize(x.to(exact), dim=1) @ F.normalize(y.to(exact), dim=1).T
        if len(x) < 2:
            return logits.sum() * 0
        return F.cross_entropy(logits, torch.arange(len(x), device=x.device))


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
