from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ifmmin.nn.losses import (
    Discrepancy,
    central_moment_discrepancy,
    decoupled_contrast,
    info_nce,
    invariance_discrepancy,
    known_mse,
    standardised,
)

FORMS: tuple[Discrepancy, ...] = ("published", "zellinger", "bounded")


def sample(size: int, dim: int, seed: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((size, dim)))


def naive_cmd(x: Tensor, y: Tensor, moments: int, width: float = 1.0) -> float:
    """One coordinate and one moment at a time, in Python floats."""
    total = 0.0
    for k in range(1, moments + 1):
        square = 0.0
        for left, right in zip(x.T.tolist(), y.T.tolist(), strict=True):
            means = [sum(values) / len(values) for values in (left, right)]
            if k == 1:
                difference = means[0] - means[1]
            else:
                central = [
                    sum((value - mean) ** k for value in values) / len(values)
                    for values, mean in zip((left, right), means, strict=True)
                ]
                difference = central[0] - central[1]
            square += difference**2
        total += math.sqrt(square) / width**k
    return total


def naive_standardised(H: Tensor) -> Tensor:
    """One coordinate at a time."""
    columns = []
    for column in H.flatten(0, 1).T.tolist():
        mean = sum(column) / len(column)
        variance = sum((value - mean) ** 2 for value in column) / len(column)
        columns.append([(value - mean) / math.sqrt(variance + 1e-5) for value in column])
    return torch.tensor(columns, dtype=H.dtype).T.reshape(H.shape)


def naive_discrepancy(H: Tensor, form: Discrepancy, moments: int) -> float:
    """Mean over the pairs of modalities."""
    width = 1.0 if form == "published" else 2.0
    x = naive_standardised(H) if form == "bounded" else H
    if form != "published":
        x = torch.tensor([math.tanh(value) for value in x.flatten().tolist()], dtype=H.dtype).reshape(H.shape)
    pairs = [naive_cmd(x[:, m], x[:, n], moments, width) for m, n in combinations(range(H.shape[1]), 2)]
    return sum(pairs) / len(pairs)


shapes = {
    "left": st.integers(1, 9),
    "right": st.integers(1, 9),
    "dim": st.integers(1, 5),
    "moments": st.integers(1, 6),
    "seed": st.integers(0, 1000),
}


@given(**shapes)
def test_against_a_loop_over_coordinates(left: int, right: int, dim: int, moments: int, seed: int) -> None:
    x, y = sample(left, dim, seed), 2 * sample(right, dim, seed + 1) + 1
    ours = central_moment_discrepancy(x, y, moments)
    assert float(ours) == pytest.approx(naive_cmd(x, y, moments), rel=1e-10)
    assert float(ours) > 0
    assert float(central_moment_discrepancy(y, x, moments)) == pytest.approx(float(ours), rel=1e-12)


def test_by_hand() -> None:
    # x: mean 1, moments 1, 0, 1, 0. y: mean 2, moments 4, 0, 16, 0. Differences 1, 3, 0, 15, 0.
    x, y = torch.tensor([[0.0], [2.0]]), torch.tensor([[0.0], [4.0]])
    assert [float(central_moment_discrepancy(x, y, k)) for k in range(1, 6)] == [1, 4, 4, 19, 19]
    # Two coordinates: the distance of the means is that of (0, 0) and (3, 4).
    assert float(central_moment_discrepancy(torch.zeros(2, 2), torch.tensor([[3.0, 4.0]]))) == 5
    # Five moments are the default.
    skewed = torch.tensor([[0.0], [0.0], [3.0]])
    assert central_moment_discrepancy(skewed, y) == central_moment_discrepancy(skewed, y, 5)


@given(**shapes)
def test_zero_where_the_distributions_coincide(left: int, right: int, dim: int, moments: int, seed: int) -> None:
    x = sample(left, dim, seed).round(decimals=2)
    assert float(central_moment_discrepancy(x, x.clone(), moments)) == 0
    # The same distribution, in another order and from a sample of another size.
    shuffled = x[torch.randperm(left, generator=torch.Generator().manual_seed(seed))]
    assert float(central_moment_discrepancy(x, shuffled.repeat(right, 1), moments)) < 1e-9
    assert float(central_moment_discrepancy(x, x + 0.01, moments)) > 0.009


@pytest.mark.parametrize("size", [1, 4])
def test_gradient_is_finite_at_equality(size: int) -> None:
    x = sample(size, 3, 0).requires_grad_()
    y = x.detach().clone().requires_grad_()
    gradients = torch.autograd.grad(central_moment_discrepancy(x, y), (x, y))
    assert all(bool((gradient == 0).all()) for gradient in gradients)


def test_gradient_is_finite_where_some_moments_coincide() -> None:
    # Only the means differ: the other terms are at equality.
    x = sample(6, 3, 0).round(decimals=1).requires_grad_()
    shift = torch.tensor([3.0, 0.0, 4.0], dtype=torch.float64)
    (gradient,) = torch.autograd.grad(central_moment_discrepancy(x, x.detach() + shift, 1), x)
    # d|mean|/dx = -(unit vector of the shift) / N.
    torch.testing.assert_close(gradient, (-shift / 5 / 6).expand(6, 3))


