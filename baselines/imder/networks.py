"""The parts of IMDer: the noise of its diffusion, a score network, and the ODE that follows it.

Plain ``torch.nn``: nothing here knows Lightning.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from ifmmin.nn.cross_modal import CrossModalTransformer

SIGMA = 25.0
"""Base of g(t) = 25^t, the rate at which noise comes in."""

EARLIEST, LATEST = 1e-5, 1.0
"""Between which the times of the loss are drawn."""

END = 1e-3
"""Time of the last but one step of a recovery; the last one takes away what noise is left."""


def noise_std(t: Tensor) -> Tensor:
    """σ_t = √((25^{2t} - 1) / (2 ln 25)), the noise at time t.

    >>> float(noise_std(torch.tensor(0.0)))
    0.0
    """
    return ((SIGMA ** (2 * t) - 1) / (2 * math.log(SIGMA))).sqrt()


class TimeFeatures(nn.Module):
    """Sines and cosines of a time at random frequencies, which are not trained, through a linear layer and a swish.

    Args:
        dim: of the features, even.
        scale: standard deviation of the frequencies.
    """

    frequencies: Tensor

    def __init__(self, dim: int, scale: float) -> None:
        super().__init__()
        self.register_buffer("frequencies", scale * torch.randn(dim // 2))
        self.linear, self.activation = nn.Linear(dim // 2 * 2, dim), nn.SiLU()

    def forward(self, t: Tensor) -> Tensor:
        """Map times [B] to [B, dim]."""
        angle = 2 * math.pi * t[:, None] * self.frequencies
        features: Tensor = self.activation(self.linear(torch.cat([angle.sin(), angle.cos()], dim=1)))
        return features


class Crossing(nn.Module):
    """Add to channels what they read of a condition's: a crossmodal transformer with a future mask.

    Args:
        width: of both.
        heads: divides the width.
        layers: of the transformer.
    """

    def __init__(self, width: int, heads: int, layers: int) -> None:
        super().__init__()
        self.transformer = CrossModalTransformer(width, heads, layers, 0.0, 0.0, 0.0, 0.0, future_mask=True)

    def forward(self, h: Tensor, condition: Tensor) -> Tensor:
        """Map [B, width, S] and a condition [B, width, S] to [B, width, S]."""
        read: Tensor = self.transformer(h.transpose(1, 2), condition.transpose(1, 2))
        return h + read.transpose(1, 2)


class Level(nn.Module):
    """What a level of either path does behind its convolution: read the condition, add the time, normalise, swish.

    Args:
        width: of the level.
        time_dim: of the time's features.
        groups: of the normalisation.
        heads: of the attention.
        layers: of the crossmodal transformer.
    """

    def __init__(self, width: int, time_dim: int, groups: int, heads: int, layers: int) -> None:
        super().__init__()
        self.crossing = Crossing(width, heads, layers)
        self.time = nn.Linear(time_dim, width)
        # At least two channels in a group: the lowest level may have a single step.
        self.norm, self.activation = nn.GroupNorm(math.gcd(groups, width // 2), width), nn.SiLU()

    def forward(self, h: Tensor, condition: Tensor, time: Tensor) -> Tensor:
        """Map [B, width, S], a condition [B, width, S] and a time [B, time_dim] to [B, width, S]."""
        h = self.crossing(h, condition) + self.time(time)[..., None]
        result: Tensor = self.activation(self.norm(h))
        return result


class ScoreNetwork(nn.Module):
    """A U-Net over the steps of a noisy sequence that reads a clean condition at every level.

    Args:
        channels: widths of the levels, at least two, the first that of a step; every level but the first has half the
            steps of the one before, and at least one.
        steps: S.
        time_dim: of the features of the time, even.
        groups: of the normalisations, at most.
        heads: of each attention; divides every width.
        layers: of each crossmodal transformer.
        time_scale: of the frequencies of the time's features.
    """

    def __init__(
        self,
        channels: Sequence[int],
        steps: int,
        time_dim: int,
        groups: int,
        heads: int,
        layers: int,
        time_scale: float = 30.0,
    ) -> None:
        super().__init__()
        self.time = TimeFeatures(time_dim, time_scale)
        # A single step is not halved: PyTorch 2.13 has no gradient for that in bfloat16, on a CPU.
        halved = [-(-steps // 2**level) > 1 for level in range(len(channels) - 1)]
        falls = [(*pair, 2 if halve else 1) for pair, halve in zip(pairwise(channels), halved, strict=True)]
        rises = falls[::-1]

        def levels(widths: Sequence[int]) -> nn.ModuleList:
            return nn.ModuleList(Level(width, time_dim, groups, heads, layers) for width in widths)

        def down(narrow: int, wide: int, stride: int) -> nn.Conv1d:
            return nn.Conv1d(narrow, wide, 3, stride=stride, padding=1, bias=False)

        def up(wide: int, narrow: int, stride: int) -> nn.ConvTranspose1d:
            return nn.ConvTranspose1d(wide, narrow, 3, stride=stride, padding=1, bias=False)

        self.first = nn.Conv1d(channels[0], channels[0], 3, padding=1, bias=False)
        self.falling, self.rising = levels(channels), levels(channels[-2::-1])
        self.down = nn.ModuleList(down(*fall) for fall in falls)
        self.condition_down = nn.ModuleList(down(*fall) for fall in falls)
        # From the second level upwards the widths are doubled by what the falling path had there.
        self.up = nn.ModuleList(
            up(wide * (2 if place else 1), narrow, stride) for place, (narrow, wide, stride) in enumerate(rises)
        )
        self.condition_up = nn.ModuleList(up(wide, narrow, stride) for narrow, wide, stride in rises)
        self.last = nn.ConvTranspose1d(2 * channels[0], channels[0], 3, padding=1)
        self.condition_last = nn.ConvTranspose1d(channels[0], channels[0], 3, padding=1)
        self.last_crossing = Crossing(channels[0], heads, layers)

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        """Estimate minus the noise of x [B, S, C] at times [B], in units of σ_t, given a condition [B, S, C].

        Divided by σ_t it is the score of x: [B, S, C].
        """
        time, c = self.time(t), condition.transpose(1, 2)
        h = self.falling[0](self.first(x.transpose(1, 2)), c, time)
        passed = [h]
        for convolve, convolve_condition, level in zip(self.down, self.condition_down, self.falling[1:], strict=True):
            c = convolve_condition(c)
            h = level(convolve(h), c, time)
            passed.append(h)
        passed.pop()
        for place, level in enumerate(self.rising):
            beside = passed[-1 - place]
            size = beside.shape[2:]
            c = self.condition_up[place](c, output_size=size)
            if place:
                h = torch.cat([h, passed[-place]], dim=1)
            h = level(self.up[place](h, output_size=size), c, time)
        h = self.last(torch.cat([h, passed[0]], dim=1))
        estimated: Tensor = self.last_crossing(h, self.condition_last(c)).transpose(1, 2)
        return estimated

    def loss(self, x: Tensor, condition: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """Squared error [B] of the score of x + σ_t noise, summed over steps and channels, in units of 1/σ_t².

        Args:
            x: [B, S, C].
            condition: [B, S, C], clean.
            t: [B].
            noise: [B, S, C], standard normal.
        """
        estimated: Tensor = self(x + noise_std(t)[:, None, None] * noise, t, condition)
        return (estimated + noise).square().sum(dim=(1, 2))

    @torch.no_grad()
    def recover(self, condition: Tensor, start: Tensor, steps: int) -> Tensor:
        r"""Follow the probability-flow ODE from noise to a sequence: [B, S, C].

        .. math:: \frac{dx}{dσ} = -σ\,\mathrm{score}(x, t)

        in Euler's steps from t = 1, at equal distances in t but for the last, which ends without noise.

        Args:
            condition: [B, S, C].
            start: [S, C], standard normal.
            steps: how often the network is asked.
        """
        times = torch.linspace(LATEST, END, steps, dtype=start.dtype, device=start.device)
        stds = torch.cat([noise_std(times), times.new_zeros(1)])
        x = (stds[0] * start).expand_as(condition)
        for step, t in enumerate(times):
            x = x + (stds[step] - stds[step + 1]) * self(x, t.expand(len(x)), condition)
        return x
