"""The parts of DiCMoR: a flow over the channels of a step, and the Gaussians of the classes.

Plain ``torch.nn``: nothing here knows Lightning.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Transform, constraints
from torch.nn import functional as F

from ifmmin.nn.flows import Flow
from ifmmin.nn.precision import full_precision

LOG_RATE = 3.0
"""A layer's log scale is multiplied by this, so that it moves faster than weights do (Glow)."""


class ScaledLinear(nn.Linear):
    """A linear layer whose outputs are multiplied by exp(3 s), with s learnt; all parameters start at 0."""

    def __init__(self, input_dim: int, output_dim: int) -> None:
        super().__init__(input_dim, output_dim)
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)
        self.log_scale = nn.Parameter(torch.zeros(output_dim))

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., input_dim] to [..., output_dim]."""
        return super().forward(x) * (LOG_RATE * self.log_scale).exp()


class ShiftAndShrink(Transform):
    """y = (x + t) · sigmoid(r + 2), element by element.

    Args:
        shift: t.
        raw_scale: r.
    """

    domain = constraints.real
    codomain = constraints.real
    bijective = True
    sign = +1

    def __init__(self, shift: Tensor, raw_scale: Tensor) -> None:
        super().__init__()
        self.shift, self.log_scale = shift, F.logsigmoid(raw_scale + 2.0)

    def _call(self, x: Tensor) -> Tensor:
        return (x + self.shift) * self.log_scale.exp()

    def _inverse(self, y: Tensor) -> Tensor:
        return y * (-self.log_scale).exp() - self.shift

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """See :class:`torch.distributions.Transform`."""
        return self.log_scale.expand(x.shape)


class ChannelFlow(Flow):
    """Couplings over the channels of each step, with the channels reversed after each of them.

    The first half of the channels gives shift and scale of the second; a network of zuko, whose last layer starts
    at 0.

    Args:
        channels: C, at least 2.
        couplings: how many.
        hidden_dim: width of both hidden layers of a coupling's network.
    """

    def __init__(self, channels: int, couplings: int, hidden_dim: int) -> None:
        super().__init__()
        # Imported here, since other models need not wait for it.
        from zuko.flows import GeneralCouplingTransform, UnconditionalTransform
        from zuko.lazy import LazyComposedTransform
        from zuko.transforms import PermutationTransform

        parts = []
        for _ in range(couplings):
            coupling = GeneralCouplingTransform(
                channels,
                mask=torch.arange(channels) < channels // 2,
                univariate=ShiftAndShrink,
                hidden_features=(hidden_dim, hidden_dim),
            )
            last = coupling.hyper[-1]
            coupling.hyper[-1] = ScaledLinear(last.in_features, last.out_features)
            order = torch.arange(channels).flip(0)
            parts += [coupling, UnconditionalTransform(PermutationTransform, order, buffer=True)]
        self.parts = LazyComposedTransform(*parts)

    def transform(self) -> Any:
        """See :class:`~ifmmin.nn.flows.Flow`."""
        return self.parts()


class ClassPrior(nn.Module):
    """A Gaussian for each class, a mean and a standard deviation per channel, the same for all modalities and steps.

    Args:
        classes: how many.
        channels: C.
    """

    def __init__(self, classes: int, channels: int) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(classes, channels))
        self.log_std = nn.Parameter(torch.zeros(classes, channels))

    def forward(self, z: Tensor, classes: Tensor) -> Tensor:
        """Log density [K], in nats, of z [K, S, C] under the Gaussians of ``classes``, int64 [K]."""
        with full_precision(z):
            mean, log_std = self.mean[classes][:, None], self.log_std[classes][:, None]
            square = ((z - mean) * (-log_std).exp()).square()
            return -(0.5 * square + log_std + 0.5 * math.log(2 * math.pi)).sum(dim=(1, 2))


def bits_per_dimension(log_density: Tensor, dimensions: int) -> Tensor:
    """Of log densities [...] in nats of points of so many dimensions.

    >>> float(bits_per_dimension(torch.tensor(-2 * math.log(2)), 4))
    0.5
    """
    return log_density / (-math.log(2) * dimensions)