@pytest.mark.parametrize("moments", [1, 2, 5])
def test_gradient_against_finite_differences(moments: int) -> None:
    x, y = sample(5, 3, 0).requires_grad_(), (2 * sample(4, 3, 1)).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: central_moment_discrepancy(a, b, moments), (x, y))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_costs_the_samples_their_digits_and_no_more(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(100, 7, generator=generator).to(dtype) for _ in range(2))
    with torch.autocast("cpu", torch.bfloat16):
        found = central_moment_discrepancy(x, y)
    assert found.dtype == torch.float32
    assert float(found) == pytest.approx(naive_cmd(x, y, 5), rel=1e-5)


@given(size=st.integers(1, 9), dim=st.integers(1, 5), moments=st.integers(1, 6), seed=st.integers(0, 1000))
@pytest.mark.parametrize("form", FORMS)
def test_each_form_against_a_loop(form: Discrepancy, size: int, dim: int, moments: int, seed: int) -> None:
    H = 2 * sample(3 * size, dim, seed).view(size, 3, dim) + torch.arange(3)[:, None]
    expected = naive_discrepancy(H, form, moments)
    assert float(invariance_discrepancy(H, form, moments)) == pytest.approx(expected, rel=1e-10)


def test_bounds_by_hand() -> None:
    # x: mean 1, moments 1, 0, 1, 0. y: mean 2, moments 4, 0, 16, 0. Differences 1, 3, 0, 15, 0, over 2, 4, 8, 16, 32.
    x, y = torch.tensor([[0.0], [2.0]]), torch.tensor([[0.0], [4.0]])
    assert float(central_moment_discrepancy(x, y, 5, width=2.0)) == 1 / 2 + 3 / 4 + 15 / 16


