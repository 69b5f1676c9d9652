"""Gaussian heads, KL and product of experts, against golden values and numerical integration."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from ifmmin.nn.gaussians import (
    ConditionalGaussian,
    Gaussian,
    GaussianHead,
    group_entropy,
    kl_to_standard_normal,
    known_kl,
    product_of_experts,
)
from tests.systems import close, load_system

GOLDEN = load_system("mib")
SHORT = ("a", "v", "l")


def posterior(name: str) -> Gaussian:
    return Gaussian(GOLDEN[f"out/lmib/mu_{name}"], GOLDEN[f"out/lmib/sigma_{name}"])


def posteriors() -> Gaussian:
    """Of audio, visual, text: [4, 3, 6]."""
    found = [posterior(name) for name in SHORT]
    return Gaussian(*(torch.stack(parts, dim=1) for parts in zip(*found, strict=True)))


@pytest.mark.parametrize("name", SHORT)
def test_softplus_head(name: str) -> None:
    hidden = (GOLDEN[f"in/x_{name}"] @ GOLDEN[f"param/encoder_{name}.0.weight"].T).add(
        GOLDEN[f"param/encoder_{name}.0.bias"]
    )
    head = GaussianHead(12, 6).double()
    both = [f"fc_{kind}_{name}" for kind in ("mu", "std")]
    head.linear.load_state_dict(
        {kind: torch.cat([GOLDEN[f"param/{part}.{kind}"] for part in both]) for kind in ("weight", "bias")}
    )
    found = head(hidden.relu())
    close(found.mean, GOLDEN[f"out/lmib/mu_{name}"])
    close(found.std, GOLDEN[f"out/lmib/sigma_{name}"])


def test_log_variance_head() -> None:
    torch.manual_seed(0)
    head, features = GaussianHead(5, 3, "log_variance").double(), torch.randn(4, 5).double()
    given = features.numpy() @ head.linear.weight.detach().numpy().T + head.linear.bias.detach().numpy()
    found = head(features)
    np.testing.assert_allclose(found.mean.detach(), given[:, :3])
    np.testing.assert_allclose(found.std.detach() ** 2, np.exp(given[:, 3:]))


@pytest.mark.parametrize("spread", ["softplus", "log_variance"])
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_std_stays_positive_in_half_precision(spread: Literal["softplus", "log_variance"], scale: float) -> None:
    head = GaussianHead(2, 3, spread).bfloat16()
    with torch.no_grad():
        head.linear.bias.fill_(-scale)
    found = head(torch.zeros(1, 2, dtype=torch.bfloat16))
    assert found.std.dtype == torch.float32
    assert bool((found.std > 0).all())
    product = product_of_experts(Gaussian(*(part[:, None] for part in found)), torch.ones(1, 1, dtype=torch.bool))
    assert bool(product.mean.isfinite().all()) and bool((product.std > 0).all())
    assert bool(kl_to_standard_normal(found).isfinite().all())


@pytest.mark.parametrize("name", SHORT)
def test_kl(name: str) -> None:
    found = kl_to_standard_normal(posterior(name))
    close(found.mean(), GOLDEN[f"loss/unimodal_{name}_kl"])
    torch.testing.assert_close(found, kl_divergence(Normal(*posterior(name)), Normal(0, 1)))
    known = GOLDEN["in/present_audio_visual_text"][:, SHORT.index(name)]
    close(known_kl(posterior(name), known), GOLDEN[f"corrected/masked_kl_{name}"])


def test_kl_of_nothing_is_zero_with_a_gradient() -> None:
    mean = torch.ones(2, 3, requires_grad=True)
    found = known_kl(Gaussian(mean, torch.ones(2, 3)), torch.zeros(2, dtype=torch.bool))
    found.backward()
    assert float(found.detach()) == 0
    assert mean.grad is not None and not bool(mean.grad.any())


def test_product_of_experts() -> None:
    product = product_of_experts(posteriors(), GOLDEN["in/present_audio_visual_text"])
    close(product.mean, GOLDEN["corrected/poe_mu"])
    close(product.std.square(), GOLDEN["corrected/poe_variance"])


def moments(log_density: Tensor, grid: Tensor) -> tuple[float, float]:
    """Mean and standard deviation of a density over a grid that is not normalised."""
    weights = (log_density - log_density.max()).exp()
    weights = weights / weights.sum()
    mean = float((weights * grid).sum())
    return mean, math.sqrt(float((weights * (grid - mean) ** 2).sum()))


@pytest.mark.parametrize("present", [(True, True, True), (True, False, True), (False, False, False)])
def test_product_of_densities_on_a_grid(present: tuple[bool, bool, bool]) -> None:
    experts = Gaussian(torch.tensor([[[1.5], [-2.0], [0.3]]]).double(), torch.tensor([[[0.7], [1.2], [2.5]]]).double())
    grid = torch.linspace(-12, 12, 40_001).double()
    log_density = Normal(0, 1).log_prob(grid)
    for m, shown in enumerate(present):
        if shown:
            log_density = log_density + Normal(experts.mean[0, m], experts.std[0, m]).log_prob(grid)
    product = product_of_experts(experts, torch.tensor([present]))
    assert (product.mean.item(), product.std.item()) == pytest.approx(moments(log_density, grid), abs=1e-6)


def test_a_draw_is_the_mean_plus_scaled_noise() -> None:
    gaussian = posterior("a")
    close(gaussian.sample(GOLDEN["in/eps_a"]), gaussian.mean + gaussian.std * GOLDEN["in/eps_a"])
    torch.manual_seed(0)
    drawn = Gaussian(torch.full((20_000,), 3.0), torch.full((20_000,), 0.5)).sample()
    assert float(drawn.mean()) == pytest.approx(3, abs=0.02)
    assert float(drawn.std()) == pytest.approx(0.5, abs=0.02)


def test_the_mean_entropy_of_a_gaussian_per_group() -> None:
    rng = np.random.default_rng(0)
    features, groups = rng.standard_normal((30, 3)), rng.integers(-1, 4, 30)
    groups[groups == 2] = -1
    groups[7] = 2  # alone, so without a covariance
    expected = []
    for group in (0, 1, 3):
        covariance = np.cov(features[groups == group].T, bias=True) + 0.1 * np.eye(3)
        expected.append(MultivariateNormal(torch.zeros(3).double(), torch.from_numpy(covariance)).entropy())
    found = group_entropy(torch.from_numpy(features), torch.from_numpy(groups), 4, ridge=0.1)
    torch.testing.assert_close(found, torch.stack(expected).mean())


@pytest.mark.parametrize("size", [0, 1, 2])
def test_few_rows_have_a_finite_gradient(size: int) -> None:
    features = torch.randn(size, 5, requires_grad=True)
    value = group_entropy(features, torch.zeros(size, dtype=torch.int64), 2)
    value.backward()
    assert value.isfinite()
    assert features.grad is not None and features.grad.isfinite().all()
    assert (float(value.detach()) == 0) == (size < 2)


def test_rows_that_are_alike_have_a_finite_gradient() -> None:
    features = torch.ones(6, 4, requires_grad=True)
    group_entropy(features, torch.zeros(6, dtype=torch.int64), 1).backward()
    assert features.grad is not None and not features.grad.any()


def test_the_density_is_that_of_a_normal_distribution() -> None:
    torch.manual_seed(0)
    bound = ConditionalGaussian(3, 5).double()
    x, y = torch.randn(4, 3).double(), torch.randn(4, 5).double()
    q = Normal(bound.mean(x), bound.log_variance(x).tanh().mul(0.5).exp())
    torch.testing.assert_close(bound(x, y), q.log_prob(y).sum(dim=1))
