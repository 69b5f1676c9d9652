"""Memory that is free in this process: kept for the next batch, or returned to the system."""

from __future__ import annotations

import ctypes
import sys

# Functions and numbers of glibc's allocator; other systems keep and return memory as they think best.
_GLIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3


def keep_free_memory() -> None:
    """Have the process keep what it frees, to be used again.

    A training step frees the same some hundred megabytes that the next one takes. Left alone, the allocator
    returns them to the system each time, which then has to clear every page of them again.
    """
    if _GLIBC is not None and hasattr(_GLIBC, "mallopt"):
        _GLIBC.mallopt(_MMAP_THRESHOLD, 2**30)
        _GLIBC.mallopt(_TRIM_THRESHOLD, 2**31 - 1)


def return_free_memory() -> None:
    """Return to the system what was freed but is kept for later: after buffers of many sizes, hundreds of megabytes."""
    if _GLIBC is not None and hasattr(_GLIBC, "malloc_trim"):
        _GLIBC.malloc_trim(0)
