"""Import what only the export needs, when it is used."""

from __future__ import annotations

from typing import Any

from datamodules import optional


def require(module: str) -> Any:
    """Import onnx or onnxruntime.

    Raises:
        InputError: it is not installed, or cannot be imported.
    """
    return optional.require(module, 'pip install "ifmmin[export]"')
