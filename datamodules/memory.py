"""Memory that is free in this process, returned to the system."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable

# A function of glibc's allocator; other systems return memory themselves or not at all.
_TRIM: Callable[[int], int] | None = (
    getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
)


def return_free_memory() -> None:
    """Return to the system what was freed but is kept for later: after buffers of many sizes, hundreds of megabytes."""
    if _TRIM is not None:
        _TRIM(0)
