"""Residual channel attention, which refines a sequence that was recovered.

Zhang et al., "Image super-resolution using very deep residual channel attention networks", ECCV 2018, over steps
instead of pixels. Plain ``torch.nn``: nothing here knows Lightning.
"""

from __future__ import annotations

from torch import Tensor, nn


class ChannelAttention(nn.Module):
    """Two convolutions, whose channels are weighed by a function of their means over the steps; added to the input.

    Args:
        width: number of channels.
        reduction: the weights' hidden layer is that many times narrower.
    """

    def __init__(self, width: int, reduction: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv1d(width, width, 3, padding=1), nn.ReLU(), nn.Conv1d(width, width, 3, padding=1)
        )
        narrow = max(1, width // reduction)
        self.weights = nn.Sequential(nn.Linear(width, narrow), nn.ReLU(), nn.Linear(narrow, width), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, width, S] to [B, width, S]."""
        added = self.body(x)
        result: Tensor = x + added * self.weights(added.mean(dim=2))[..., None]
        return result


class Refinement(nn.Module):
    """Blocks of channel attention with a convolution behind them, added to their input; linear layers around.

    Args:
        dim: C, the width of a step.
        width: channels of the blocks.
        blocks: how many.
        reduction: of each channel attention.
    """

    def __init__(self, dim: int, width: int, blocks: int, reduction: int = 16) -> None:
        super().__init__()
        self.widen, self.narrow = nn.Linear(dim, width), nn.Linear(width, dim)
        self.blocks = nn.Sequential(
            *(ChannelAttention(width, reduction) for _ in range(blocks)), nn.Conv1d(width, width, 3, padding=1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, S, C] to [B, S, C]."""
        wide = self.widen(x).transpose(1, 2)
        refined: Tensor = self.narrow((wide + self.blocks(wide)).transpose(1, 2))
        return refined
