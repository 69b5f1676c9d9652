"""The decoder's recurrence: the kernel against its plain twin, and both against finite differences."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ifmmin.nn.kernels import plain
from ifmmin.nn.kernels.attention_lstm import Weights, attention_lstm, plain_attention_lstm


def inputs(rows: int = 3) -> list[Tensor]:
    torch.manual_seed(0)
    shapes = (rows, 5, 4), (rows, 5, 16), (4,), (4, 4), (16, 4)
    return [torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in shapes]


def kernel(keys: Tensor, values: Tensor, *weights: Tensor) -> Tensor:
    return attention_lstm(keys, values, Weights(*weights))


@pytest.mark.parametrize("rows", [0, 1, 3])
def test_the_kernel_is_its_plain_twin(rows: int) -> None:
    given = inputs(rows)
    keys, values, *weights = given
    ours, twin = kernel(*given), plain_attention_lstm(keys, values, Weights(*weights))
    torch.testing.assert_close(ours, twin, rtol=1e-9, atol=1e-12)
    outer = torch.randn_like(ours)
    for own, expected in zip(
        torch.autograd.grad(ours, given, outer), torch.autograd.grad(twin, given, outer), strict=True
    ):
        torch.testing.assert_close(own, expected, rtol=1e-9, atol=1e-12)


def test_first_and_second_derivatives() -> None:
    assert torch.autograd.gradcheck(kernel, inputs())
    assert torch.autograd.gradgradcheck(kernel, inputs(1))


def test_transforms_take_the_plain_twin() -> None:
    keys, values, *weights = (each.detach() for each in inputs())

    def loss(keys: Tensor, values: Tensor) -> Tensor:
        return attention_lstm(keys, values, Weights(*weights)).square().sum()

    ours = torch.func.grad(loss)(keys, values)
    keys.requires_grad_()
    (expected,) = torch.autograd.grad(loss(keys, values), keys)
    torch.testing.assert_close(ours, expected)
    each = torch.func.vmap(loss)(keys.detach()[:, None], values[:, None])
    torch.testing.assert_close(each.sum(), loss(keys.detach(), values))


def test_plain_can_be_asked_for() -> None:
    with plain("attention_lstm"):
        asked = kernel(*inputs())
    assert "AttentionLSTM" not in str(asked.grad_fn)
    assert "AttentionLSTM" in str(kernel(*inputs()).grad_fn)
