"""Convolutions over time and the largest response of each channel: TextCNN's, and their gradient written out.

Only the window that wins passes a gradient on, so a weight's gradient is a weighted sum of the winners' frames.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import repeat
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ifmmin.nn.kernels import use_plain

NEAR_CACHE = 3 * 2**19
"""Bytes that stay in a second-level cache of 2 MB while others pass through."""


def winning_responses(frames: Tensor, convolutions: Iterable[nn.Module], paddings: Sequence[Tensor | None]) -> Tensor:
    """The largest response of each channel over the windows of each sequence: [K, ΣC], convolution after convolution.

    Equal to ``convolution(frames.transpose(1, 2)).amax(dim=2)`` of each, gradients included; where windows
    tie, the first of them has the whole gradient.

    Args:
        frames: [K, T, D].
        convolutions: :class:`torch.nn.Conv1d`, D to C channels, of stride 1, without padding of their own,
            with a bias; their widths are at most T.
        paddings: of each, bool [K, T - width + 1], True on windows that do not count, though at least one of
            each sequence does; None where all count.
    """
    weights, biases = zip(*((convolution.weight, convolution.bias) for convolution in convolutions), strict=True)
    if use_plain("winning_window"):
        return plain_responses(frames, weights, biases, paddings)
    if len(frames) == 1 and not torch.is_grad_enabled():
        return _of_one_sequence(frames[0], weights, biases, paddings)
    best: Tensor = WinningWindows.apply(frames, paddings, torch.cat(biases), *weights)  # type: ignore[no-untyped-call]
    return best


def plain_responses(
    frames: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], paddings: Sequence[Tensor | None]
) -> Tensor:
    """Plain twin of :func:`winning_responses`."""
    best = []
    for weight, bias, padding in zip(weights, biases, paddings, strict=True):
        windows = F.conv1d(frames.transpose(1, 2), weight, bias)
        if padding is not None:
            windows = windows.masked_fill(padding[:, None], -torch.inf)
        best.append(windows.max(dim=2).values)
    return torch.cat(best, dim=1)


def _of_one_sequence(
    frames: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], paddings: Sequence[Tensor | None]
) -> Tensor:
    """For frames [T, D] as matrix products, which take less than to prepare convolutions."""
    best = []
    for weight, bias, padding in zip(weights, biases, paddings, strict=True):
        windows = frames.unfold(0, weight.shape[2], 1).flatten(1)
        responses = F.linear(windows, weight.flatten(1), bias)
        if padding is not None:
            responses = responses.masked_fill(padding.t(), -torch.inf)
        best.append(responses.amax(dim=0, keepdim=True))
    return torch.cat(best, dim=1)


class WinningWindows(torch.autograd.Function):
    """Convolutions over time and the maximum over the windows inside each sequence: [K, ΣC].

    Only the window that wins passes a gradient on, so a weight's gradient is a weighted sum of the
    winners' frames, and nothing is multiplied by the zeros of all other windows.
    """

    @staticmethod
    def forward(ctx: Any, frames: Tensor, paddings: Sequence[Tensor | None], bias: Tensor, *weights: Tensor) -> Tensor:
        """Read frames [K, T, D]; paddings bool [K, windows]: outside; bias [ΣC], weights [C, D, width]."""
        # A picture of one row whose pixels are frames is what convolutions read without a transposed copy.
        picture = frames.transpose(1, 2).unsqueeze(2)
        best, places = [], []
        for weight, part, padding in zip(
            weights, bias.split([len(weight) for weight in weights]), paddings, strict=True
        ):
            windows = F.conv2d(picture, weight.unsqueeze(2), part)
            if padding is not None:
                windows.masked_fill_(padding[:, None, None], -torch.inf)
            largest, place = F.max_pool2d(windows, (1, windows.shape[3]), return_indices=True)
            best.append(largest.flatten(1))
            places.append(place.flatten(1))
        ctx.save_for_backward(frames, bias, *weights, *places)
        ctx.paddings = paddings
        return torch.cat(best, dim=1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of frames, bias and weights."""
        (gradient,) = gradients
        frames, bias, *saved = ctx.saved_tensors
        weights, places = saved[: len(saved) // 2], saved[len(saved) // 2 :]
        if torch.is_grad_enabled():  # a second derivative is wanted: by the plain twin
            best = plain_responses(frames, weights, bias.split([len(weight) for weight in weights]), ctx.paddings)
            wanted = [tensor for tensor in (frames, bias, *weights) if tensor.requires_grad]
            found = iter(torch.autograd.grad(best, wanted, gradient, create_graph=True))
            first, second, *rest = (next(found) if t.requires_grad else None for t in (frames, bias, *weights))
            return first, None, second, *rest
        shares = gradient.split([len(weight) for weight in weights], dim=1)
        to_frames = None
        if ctx.needs_input_grad[0]:
            to_frames = torch.stack([*map(_of_frames, repeat(frames), weights, places, shares)]).sum(dim=0)
        return to_frames, None, gradient.sum(dim=0), *_of_weights(frames, weights, places, shares)


def _of_frames(frames: Tensor, weight: Tensor, place: Tensor, gradient: Tensor) -> Tensor:
    """[K, T, D], from the winning windows ``place`` [K, C] and the gradients [K, C] of their responses."""
    winners = weight.new_zeros(*place.shape, frames.shape[1] - weight.shape[2] + 1)
    winners.scatter_(2, place[..., None], gradient[..., None].to(weight.dtype))
    return F.conv_transpose1d(winners, weight).transpose(1, 2).to(frames.dtype)


def _of_weights(
    frames: Tensor, weights: Sequence[Tensor], places: Sequence[Tensor], gradients: Sequence[Tensor]
) -> list[Tensor]:
    """Of each weight [C, D, width], from the winning windows [K, C] and the gradients [K, C] of their responses."""
    K, T, D = frames.shape
    start = T * torch.arange(K, device=frames.device)
    rows, shares = [], []
    for weight, place, gradient in zip(weights, places, gradients, strict=True):
        # The winners' frames [C, width, K], as rows of all frames, and what each of them counts.
        taps = torch.arange(weight.shape[2], device=frames.device)[:, None]
        rows.append(((place + start[:, None]).t()[:, None] + taps).flatten(0, 1))
        shares.append(gradient.to(frames.dtype).t().repeat_interleave(weight.shape[2], dim=0))
    bags, counts = torch.cat(rows), torch.cat(shares)
    summed = [torch.empty_like(weight, dtype=frames.dtype) for weight in weights]
    # A frame is read time and again: as many columns at a time as stay in the nearest cache with all frames.
    columns = max(64, NEAR_CACHE // (4 * K * T) // 64 * 64) if frames.device.type == "cpu" else D
    for block, *parts in zip(*(whole.split(columns, dim=1) for whole in (frames.flatten(0, 1), *summed)), strict=True):
        sums = F.embedding_bag(bags, block.contiguous(), mode="sum", per_sample_weights=counts)
        for part, of_weight in zip(parts, sums.split([len(each) for each in rows]), strict=True):
            part.copy_(of_weight.unflatten(0, (len(part), -1)).transpose(1, 2))
    return summed
