"""Old import paths: they work for one release and warn."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable


def moved(old: str, *new: str) -> Callable[[str], object]:
    """Make the ``__getattr__`` of a module whose names have moved.

    Args:
        old: the module's former name.
        new: the modules that its names are in now.
    """

    def find(name: str) -> object:
        for home in new:
            module = importlib.import_module(home)
            if not name.startswith("__") and hasattr(module, name):
                warnings.warn(f"{old}.{name} is now {home}.{name}; the old path goes in 0.3", FutureWarning, 2)
                return getattr(module, name)
        raise AttributeError(f"module {old!r} has no attribute {name!r}")

    return find
