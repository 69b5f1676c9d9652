"""Features that others made, as NumPy files: for everything that has no extractor here."""

from __future__ import annotations

from typing import Any, Literal, cast

import numpy as np

from datamodules.errors import InputError
from datamodules.extraction.extractor import FloatArray, Reads, Words
from datamodules.extraction.extractors.ready_made import ReadyMade
from datamodules.text import printable


class Npy:
    """The array [T, D] of ``<utterance>.npy``, or [D] as one row; an utterance without a file is absent.

    Args:
        folder: of the files. Arrays of objects are refused: reading them would run code.
        modality: audio, visual or text.

    Raises:
        InputError: the folder has no such files, or the first of them is no array of numbers.
    """

    def __init__(self, folder: str, modality: str) -> None:
        self._files = ReadyMade(folder, ".npy", "npy")
        self.modality = cast(Literal["audio", "visual", "text"], modality)
        self.name = self._files.name
        self.reads = Reads("nothing", fps=0)
        first = self._files.paths[0]
        self.width = _array(first).shape[-1]
        if not self.width:
            raise InputError(f"npy: {printable(first)}: has no values.")

    def __call__(self, item: Words) -> FloatArray:
        """Read features [T, D] of an utterance.

        Raises:
            Absent: it has no file.
            InputError: the file is no array [T, D] of finite numbers.
        """
        path = self._files.of(item.utterance)
        found = np.atleast_2d(_array(path)).astype(np.float32)
        shown = printable(path)
        if found.shape[1] != self.width or not len(found):
            raise InputError(f"npy: {shown}: is {list(found.shape)}, not [T, {self.width}] with T at least 1.")
        if not np.isfinite(found).all():
            raise InputError(f"npy: {shown}: has values that are not finite.")
        return found

    def recipe(self) -> dict[str, Any]:
        """Digest of all files."""
        return {"sha256": self._files.sha256()}


def _array(path: Any) -> Any:
    """Open an array of numbers [T, D] or [D].

    Raises:
        InputError: the file holds something else.
    """
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, SyntaxError) as error:
        raise InputError(f"npy: {printable(path)}: cannot be read ({printable(error)}).") from error
    is_number = isinstance(found, np.ndarray) and found.dtype.kind in "fiub"
    if not is_number or found.ndim not in (1, 2):
        raise InputError(f"npy: {printable(path)}: is no array [T, D] of numbers.")
    return found
