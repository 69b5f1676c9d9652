"""The folder of an imported corpus: made beside its place, and put there whole."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from datamodules.errors import InputError
from datamodules.files import locked
from datamodules.storage.description import read_description
from datamodules.text import printable

FACT = "import"
"""Name under which ``corpus.json`` says what a corpus was imported from."""

_BLOCK = 1 << 20


def sha256_of(path: Path, done: Callable[[int], None] = lambda size: None) -> str:
    """Digest of a file's content.

    Args:
        path: of the file.
        done: told the bytes read, again and again.

    Raises:
        OSError: it cannot be read.
    """
    total = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            total.update(block)
            done(len(block))
    return total.hexdigest()


def imported(out: Path) -> dict[str, Any] | None:
    """What a corpus says it was imported from; None if ``out`` is no imported corpus.

    Raises:
        CorpusError: its ``corpus.json`` is damaged.
    """
    found = read_description(out) if out.is_dir() else None
    said = None if found is None else found.facts.get(FACT)
    return said if isinstance(said, dict) else None


def is_there(out: Path, made: Mapping[str, Any] | None) -> bool:
    """Whether ``out`` is the corpus that an import would make.

    Args:
        out: its place.
        made: what decides about the import, as :func:`imported` has it, or a part of it; None: it cannot be told.

    Raises:
        InputError: there is something else.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    shown = printable(out)
    if not out.is_dir():
        raise InputError(f"{shown}: is not a folder; name another one.")
    said = imported(out)
    if made is not None and said is not None and all(said.get(name) == value for name, value in made.items()):
        return True
    raise InputError(f"{shown}: holds something else already; name another folder, or remove it.")


@contextmanager
def made_whole(out: Path) -> Iterator[Path]:
    """Give an empty folder beside ``out``, which takes the place of ``out`` when the block ends without an error.

    What a killed import left is removed.

    Raises:
        InputError: another import writes to ``out``.
        OSError: the folder cannot be written.
    """
    place = out.absolute()
    beside = place.with_name(f".{place.name}.import")
    beside.mkdir(parents=True, exist_ok=True)
    new = beside / "new"
    try:
        with locked(beside, "import"):
            try:
                shutil.rmtree(new, ignore_errors=True)
                new.mkdir()
                yield new
                if place.exists():
                    place.rmdir()  # it is empty
                new.rename(place)
            finally:
                shutil.rmtree(new, ignore_errors=True)
    finally:
        with suppress(OSError):  # another import holds it
            beside.rmdir()
