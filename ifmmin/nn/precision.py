"""Autocast: when to convert."""

from __future__ import annotations

import torch
from torch import Tensor


def in_autocast(frames: Tensor) -> Tensor:
    """Frames in the precision that autocast gives to what reads them: converted once, before they are copied."""
    device = frames.device.type
    return frames.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else frames
