"""The error of a linear layer: the kernel against its plain twin, and both against finite differences."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from ifmmin.nn.kernels import plain
from ifmmin.nn.kernels.linear_error import LinearErrors, linear_errors, plain_linear_errors


def inputs(rows: int = 3) -> list[Tensor]:
    torch.manual_seed(0)
    given = [torch.randn(*shape, dtype=torch.float64) for shape in ((rows, 5, 4), (7, 4), (7,), (rows, 5, 7))]
    return [*(each.requires_grad_() for each in given[:3]), given[3]]


def kernel(states: Tensor, weight: Tensor, bias: Tensor, true: Tensor) -> Tensor:
    errors: Tensor = LinearErrors.apply(states, weight, bias, true.clone())  # type: ignore[no-untyped-call]
    return errors


@pytest.mark.parametrize("rows", [0, 1, 3])
def test_the_kernel_is_its_plain_twin(rows: int) -> None:
    given = inputs(rows)
    ours, twin = kernel(*given), plain_linear_errors(*given)
    torch.testing.assert_close(ours, twin, rtol=1e-9, atol=1e-12)
    outer = torch.randn_like(ours)
    for own, expected in zip(
        torch.autograd.grad(ours, given[:3], outer), torch.autograd.grad(twin, given[:3], outer), strict=True
    ):
        torch.testing.assert_close(own, expected, rtol=1e-9, atol=1e-12)


def test_first_and_second_derivatives() -> None:
    assert torch.autograd.gradcheck(kernel, inputs())
    assert torch.autograd.gradgradcheck(kernel, inputs(1))


def test_transforms_and_who_asks_take_the_plain_twin() -> None:
    layer, states, true = nn.Linear(4, 7), torch.randn(3, 5, 4), torch.randn(3, 5, 7)

    def loss(states: Tensor) -> Tensor:
        return linear_errors(layer, states, true.clone()).sum()

    gradient = torch.func.grad(loss)(states)
    states.requires_grad_()
    (expected,) = torch.autograd.grad(loss(states), states)
    torch.testing.assert_close(gradient, expected)
    assert "LinearErrors" in str(linear_errors(layer, states, true.clone()).grad_fn)
    with plain("linear_error"):
        assert "LinearErrors" not in str(linear_errors(layer, states, true.clone()).grad_fn)
