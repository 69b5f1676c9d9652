"""One feature file: HDF5, one dataset [frames, width] per utterance.

A corpus holds thousands of small datasets, so the time to read it is the time h5py takes per dataset:
its low-level interface takes a fraction of what the high-level one does.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
from h5py import h5d, h5f, h5p, h5s, h5t

from datamodules.storage.problems import Problem, about

FloatArray = npt.NDArray[np.float32] | npt.NDArray[np.float16]

_SINGLE, _HALF = h5t.py_create(np.dtype(np.float32)), h5t.py_create(np.dtype(np.float16))

# What h5py raises for an entry that is damaged or not what it should be.
_H5_ERRORS = (OSError, ValueError, KeyError, TypeError, RuntimeError)


@dataclass(frozen=True)
class Entries:
    """What a file says it holds of N utterances, before any frame is read.

    Attributes:
        lengths: int64 [N], the number of frames, 0 where there is nothing to read.
        width: the number of values in a frame, 0 where no utterance has a frame.
        positions: int64 [N], the byte of the file where the frames begin, if they lie there as ``dtype``, one
            after the other; -1 where only HDF5 can read them.
        dtype: float16 where all frames are stored as such, otherwise float32: what they are kept as.
    """

    lengths: npt.NDArray[np.int64]
    width: int
    positions: npt.NDArray[np.int64]
    dtype: np.dtype[Any]

    @property
    def nbytes(self) -> int:
        """The bytes all frames take as ``dtype``."""
        return int(self.lengths.sum()) * self.width * self.dtype.itemsize

    @classmethod
    def none(cls, utterances: int) -> Entries:
        """Of a file that is not there."""
        return cls(np.zeros(utterances, np.int64), 0, np.full(utterances, -1), np.dtype(np.float32))


class FeatureFile:
    """An open feature file; use it in a ``with`` block."""

    def __init__(self, path: Path, file: Any) -> None:
        """Take over an open ``h5py.File``."""
        self.path = path
        self.names: list[str] = sorted(file)
        self._known = frozenset(self.names)
        self._file = file

    def __enter__(self) -> FeatureFile:
        """The file itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the file."""
        self._file.close()

    def entries(self, utterances: Sequence[str], complete: bool) -> tuple[Entries, list[Problem]]:
        """Look up utterances without reading their frames.

        Args:
            utterances: N ids.
            complete: whether an utterance that is missing or has no frames is a problem.

        Returns:
            what is there, and what is wrong; an utterance with a problem has nothing to read.
        """
        lengths, widths, positions = (np.zeros(len(utterances), dtype=np.int64) for _ in range(3))
        single, half = (np.zeros(len(utterances), dtype=np.bool_) for _ in range(2))
        absent, foreign, misshapen, empty = [], [], [], []
        for row, utterance in enumerate(utterances):
            if utterance not in self._known:
                absent.append(utterance)
                continue
            try:
                # Opened again to be read: kept open, the datasets of a corpus take hundreds of megabytes.
                dataset = h5d.open(self._file.id, utterance.encode())
                shape, kind, offset = dataset.shape, dataset.get_type(), dataset.get_offset()
            except _H5_ERRORS:
                foreign.append(utterance)
                continue
            if shape and shape[0] == 0:
                empty.append(utterance)
            elif not shape or len(shape) != 2 or shape[1] == 0:
                misshapen.append(utterance)
            else:
                lengths[row], widths[row] = shape
                single[row], half[row] = kind == _SINGLE, kind == _HALF
                # HDF5 gives no offset where the frames are in chunks, compressed, or in another file.
                positions[row] = -1 if offset is None else offset

        there = lengths > 0
        width = Counter(widths[there].tolist()).most_common(1)[0][0] if there.any() else 0
        odd = np.flatnonzero(there & (widths != width)).tolist()
        lengths[odd] = 0
        all_half = bool(there.any() and half[there].all())
        positions[~(half if all_half else single)] = -1
        problems = about(self.path, foreign, "not a readable dataset", "extract its features again")
        problems += about(self.path, misshapen, "not of the shape [frames, width]", "extract its features again")
        remedy = "extract all with the same extractor"
        odd_width = widths[odd[0]] if odd else 0
        names = [utterances[row] for row in odd]
        problems += about(self.path, names, f"frames of {odd_width} values where most have {width}", remedy)
        if complete:
            remedy = "extract its features, or take it out of the target files"
            problems += about(self.path, absent, "not in this file", remedy)
            problems += about(self.path, empty, "has no frames", remedy)
        return Entries(lengths, width, positions, np.dtype(np.float16 if all_half else np.float32)), problems

    def read_into(self, utterance: str, frames: FloatArray) -> bool:
        """Read an utterance into ``frames``, contiguous and of its shape; False where that cannot be done."""
        try:
            dataset = h5d.open(self._file.id, utterance.encode())
            # HDF5 would write beyond the end of a smaller array.
            if dataset.shape != frames.shape:
                return False
            dataset.read(h5s.ALL, h5s.ALL, frames)
        except _H5_ERRORS:
            return False
        return True

    def width(self) -> int:
        """The number of values in a frame of the first utterance that has any; 0 where none has."""
        widths = (self.entries([name], complete=False)[0].width for name in self.names)
        return next(filter(None, widths), 0)


def open_features(path: Path) -> FeatureFile | Problem:
    """Open a feature file for reading, or say why that cannot be done."""
    access = h5p.create(h5p.FILE_ACCESS)
    # HDF5 would keep a buffer of 64 KiB for every open dataset, more than a dataset here usually holds.
    access.set_sieve_buf_size(0)
    try:
        return FeatureFile(path, h5py.File(h5f.open(os.fsencode(path), h5f.ACC_RDONLY, access)))
    except FileNotFoundError:
        return Problem(path, "does not exist", "check the root folder and the feature name, or extract these features")
    except _H5_ERRORS as error:
        return Problem(path, f"not a whole HDF5 file ({error})", "copy it again")


def unreadable(path: Path, utterances: Sequence[str]) -> list[Problem]:
    """The problem of utterances for which :meth:`FeatureFile.read_into` gave False."""
    return about(path, utterances, "cannot be read: damaged, or not numbers", "extract its features again")


def not_finite(path: Path, utterances: Sequence[str]) -> list[Problem]:
    """The problem of utterances whose frames are not all finite."""
    return about(path, utterances, "has NaN or infinite values", "extract its features again, or leave it out")
