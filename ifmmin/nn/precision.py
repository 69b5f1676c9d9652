"""Mixed precision: when to convert, and what must stay in full precision."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def in_autocast(frames: Tensor) -> Tensor:
    """Cast frames to the autocast dtype once, before padding copies them.

    >>> import torch
    >>> with torch.autocast("cpu", torch.bfloat16):
    ...     in_autocast(torch.ones(1)).dtype
    torch.bfloat16
    """
    device = frames.device.type
    return frames.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else frames


def full_precision(tensor: Tensor) -> torch.autocast:
    """Context without autocast on the tensor's device, for what bfloat16 is too coarse for."""
    return torch.autocast(tensor.device.type, enabled=False)


def lstm_states(rnn: nn.LSTM, frames: Tensor) -> Tensor:
    """Run an LSTM over frames and give its states, in float32 where the CPU has no LSTM in half precision.

    oneDNN runs a bfloat16 LSTM on CPUs with AVX-512 only; elsewhere PyTorch raises.

    >>> import torch
    >>> with torch.autocast("cpu", torch.bfloat16):
    ...     lstm_states(torch.nn.LSTM(3, 2), torch.ones(5, 1, 3)).shape
    torch.Size([5, 1, 2])
    """
    half = frames.dtype in (torch.bfloat16, torch.float16) or torch.is_autocast_enabled(frames.device.type)
    if half and frames.device.type == "cpu" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        weights = {name: weight.float() for name, weight in rnn.named_parameters()}
        with full_precision(frames):
            states: Tensor = torch.func.functional_call(rnn, weights, (frames.float(),))[0]
        return states.to(frames.dtype)
    states = rnn(frames)[0]
    return states
