"""Memory that is free in this process: kept for the next batch, or returned to the system."""

from __future__ import annotations

import ctypes
import mmap
import sys
from pathlib import Path

# Functions and numbers of glibc's allocator; other systems keep and return memory as they think best.
_GLIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3

_STATUS = Path("/proc/self/statm")

LARGEST_PROCESS = 1_420_000_000
"""Bytes above which a process returns what it does not use: one more batch of IEMOCAP's lengths stays below 1.5 GB."""

SURPLUS = 2**27
"""Bytes by which a process above that must have grown since the last time before it returns anything again."""


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


class SurplusMemory:
    """Keeps a process that takes tensors of ever new sizes from growing.

    Such tensors leave gaps that few later ones fit. To return them after every batch would cost a tenth of
    the time, since the next batch takes about as much again: so as rarely as the promised size allows.

    Args:
        allowed: bytes that the process may take beyond :data:`LARGEST_PROCESS`.
    """

    def __init__(self, allowed: float = 0.0) -> None:
        self._limit = LARGEST_PROCESS + allowed
        self._least: int | None = None

    def give_back(self) -> None:
        """Return free memory if the process is too large and has grown since it did so the last time."""
        resident = resident_memory()
        if self._least is None or (resident > self._limit and resident - self._least > SURPLUS):
            return_free_memory()
            self._least = resident_memory()


def resident_memory() -> int:
    """Bytes of memory that this process occupies; 0 where the system does not tell."""
    try:
        with _STATUS.open("rb", buffering=0) as status:  # asked before every batch: text and buffers would take longer
            return int(status.read().split()[1]) * mmap.PAGESIZE
    except OSError:
        return 0
