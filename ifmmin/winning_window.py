"""A convolution over time of which only the largest response of each channel is wanted."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

NEAR_CACHE = 3 * 2**19
"""Bytes that stay in a second-level cache of 2 MB while others pass through."""


def winning_response(frames: Tensor, convolution: nn.Conv1d, padding: Tensor | None = None) -> Tensor:
    """The largest response of each channel over the windows of each sequence: [K, C].

    Equal to ``convolution(frames.transpose(1, 2)).amax(dim=2)``, gradients included; where windows tie,
    the first of them has the whole gradient.

    Args:
        frames: [K, T, D].
        convolution: D to C channels, of stride 1, without padding of its own, with a bias; its width is at most T.
        padding: bool [K, T - width + 1], True on windows that do not count; at least one of each sequence does.
    """
    if len(frames) == 1 and not torch.is_grad_enabled():
        return _of_one_sequence(frames[0], convolution, padding)
    best: Tensor = WinningWindow.apply(frames, padding, convolution.weight, convolution.bias)  # type: ignore[no-untyped-call]
    return best


def _of_one_sequence(frames: Tensor, convolution: nn.Conv1d, padding: Tensor | None) -> Tensor:
    """:func:`winning_response` of frames [T, D] as a matrix product, which takes less than to prepare a convolution."""
    windows = frames.unfold(0, convolution.kernel_size[0], 1).flatten(1)
    responses = F.linear(windows, convolution.weight.flatten(1), convolution.bias)
    if padding is not None:
        responses = responses.masked_fill(padding.t(), -torch.inf)
    return responses.amax(dim=0, keepdim=True)


class WinningWindow(torch.autograd.Function):
    """Convolution over time and the maximum over the windows inside each sequence: [K, C].

    Only the window that wins passes a gradient on, so the weight's gradient is a weighted sum of the
    winners' frames, and nothing is multiplied by the zeros of all other windows.
    """

    @staticmethod
    def forward(ctx: Any, frames: Tensor, padding: Tensor | None, weight: Tensor, bias: Tensor) -> Tensor:
        """Read frames [K, T, D]; padding bool [K, windows]: outside; weight [C, D, width], bias [C]."""
        # A picture of one row whose pixels are frames is what convolutions read without a transposed copy.
        windows = F.conv2d(frames.transpose(1, 2).unsqueeze(2), weight.unsqueeze(2), bias)
        if padding is not None:
            windows.masked_fill_(padding[:, None, None], -torch.inf)
        best, place = F.max_pool2d(windows, (1, windows.shape[3]), return_indices=True)
        ctx.save_for_backward(frames, place.flatten(1), weight)
        return best.flatten(1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, None, Tensor, Tensor]:
        """The gradients of frames, weight and bias."""
        (gradient,) = gradients
        frames, place, weight = ctx.saved_tensors
        (K, T, D), (C, _, width) = frames.shape, weight.shape
        taps = torch.arange(width, device=frames.device)[:, None]
        first = place + T * torch.arange(K, device=frames.device)[:, None]
        # The winners' frames [C, width, K], as rows of all frames, and what each of them counts.
        rows = first.t()[:, None] + taps
        shares = gradient.to(frames.dtype).t()[:, None].expand_as(rows)
        summed = _weighted_sums(frames.flatten(0, 1), rows.flatten(0, 1), shares.flatten(0, 1))
        to_frames = None
        if ctx.needs_input_grad[0]:
            winners = weight.new_zeros(K, C, T - width + 1)
            winners.scatter_(2, place[..., None], gradient[..., None].to(weight.dtype))
            to_frames = F.conv_transpose1d(winners, weight).transpose(1, 2).to(frames.dtype)
        return to_frames, None, summed.view(C, width, D).transpose(1, 2), gradient.sum(dim=0)


def _weighted_sums(frames: Tensor, rows: Tensor, shares: Tensor) -> Tensor:
    """[N, D]: for each n, the sum of the frames [F, D] that ``rows`` [N, K] names times their ``shares`` [N, K]."""
    columns = frames.shape[1]
    if frames.device.type == "cpu":
        # A frame is read time and again: as many columns at a time as stay in the nearest cache with all frames.
        columns = max(64, NEAR_CACHE // (4 * len(frames)) // 64 * 64)
    blocks = frames.split(columns, dim=1)
    sums = [F.embedding_bag(rows, block.contiguous(), mode="sum", per_sample_weights=shares) for block in blocks]
    return torch.cat(sums, dim=1)
