"""Memory of the command line's own process: kept for the next batch, or returned to the system.

A program may tune its allocator, a library must not: only the command line and the benchmarks use this module.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from pathlib import Path

import lightning as L
from lightning.pytorch.callbacks import Callback

from datamodules.base import DEFAULT_BUDGET_GB, EmotionDataModule

# Functions and numbers of glibc's allocator; other systems keep and return memory as they see fit.
_GLIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3

_STATUS = Path("/proc/self/statm")

LARGEST_PROCESS = 1_420_000_000
"""Bytes above which a process returns what it does not use: one more batch of IEMOCAP's lengths stays below 1.5 GB."""

SURPLUS = 2**27
"""Bytes by which a process above that must have grown since the last trim before it trims again."""


def keep_free_memory() -> None:
    """Keep freed memory in the process for the next step.

    A training step frees some hundred megabytes that the next one takes again. By default the allocator returns them
    to the system each time, which then has to clear every page.
    """
    if _GLIBC is not None and hasattr(_GLIBC, "mallopt"):
        _GLIBC.mallopt(_MMAP_THRESHOLD, 2**30)
        _GLIBC.mallopt(_TRIM_THRESHOLD, 2**31 - 1)


def trim() -> None:
    """Return freed memory to the system."""
    if _GLIBC is not None and hasattr(_GLIBC, "malloc_trim"):
        _GLIBC.malloc_trim(0)


def resident_memory() -> int:
    """Bytes of memory that this process occupies; 0 if the system does not tell."""
    try:
        with _STATUS.open("rb", buffering=0) as status:  # before every batch: text and buffers would take longer
            return int(status.read().split()[1]) * mmap.PAGESIZE
    except OSError:
        return 0


class MemoryCap(Callback):
    """Caps the memory that a run keeps, 1.5 GB at the datamodule's default budget.

    Tensors of varying size fragment the heap. Trimming after every batch costs about 10 % of an epoch, so this trims
    only above the limit, and only after the process has grown again.
    """

    def __init__(self) -> None:
        self._limit = float(LARGEST_PROCESS)
        self._least: int | None = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Keep freed memory, and trim after batches."""
        keep_free_memory()
        datamodule = getattr(trainer, "datamodule", None)
        if isinstance(datamodule, EmotionDataModule):
            self.watch(datamodule)

    def watch(self, datamodule: EmotionDataModule) -> None:
        """Trim after the batches of a datamodule; its budget beyond the default raises the limit."""
        self._limit = LARGEST_PROCESS + 1e9 * max(0.0, datamodule.memory_budget_gb - DEFAULT_BUDGET_GB)
        datamodule.after_batch = self.after_batch

    def after_batch(self) -> None:
        """Trim if the process is above the limit and has grown since the last time."""
        resident = resident_memory()
        if self._least is None or (resident > self._limit and resident - self._least > SURPLUS):
            trim()
            self._least = resident_memory()
