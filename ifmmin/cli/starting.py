"""How a program starts: what has to be settled before PyTorch is there."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager


def large_pages() -> None:
    """Have PyTorch ask for pages of 2 MB for tensors at least as large, where Linux gives them to those who ask.

    A training step takes and frees hundreds of megabytes; what was returned to the system meanwhile comes back in
    few steps instead of a hundred thousand. PyTorch looks for this variable once, when it makes its first tensor,
    which importing torchmetrics does: so for a program's own start. What the user has set stays.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


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
