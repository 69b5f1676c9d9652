"""Packages that only some users need, imported when they are."""

from __future__ import annotations

import importlib
from typing import Any

from datamodules.errors import InputError


def require(module: str, remedy: str) -> Any:
    """Import a module, or one inside a package.

    Args:
        module: its name.
        remedy: what to do where it is missing, without a full stop: ``pip install "ifmmin[hub]"``.

    Raises:
        InputError: it is not installed, or cannot be imported.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        missing = isinstance(error, ModuleNotFoundError) and error.name == package
        why = "is not installed" if missing else f"cannot be imported ({' '.join(str(error).split())})"
        raise InputError(f"{package} {why}: {remedy}.") from error
