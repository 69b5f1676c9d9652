"""Padding of sequences: which frames are true, and how an LSTM reads them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ifmmin.nn.kernels import use_plain


def frame_mask(lengths: Tensor, longest: int) -> Tensor:
    """Bool [K, longest]: True on true frames, False on padding.

    Example:
        >>> frame_mask(torch.tensor([1, 3]), longest=3).int().tolist()
        [[1, 0, 0], [1, 1, 1]]
    """
    return torch.arange(longest, device=lengths.device) < lengths[:, None]


def padding_mask(lengths: Tensor, longest: int) -> Tensor | None:
    """Bool [K, longest]: True on padding; or None if nothing is padded.

    Always built on a GPU, where the check would force a sync, and under a tracer, which cannot branch on values.
    """
    if lengths.device.type == "cpu" and not use_plain("padding") and bool((lengths >= longest).all()):
        return None
    return ~frame_mask(lengths, longest)


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
