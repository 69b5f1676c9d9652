"""How the command line starts its own process: what must be settled before PyTorch is imported."""

from __future__ import annotations

import gc
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


def large_pages() -> None:
    """Enable transparent huge pages in PyTorch's CPU allocator, unless the user has set it.

    A training step takes and frees hundreds of megabytes. PyTorch reads the variable once, when it makes its first
    tensor, which importing torchmetrics does.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def no_screen() -> None:
    """Have Matplotlib, which draws into files here, ignore a notebook's or a desktop's MPLBACKEND.

    Its import fails where that is a backend of another environment.
    """
    os.environ["MPLBACKEND"] = "agg"


def any_letters() -> None:
    """Have letters that the terminal's encoding lacks printed as escapes: a result must not be lost to them."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


@contextmanager
def imports() -> Iterator[None]:
    """Disable the garbage collector while importing: it would repeatedly scan some 100,000 new objects.

    All objects are then left out of later collections, among them the long one at the end of the process. For a
    program's own start only: in a process with a history it would keep garbage.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if collecting:
            gc.enable()
