"""A quick start: importing PyTorch and Lightning without garbage collection."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def imports(for_good: bool = False) -> Iterator[None]:
    """Import without garbage collection, which would search the hundred thousands of new objects again and again.

    Args:
        for_good: leave all objects there are out of later collections too, among them the long one at the end
            of the process. For a program's own start only: in a process with a history it would keep garbage.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if for_good:
            gc.freeze()
        if collecting:
            gc.enable()
