"""Files that others made, one an utterance, in one folder."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from datamodules.errors import InputError
from datamodules.extraction.extractor import Absent
from datamodules.text import printable

MODELS = "IFMMIN_MODELS"
"""Environment variable: folders in which files and folders of weights are looked for, separated as in PATH."""


class ReadyMade:
    """The files ``<utterance>.<suffix>`` of a folder.

    Args:
        folder: they are in, or in folders below where ids have slashes.
        suffix: with its dot.
        who: reads them, for the messages.

    Raises:
        InputError: the folder is not there or has none of them.
    """

    def __init__(self, folder: str, suffix: str, who: str) -> None:
        self.folder, self.suffix, self.who = Path(folder), suffix, who
        shown = printable(folder)
        if not self.folder.is_dir():
            raise InputError(f"{who}: {shown} is no folder; its option folder must name one of *{suffix} files.")
        self.paths = sorted(path for path in self.folder.rglob(f"*{suffix}") if path.is_file())
        if not self.paths:
            raise InputError(f"{who}: {shown} has no *{suffix} files.")

    @property
    def name(self) -> str:
        """Stem of the feature file: the folder's name, in letters that every system takes."""
        return file_stem(self.folder.resolve().name)

    def of(self, utterance: str) -> Path:
        """The file of an utterance.

        Raises:
            Absent: there is none.
            InputError: its id leads out of the folder.
        """
        path = self.folder / f"{utterance}{self.suffix}"
        if ".." in Path(utterance).parts or Path(utterance).is_absolute():
            raise InputError(f"{self.who}: the id {printable(utterance)!r} leads out of {printable(self.folder)}.")
        if not path.is_file():
            raise Absent(f"no {self.suffix.lstrip('.')} file")
        return path

    def sha256(self) -> str:
        """Digest of all files' names and contents."""
        total = hashlib.sha256()
        for path in self.paths:
            total.update(path.relative_to(self.folder).as_posix().encode("utf-8", "surrogateescape") + b"\0")
            total.update(bytes.fromhex(sha256_of(path)))
        return total.hexdigest()


def file_stem(text: str) -> str:
    """``text`` as the stem of a feature file: letters, digits and ``. _ + -``, not more than a hundred.

    >>> file_stem("my faces (new)"), file_stem("..")
    ('my-faces-new', 'features')
    """
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", text).strip(".-_+")[:100] or "features"


def weights_path(model: str) -> Path:
    """Where a file or folder of weights is: as it is written, or in a folder of :data:`MODELS`.

    Provenance holds no folders: this is how weights of a checkpoint's extractors are found on another machine.
    """
    given = Path(model)
    if given.exists():
        return given
    for folder in filter(None, os.environ.get(MODELS, "").split(os.pathsep)):
        for found in (Path(folder) / given, Path(folder) / given.name):
            if given.name and found.exists():
                return found
    return given


def sha256_of(path: Path) -> str:
    """Digest of a file's content."""
    total = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            total.update(block)
    return total.hexdigest()