def test_standardised_has_mean_0_and_deviation_1_of_each_coordinate() -> None:
    H = 3 * sample(60, 4, 0).view(20, 3, 4) + 5
    torch.testing.assert_close(standardised(H), naive_standardised(H), rtol=1e-10, atol=1e-12)
    rows = standardised(H).flatten(0, 1).numpy()
    np.testing.assert_allclose(rows.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(rows.std(axis=0), 1, rtol=1e-5)


def test_only_the_bounded_form_ignores_scale_and_shift() -> None:
    H = sample(90, 4, 0).view(30, 3, 4) + torch.arange(3)[:, None]
    for form in FORMS:
        whole, half = (float(invariance_discrepancy(scale * H, form)) for scale in (1, 0.5))
        assert (half == pytest.approx(whole, rel=1e-4)) == (form == "bounded")
        assert half < whole or form == "bounded"
    moved = float(invariance_discrepancy(4 * H - 7, "bounded"))
    assert moved == pytest.approx(float(invariance_discrepancy(H, "bounded")), rel=1e-4)
    # The gradient passes through mean and deviation: no step of descent is a shift or, but for ε, a change of scale.
    H.requires_grad_()
    (gradient,) = torch.autograd.grad(invariance_discrepancy(H, "bounded"), H)
    assert gradient.norm() > 1e-3
    assert gradient.sum(dim=(0, 1)).abs().max() < 1e-12
    assert (gradient * H).sum().abs() < 1e-5


@pytest.mark.parametrize("form", FORMS)
def test_gradient_of_each_form(form: Discrepancy) -> None:
    H = sample(12, 3, 0).view(4, 3, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda features: invariance_discrepancy(features, form), (H,))
    # Finite where all modalities are alike, and where a coordinate is constant.
    for alike in (sample(4, 3, 0)[:, None].repeat(1, 3, 1), torch.ones(4, 3, 3, dtype=torch.float64)):
        alike.requires_grad_()
        value = invariance_discrepancy(alike, form)
        (gradient,) = torch.autograd.grad(value, alike)
        assert float(value.detach()) < 1e-12
        assert gradient.isfinite().all()


@pytest.mark.parametrize("form", FORMS)
def test_each_form_in_half_precision(form: Discrepancy) -> None:
    H = sample(60, 5, 0).view(20, 3, 5).bfloat16()
    found = invariance_discrepancy(H, form)
    assert found.dtype == torch.float32
    assert float(found) == pytest.approx(naive_discrepancy(H.double(), form, 5), rel=0.02)


# Corpora with gaps.


def naive_with_gaps(H: Tensor, known: Tensor, form: Discrepancy, moments: int) -> float:
    """Mean over the pairs that some row has, each over the rows that have both."""
    width = 1.0 if form == "published" else 2.0
    x = H.clone()
    if form == "bounded":
        x[known] = naive_standardised(H[known][None])[0]
    if form != "published":
        x = torch.tensor([math.tanh(value) for value in x.flatten().tolist()], dtype=H.dtype).reshape(H.shape)
    pairs = []
    for m, n in combinations(range(H.shape[1]), 2):
        both = [row for row in range(len(H)) if known[row, m] and known[row, n]]
        if both:
            pairs.append(naive_cmd(x[both, m], x[both, n], moments, width))
    return sum(pairs) / len(pairs) if pairs else 0.0


@given(size=st.integers(1, 9), dim=st.integers(1, 4), moments=st.integers(1, 5), seed=st.integers(0, 1000))
@pytest.mark.parametrize("form", FORMS)
def test_each_form_with_gaps_against_a_loop(form: Discrepancy, size: int, dim: int, moments: int, seed: int) -> None:
    H = 2 * sample(3 * size, dim, seed).view(size, 3, dim) + torch.arange(3)[:, None]
    known = torch.from_numpy(np.random.default_rng(seed).random((size, 3)) < 0.6)
    known[~known.any(dim=1), 1] = True
    H.requires_grad_()
    found = invariance_discrepancy(H, form, moments, known)
    assert float(found.detach()) == pytest.approx(naive_with_gaps(H.detach(), known, form, moments), rel=1e-9)
    (gradient,) = torch.autograd.grad(found, H)
    assert gradient.isfinite().all()
    assert not gradient[~known].any()
    everything = torch.ones(size, 3, dtype=torch.bool)
    assert torch.equal(invariance_discrepancy(H, form, moments, everything), invariance_discrepancy(H, form, moments))


@given(size=st.integers(1, 9), dim=st.integers(1, 4), share=st.sampled_from([0.0, 0.5, 1.0]), seed=st.integers(0, 1000))
def test_squared_error_over_what_is_known_against_a_loop(size: int, dim: int, share: float, seed: int) -> None:
    values = sample(3 * size, dim, seed).view(size, 3, dim).requires_grad_()
    targets = sample(3 * size, dim, seed + 1).view(size, 3, dim)
    known = torch.from_numpy(np.random.default_rng(seed).random((size, 3)) < share)
    targets[~known] = torch.nan
    errors = [
        (value - target) ** 2
        for row, other, seen in zip(values.tolist(), targets.tolist(), known.tolist(), strict=True)
        for one, wanted, there in zip(row, other, seen, strict=True)
        for value, target in zip(one, wanted, strict=True)
        if there
    ]
    found = known_mse(values, targets, known)
    assert float(found.detach()) == pytest.approx(sum(errors) / len(errors) if errors else 0.0, rel=1e-12)
    (gradient,) = torch.autograd.grad(found, values)
    assert gradient.isfinite().all()
    assert not gradient[~known].any()


def test_decoupled_contrast_pair_by_pair() -> None:
    x, y, scale = sample(7, 4, 0), sample(7, 4, 1), 3.0

    def cosine(one: Tensor, other: Tensor) -> float:
        return float(one @ other / (one.norm() * other.norm()))

    terms = []
    for i in range(7):
        for one, others in ((x, y), (y, x)):
            negatives = sum(math.exp(scale * cosine(one[i], others[j])) for j in range(7) if j != i)
            terms.append(-math.log(math.exp(scale * cosine(one[i], others[i])) / negatives))
    assert float(decoupled_contrast(x, y, scale)) == pytest.approx(sum(terms) / len(terms), rel=1e-12)
    assert float(decoupled_contrast(y, x, scale)) == pytest.approx(sum(terms) / len(terms), rel=1e-12)
    assert decoupled_contrast(x.bfloat16(), y.bfloat16(), scale).dtype == torch.float32


@pytest.mark.parametrize("size", [0, 1, 2])
def test_decoupled_contrast_of_few_rows_has_a_finite_gradient(size: int) -> None:
    x, y = sample(size, 4, 0).requires_grad_(), sample(size, 4, 1).requires_grad_()
    value = decoupled_contrast(x, y, 2.0)
    gradients = torch.autograd.grad(value, (x, y))
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)
    assert (float(value.detach()) == 0) == (size < 2)


def test_info_nce_is_that_of_pytorch_metric_learning() -> None:
    from pytorch_metric_learning.losses import NTXentLoss

    x, y, itself = sample(7, 3, 0), sample(7, 3, 1), torch.arange(7)
    # A copy: by the same labels it would leave out the pair itself.
    expected = NTXentLoss(temperature=1.0)(x, itself, ref_emb=y, ref_labels=itself.clone())
    torch.testing.assert_close(info_nce(x, y), expected)
    sharper = NTXentLoss(temperature=0.1)(x, itself, ref_emb=y, ref_labels=itself.clone())
    torch.testing.assert_close(info_nce(x, y, 10.0), sharper)
    assert info_nce(x.bfloat16(), y.bfloat16()).dtype == torch.float32


@pytest.mark.parametrize("size", [0, 1])
def test_info_nce_of_few_rows_has_a_zero_gradient(size: int) -> None:
    x, y = (torch.randn(size, 3, requires_grad=True) for _ in range(2))
    value = info_nce(x, y)
    value.backward()
    assert float(value.detach()) == 0
    assert x.grad is not None and not x.grad.any()
