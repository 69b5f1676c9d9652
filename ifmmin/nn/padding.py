"""Padding of sequences: which frames are true, and how an LSTM reads them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from datamodules.errors import InputError
from ifmmin.nn.kernels import use_plain


def frame_mask(lengths: Tensor, longest: int) -> Tensor:
    """Bool [K, longest]: True on true frames, False on padding.

    Example:
        >>> frame_mask(torch.tensor([1, 3]), longest=3).int().tolist()
        [[1, 0, 0], [1, 1, 1]]
    """
    return torch.arange(longest, device=lengths.device) < lengths[:, None]


def kept_frames(frames: Tensor, kept: Tensor, sequence: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Gather some frames of each of P sequences, in their order.

    Args:
        frames: [K, T, D].
        kept: bool [P, T].
        sequence: int64 [P], which of the K each of the P is; None: the P are the K.

    Returns:
        [P, S, D], S the most that are kept of any and at least 1, 0 behind; and how many are kept, int64 [P].

    >>> kept = torch.tensor([[False, True, True]])
    >>> [each.tolist() for each in kept_frames(torch.tensor([[[1.0], [2.0], [3.0]]]), kept)]
    [[[[2.0], [3.0]]], [2]]
    """
    lengths = kept.sum(dim=1)
    row, step = kept.nonzero(as_tuple=True)
    true = frame_mask(lengths, max([1, *lengths.tolist()]))
    found = frames.new_zeros(*true.shape, frames.shape[2])
    return found.masked_scatter(true[..., None], frames[row if sequence is None else sequence[row], step]), lengths


def mean_frame(frames: Tensor, lengths: Tensor) -> Tensor:
    """Mean [B, d] of the true frames of [B, T, d], by int64 [B]; zeros without frames.

    >>> mean_frame(torch.tensor([[[1.0], [3.0], [9.0]]]), torch.tensor([2])).tolist()
    [[2.0]]
    """
    true = frame_mask(lengths, frames.shape[1])[..., None]
    return frames.where(true, 0.0).sum(dim=1) / lengths.clamp(min=1)[:, None]


def padding_mask(lengths: Tensor, longest: int) -> Tensor | None:
    """Bool [K, longest]: True on padding; or None if nothing is padded.

    Always built on a GPU, where the check would force a sync, and under a tracer, which cannot branch on values.
    """
    if lengths.device.type == "cpu" and not use_plain("padding") and bool((lengths >= longest).all()):
        return None
    return ~frame_mask(lengths, longest)


def checked_lengths(frames: Tensor, lengths: Tensor | None, width: int) -> Tensor:
    """Lengths int64 [K] of the sequences ``frames``, those of whole sequences if None.

    Args:
        frames: [K, T, width].
        lengths: [K], in 1..T; looked at on a CPU only, and not under a tracer.
        width: of a frame.

    Raises:
        InputError: the shapes are others, or a length is out of range.
    """
    shape = list(frames.shape)
    if len(shape) != 3 or shape[2] != width or not shape[1]:
        single = "; of one sequence frames[None]" if shape[1:] == [width] else ""
        raise InputError(f"frames {shape}: give [K, T, {width}]{single}.")
    if lengths is None:
        return torch.full((shape[0],), shape[1], device=frames.device)
    if list(lengths.shape) != shape[:1] or lengths.is_floating_point():
        raise InputError(
            f"lengths {list(lengths.shape)}: give a whole number of frames for each of {shape[0]} sequences."
        )
    if lengths.device.type == "cpu" and not use_plain("padding") and len(lengths):
        low, high = int(lengths.min()), int(lengths.max())
        if low < 1 or high > shape[1]:
            raise InputError(f"lengths from {low} to {high}: each must be from 1 to {shape[1]}.")
    return lengths


def by_time(frames: Tensor, sequences: int) -> Tensor:
    """Frames [K, T, D] as [T, sequences, D], as an LSTM reads them: sequences beyond the K are zero frames.

    On a CPU with zeros up to full multiples: oneDNN compiles and keeps a kernel for each new shape, which
    costs more than up to 3 sequences and 1 frame.
    """
    turned, more = frames.transpose(0, 1), sequences - len(frames)
    if frames.device.type == "cpu":
        more += -sequences % 4 if sequences > 1 else 0
        return F.pad(turned, (0, 0, 0, more, 0, -frames.shape[1] % 2))
    return F.pad(turned, (0, 0, 0, more)) if more else turned


def reversed_frames(frames: Tensor, lengths: Tensor) -> Tensor:
    """Reverse each sequence of frames [K, T, D] by itself; what is behind its last frame, by int64 [K], is undefined.

    >>> frames = torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1)
    >>> reversed_frames(frames, torch.tensor([2]))[0, :2, 0].tolist()
    [2.0, 1.0]
    """
    place = torch.arange(frames.shape[1], device=lengths.device)
    row = torch.arange(len(lengths), device=lengths.device)
    return frames[row[:, None], (lengths[:, None] - 1 - place).clamp(min=0)]
