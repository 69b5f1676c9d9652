"""The parts of RedCore: an encoder that gives Gaussians, and weights that adapt to how hard a modality is to generate.

Plain ``torch.nn``: nothing here knows Lightning.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ifmmin.nn.gaussians import Gaussian, GaussianHead
from ifmmin.nn.precision import in_autocast


class NormedLayer(nn.Module):
    """x + LN(attention(LN x)), then x + LN(feed-forward(LN x)), with ReLU.

    Args:
        dim: d.
        heads: of the attention; divides d.
        expansion: of the hidden width of the feed-forward part.
        attention_dropout: of the attention weights.
        feedforward_dropout: of the hidden values.
    """

    def __init__(
        self, dim: int, heads: int, expansion: int, attention_dropout: float, feedforward_dropout: float
    ) -> None:
        super().__init__()
        self.norm, self.norm_attended = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = nn.MultiheadAttention(dim, heads, attention_dropout, batch_first=True)
        self.norm_feedforward, self.norm_mapped = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.feedforward = nn.Sequential(
            nn.Linear(dim, expansion * dim),
            nn.ReLU(),
            nn.Dropout(feedforward_dropout),
            nn.Linear(expansion * dim, dim),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map [K, S, d] to [K, S, d]."""
        normed = self.norm(x)
        x = x + self.norm_attended(self.attention(normed, normed, normed, need_weights=False)[0])
        mapped: Tensor = x + self.norm_mapped(self.feedforward(self.norm_feedforward(x)))
        return mapped


class GaussianEncoder(nn.Module):
    """Frames projected to d, layers of self-attention, the sigmoid of their mean, and linear to μ and log σ².

    Args:
        input_dim: D.
        dim: d, the width of layers and of the code.
        heads: of each attention; divides d.
        layers: how many.
        expansion: of the feed-forward parts.
        attention_dropout: of attention weights.
        feedforward_dropout: of the feed-forward parts.
    """

    def __init__(
        self,
        input_dim: int,
        dim: int,
        heads: int,
        layers: int,
        expansion: int,
        attention_dropout: float,
        feedforward_dropout: float,
    ) -> None:
        super().__init__()
        self.project = nn.Linear(input_dim, dim)
        self.layers = nn.Sequential(
            *(NormedLayer(dim, heads, expansion, attention_dropout, feedforward_dropout) for _ in range(layers))
        )
        self.head = GaussianHead(dim, dim, spread="log_variance")
        self.absent = nn.Parameter(0.02 * torch.randn(dim))
        """What generators read where the modality is absent."""

    def forward(self, frames: Tensor) -> Gaussian:
        """Encode true frames [K, S, D] as Gaussians [K, d]."""
        states = self.layers(self.project(in_autocast(frames)))
        found: Gaussian = self.head(states.mean(dim=1).sigmoid())
        return found


class AdaptiveWeights(nn.Module):
    r"""Weights β of the losses of M modalities: more for those whose loss is above the mean.

    With R_m the loss of a step, ℓ_m its running mean, which starts at 0, and :math:`\bar ℓ` the mean over m,

    .. math::
        ℓ_m ← (1 - ρ) ℓ_m + ρ R_m, \quad
        β ← \frac{β'}{\lVert β' \rVert_2}, \quad
        β'_m = \max \Bigl( 0.1, β_m - η \frac{\bar ℓ - ℓ_m}{\bar ℓ} \Bigr)

    β is updated at every third step, the first among them, and starts at 1. η grows by half at steps 0, 500, 1000 and
    so on, from ``rate`` to at most ``largest_rate``. A modality without a loss in a step keeps its ℓ; one that never
    had one is not in the mean. State is in buffers, so in every checkpoint.

    Args:
        count: M.
        momentum: ρ.
        rate: η before it grows.
        largest_rate: no η is above.
        interval: steps from update to update of β.
    """

    FLOOR = 0.1
    GROWTH, GROWTH_INTERVAL = 1.5, 500

    weights: Tensor
    running: Tensor
    step: Tensor

    def __init__(self, count: int, momentum: float, rate: float, largest_rate: float, interval: int = 3) -> None:
        super().__init__()
        self.momentum, self.rate, self.largest_rate, self.interval = momentum, rate, largest_rate, interval
        self.register_buffer("weights", torch.ones(count))
        self.register_buffer("running", torch.zeros(count))
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def update(self, losses: Tensor) -> None:
        """Take a step's losses [M], not negative; 0 where a modality has none in this step."""
        losses = losses.to(self.running.dtype)
        self.running.copy_(torch.where(losses > 0, torch.lerp(self.running, losses, self.momentum), self.running))
        known = self.running > 0
        mean = self.running.sum() / known.sum().clamp(min=1)
        # Relative to the mean: how far a modality is ahead of the others.
        advantage = torch.where(known, (mean - self.running) / mean, 0.0)
        growths = (self.step // self.GROWTH_INTERVAL + 1).to(losses.dtype)
        rate = (self.rate * self.GROWTH**growths).clamp(max=self.largest_rate)
        moved = (self.weights - rate * advantage).clamp(min=self.FLOOR)
        # No branch on a value: a GPU would wait for it.
        self.weights.copy_(torch.where(self.step % self.interval == 0, moved / moved.norm(), self.weights))
        self.step += 1
