"""How the command line starts its own process: what must be settled before PyTorch is imported."""

from __future__ import annotations

import gc
import io
import logging
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it tells of a home that cannot be written


def settle() -> None:
    """Have a program find what it takes for granted: standard streams, and a current folder.

    Streams that are closed lead nowhere; else the next file that is opened would be written to by whoever prints.
    Letters that a terminal's encoding lacks are printed as escapes: a result must not be lost to them.

    Raises:
        SystemExit: the current folder was deleted, in which not even PyTorch can be imported.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is this one
    sys.stdin = sys.stdin or io.TextIOWrapper(io.FileIO(0, closefd=False))
    sys.stdout = sys.stdout or io.TextIOWrapper(io.FileIO(1, "w", closefd=False))
    sys.stderr = sys.stderr or io.TextIOWrapper(io.FileIO(2, "w", closefd=False))
    try:
        Path.cwd()
    except OSError:
        print("error: the current folder was deleted; go to another one.", file=sys.stderr)
        raise SystemExit(1) from None
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
        with _torchmetrics_without("transformers"):
            yield
    finally:
        gc.freeze()
        if collecting:
            gc.enable()


@contextmanager
def _torchmetrics_without(package: str) -> Iterator[None]:
    """Have torchmetrics take ``package`` for not installed, if it is imported meanwhile.

    It would import transformers, which takes seconds, for text metrics that nothing here computes. What asks for the
    package itself gets it.
    """
    from lightning_utilities.core.imports import RequirementCache

    check = RequirementCache.__bool__

    def checked(cache: RequirementCache) -> bool:
        if re.match(rf"{package}\b", cache.requirement or ""):
            cache.available, cache.message = False, f"{package} is left out here"
        return check(cache)

    RequirementCache.__bool__ = checked  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        RequirementCache.__bool__ = check  # type: ignore[method-assign]
