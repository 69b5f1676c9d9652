"""One feature file: HDF5, one dataset [frames, width] per utterance.

A corpus has thousands of small datasets, so reading takes h5py's time per dataset; its low-level interface is several
times faster than the high-level one.
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

from datamodules.storage.problems import Problems

FloatArray = npt.NDArray[np.float32] | npt.NDArray[np.float16]

_SINGLE, _HALF = h5t.py_create(np.dtype(np.float32)), h5t.py_create(np.dtype(np.float16))

# Errors of h5py for an entry that is damaged or of another kind.
_H5_ERRORS = (OSError, ValueError, KeyError, TypeError, RuntimeError)


@dataclass(frozen=True)
class Entries:
    """Shapes and positions of N utterances in a file, before any frame is read.

    Attributes:
        lengths: int64 [N], the number of frames, 0 if there is nothing to read.
        width: the number of values in a frame, 0 if no utterance has a frame.
        positions: int64 [N], the byte of the file at which the frames begin, contiguous and of ``dtype``; -1 if only
            HDF5 can read them.
        dtype: what frames are kept as: float16 if all are stored as such, otherwise float32.
    """

    lengths: npt.NDArray[np.int64]
    width: int
    positions: npt.NDArray[np.int64]
    dtype: np.dtype[Any]

    @property
    def nbytes(self) -> int:
        """Bytes of all frames as ``dtype``."""
        return int(self.lengths.sum()) * self.width * self.dtype.itemsize

    @classmethod
    def none(cls, utterances: int) -> Entries:
        """Entries of a file that does not exist."""
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

    def entries(self, utterances: Sequence[str], require_all: bool, problems: Problems) -> Entries:
        """Look up utterances without reading their frames.

        Args:
            utterances: N ids.
            require_all: whether an utterance that is missing or has no frames is a problem.
            problems: collects what is wrong; an utterance with a problem has nothing to read.
        """
        lengths, widths, positions = (np.zeros(len(utterances), dtype=np.int64) for _ in range(3))
        single, half = (np.zeros(len(utterances), dtype=np.bool_) for _ in range(2))
        absent, foreign, misshapen, empty = [], [], [], []
        for index, utterance in enumerate(utterances):
            if utterance not in self._known:
                absent.append(utterance)
                continue
            try:
                # Reopened on read: thousands of open dataset handles cost hundreds of MB.
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
                lengths[index], widths[index] = shape
                single[index], half[index] = kind == _SINGLE, kind == _HALF
                # HDF5 gives no offset for frames in chunks, compressed, or in another file.
                positions[index] = -1 if offset is None else offset

        there = lengths > 0
        width = Counter(widths[there].tolist()).most_common(1)[0][0] if there.any() else 0
        odd = np.flatnonzero(there & (widths != width)).tolist()
        lengths[odd] = 0
        all_half = bool(there.any() and half[there].all())
        positions[~(half if all_half else single)] = -1
        again = "extract its features again"
        problems.add_if_any(self.path, foreign, "not a readable dataset", again)
        problems.add_if_any(self.path, misshapen, "not of the shape [frames, width]", again)
        odd_width = widths[odd[0]] if odd else 0
        names = [utterances[index] for index in odd]
        what = f"frames of {odd_width} values where most have {width}"
        problems.add_if_any(self.path, names, what, "extract all with the same extractor")
        if require_all:
            remedy = "extract its features, or take it out of the target files"
            problems.add_if_any(self.path, absent, "not in this file", remedy)
            problems.add_if_any(self.path, empty, "has no frames", remedy)
        return Entries(lengths, width, positions, np.dtype(np.float16 if all_half else np.float32))

    def read_into(self, utterance: str, frames: FloatArray) -> bool:
        """Read an utterance into ``frames``, contiguous and of its shape; False if it cannot be read."""
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
        """Number of values in a frame of the first utterance that has frames, 0 if none has."""
        for name in self.names:
            if width := self.entries([name], False, Problems()).width:
                return width
        return 0


def open_features(path: Path, problems: Problems) -> FeatureFile | None:
    """Open a feature file for reading; a problem and None if that cannot be done."""
    access = h5p.create(h5p.FILE_ACCESS)
    # HDF5 would keep a buffer of 64 KiB for every open dataset, more than a dataset here usually takes.
    access.set_sieve_buf_size(0)
    try:
        return FeatureFile(path, h5py.File(h5f.open(os.fsencode(path), h5f.ACC_RDONLY, access)))
    except FileNotFoundError:
        problems.add(path, "does not exist", "check the root folder and the feature name, or extract these features")
    except _H5_ERRORS as error:
        problems.add(path, f"not a whole HDF5 file ({error})", "copy it again")
    return None


def report_bad_frames(path: Path, unreadable: Sequence[str], not_finite: Sequence[str], problems: Problems) -> None:
    """Report utterances whose frames cannot be read, and those with NaN or infinite values."""
    remedy = "extract its features again"
    problems.add_if_any(path, unreadable, "cannot be read: damaged, or not numbers", remedy)
    problems.add_if_any(path, not_finite, "has NaN or infinite values", f"{remedy}, or leave it out")
