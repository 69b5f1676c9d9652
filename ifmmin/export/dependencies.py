"""Import what only the export needs, when it is used."""

from __future__ import annotations

import importlib
from typing import Any

from datamodules.errors import InputError


def require(module: str) -> Any:
    """Import onnx or onnxruntime.

    Raises:
        InputError: it is not installed, or cannot be imported.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == module
        why = "is not installed" if missing else f"cannot be imported ({' '.join(str(error).split())})"
        raise InputError(f'{module} {why}: pip install "ifmmin[export]".') from error
