"""The decoders' recurrence: the kernel against its plain twin, and both against finite differences."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ifmmin.nn.kernels import plain
from ifmmin.nn.kernels.attention_lstm import Recurrence, attention_lstms, plain_attention_lstm


def inputs(*rows: int) -> list[Tensor]:
    torch.manual_seed(0)
    shapes = [shape for R in rows for shape in ((R, 5, 4), (R, 5, 16), (4,), (4, 4), (16, 4))]
    return [torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in shapes]


def kernel(*given: Tensor) -> Tensor:
    return torch.cat([*attention_lstms([Recurrence(*given[at : at + 5]) for at in range(0, len(given), 5)])])


@pytest.mark.parametrize("rows", [(0,), (1,), (3,), (3, 2), (2, 0), (1, 1, 4)])
def test_the_kernel_is_its_plain_twin(rows: tuple[int, ...]) -> None:
    given = inputs(*rows)
    ours = kernel(*given)
    twin = torch.cat([plain_attention_lstm(*given[at : at + 5]) for at in range(0, len(given), 5)])
    torch.testing.assert_close(ours, twin, rtol=1e-9, atol=1e-12)
    outer = torch.randn_like(ours)
    for own, expected in zip(
        torch.autograd.grad(ours, given, outer), torch.autograd.grad(twin, given, outer), strict=True
    ):
        torch.testing.assert_close(own, expected, rtol=1e-9, atol=1e-12)


def test_first_and_second_derivatives() -> None:
    assert torch.autograd.gradcheck(kernel, inputs(3, 2))
    assert torch.autograd.gradgradcheck(kernel, inputs(1, 1))


def test_transforms_take_the_plain_twin() -> None:
    keys, values, *weights = (each.detach() for each in inputs(3))

    def loss(keys: Tensor, values: Tensor) -> Tensor:
        return kernel(keys, values, *weights).square().sum()

    ours = torch.func.grad(loss)(keys, values)
    keys.requires_grad_()
    (expected,) = torch.autograd.grad(loss(keys, values), keys)
    torch.testing.assert_close(ours, expected)
    each = torch.func.vmap(loss)(keys.detach()[:, None], values[:, None])
    torch.testing.assert_close(each.sum(), loss(keys.detach(), values))


def test_plain_can_be_asked_for() -> None:
    names = []
    for asked in (("attention_lstm",), ("winning_window",)):
        with plain(*asked):
            names.append(str(attention_lstms([Recurrence(*inputs(2))])[0].grad_fn))
    assert "Split" not in names[0]
    assert "Split" in names[1]
