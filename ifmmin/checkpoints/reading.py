"""Reading checkpoints: nothing in them is executed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from datamodules.errors import InputError


def load_safely(path: str | Path) -> Any:
    """Read a file that ``torch.save`` wrote, executing nothing in it.

    Raises:
        InputError: the file is missing, truncated, no such file, or contains more than plain data.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: there is no such checkpoint file.")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except PermissionError as error:
        raise InputError(f"{path}: may not be read; give yourself the permission.") from error
    except Exception as error:  # torch raises many types here, none of them documented
        # Its own messages are not passed on: they advise to load the file unsafely.
        raise InputError(
            f"{path}: not a readable checkpoint of tensors and plain values; "
            "it is truncated, damaged, or contains code, which is never run. Take another copy."
        ) from error


def read_checkpoint(path: str) -> dict[str, Any]:
    """A checkpoint that this library wrote.

    Raises:
        InputError: it cannot be read, or something else wrote it.
    """
    checkpoint = load_safely(path)
    record = checkpoint.get("ifmmin", {}) if isinstance(checkpoint, dict) else {}
    if "model" not in record or "data" not in record:
        raise InputError(f"{path}: not a checkpoint that a fit of this library wrote.")
    return dict(checkpoint)


def trained_model(record: Mapping[str, Any]) -> str:
    """The registry name of the model that wrote a checkpoint.

    Args:
        record: the checkpoint's ``"ifmmin"`` entry. Up to 0.1.0 it has the class's module path, of which the
            last part is the name.
    """
    return str(record.get("model", "unknown")).rpartition(".")[2]
