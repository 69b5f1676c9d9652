"""Devices of PyTorch that a command line names."""

from __future__ import annotations

import torch

from datamodules.errors import InputError
from datamodules.text import printable


def available_device(name: str) -> str:
    """``name``, if there is such a device here.

    Raises:
        InputError: there is none.
    """
    try:
        torch.zeros(1, device=name).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(f"--device {printable(name, 60)}: there is none here; give cpu, or leave it out.") from error
    return name
