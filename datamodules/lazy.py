"""Re-exports that are imported on first use."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping


def lazy(package: str, homes: Mapping[str, str]) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """Make ``__getattr__`` and ``__dir__`` of a package whose names are imported on first use.

    Args:
        package: the package's name.
        homes: the module of each name, relative to the package.

    >>> get, names = lazy("datamodules", {"Batch": "batches.batch"})
    >>> get("Batch").__name__, names()
    ('Batch', ['Batch'])
    """

    def get(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{homes[name]}"), name)

    return get, lambda: sorted(homes)
