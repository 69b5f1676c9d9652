"""The mean squared error of a linear layer's output that is compared and never written: plain, and its twin."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ifmmin.nn.kernels import use_plain


def linear_errors(layer: nn.Linear, states: Tensor, true: Tensor) -> Tensor:
    """Compute [R]: the mean of (W s + b - x)² over the steps and features of each row.

    Args:
        layer: W [D, H] and b [D].
        states: s [R, S, H].
        true: x [R, S, D], which needs no gradient; the kernel writes over it, so give a copy.

    Example:
        >>> linear_errors(nn.Linear(2, 5), torch.zeros(3, 4, 2), torch.zeros(3, 4, 5)).shape
        torch.Size([3])
    """
    if use_plain("linear_error"):
        return plain_linear_errors(states, layer.weight, layer.bias, true)
    errors: Tensor = LinearErrors.apply(states, layer.weight, layer.bias, true)  # type: ignore[no-untyped-call]
    return errors


def plain_linear_errors(states: Tensor, weight: Tensor, bias: Tensor, true: Tensor) -> Tensor:
    """Plain twin of :func:`linear_errors`."""
    return (F.linear(states, weight, bias) - true).square().mean(dim=(1, 2))


class LinearErrors(torch.autograd.Function):
    """See :func:`linear_errors`: only the residual is as wide as x; errors and gradients are read off it."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, bias: Tensor, true: Tensor) -> Tensor:
        """Compute the errors [R]; the residual takes the place of x."""
        with torch.autocast(states.device.type, enabled=False):
            joint = F.pad(states.to(weight.dtype), (0, 1), value=1.0)  # b is multiplied by the 1
            matrix = torch.cat([weight, bias[:, None]], dim=1)
            residual = true.to(weight.dtype).flatten(0, 1).addmm_(joint.flatten(0, 1), matrix.t(), beta=-1)
        ctx.save_for_backward(states, weight, bias, residual, joint)
        errors: Tensor = torch.linalg.vector_norm(residual.view(true.shape), dim=(1, 2)).square()
        return errors / true[0].numel() if len(true) else errors

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        """Compute the gradients of states, weight and bias."""
        (gradient,) = outer
        states, weight, bias, residual, joint = ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative is wanted: by the plain twin
            given = states, weight, bias
            with torch.no_grad():
                true = F.linear(*given) - residual.view(*states.shape[:2], -1)
            again = plain_linear_errors(*given, true)
            wanted = [tensor for tensor in given if tensor.requires_grad]
            found = iter(torch.autograd.grad(again, wanted, gradient, create_graph=True))
            return *(next(found) if tensor.requires_grad else None for tensor in given), None
        with torch.autocast(gradient.device.type, enabled=False):  # as in the forward pass
            scale = (gradient * (2 / max(states.shape[1] * len(weight), 1)))[:, None, None]
            to_joint = residual.t() @ (joint * scale).flatten(0, 1)
            to_states = (residual @ weight).view_as(states) * scale
        return to_states.to(states.dtype), to_joint[:, :-1], to_joint[:, -1], None
