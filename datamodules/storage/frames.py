"""The frames of one modality of a corpus: held in memory, or read from their file whenever they are needed.

Both forms give the same bits. On disk almost every utterance is one contiguous block of the HDF5 file, as h5py
writes arrays unless told otherwise; such a block is read straight into the batch, past HDF5, which would take
longer to find the dataset than to read it. What is read so lies in the system's page cache, not in the process.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from io import FileIO
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from datamodules.errors import CorpusError
from datamodules.storage.features import Entries, FeatureFile, FloatArray, not_finite, open_features, unreadable
from datamodules.storage.problems import Problem, raise_first


class Frames(Protocol):
    """One modality of N utterances."""

    @property
    def offsets(self) -> Tensor:
        """int64 [N+1]: utterance i has ``offsets[i + 1] - offsets[i]`` frames, 0 where it is not there."""

    @property
    def dim(self) -> int:
        """The number D of values in a frame; 0 where the modality is not there at all."""

    def gather(self, rows: Tensor, longest: int) -> Tensor:
        """float32 [n, longest, D]: utterances ``rows`` [n]; behind the last frame of each stands anything."""

    def utterance(self, row: int) -> Tensor:
        """float32 [T, D]: the frames of one utterance."""

    def announce(self, rows: Tensor) -> None:
        """Say that utterances ``rows`` [n] are gathered next, so that the disk brings them in the meantime."""


class RaggedFrames(NamedTuple):
    """Frames in memory, every frame kept once, as stored.

    Attributes:
        values: float32 or float16 [F, D], the frames of all utterances, one utterance after the other.
        offsets: int64 [N+1]; utterance i is ``values[offsets[i]:offsets[i+1]]``, empty where it is not there.
    """

    values: Tensor
    offsets: Tensor

    @property
    def dim(self) -> int:
        """The number D of values in a frame; 0 where the modality is not there at all."""
        return self.values.shape[1]

    def gather(self, rows: Tensor, longest: int) -> Tensor:
        """float32 [n, longest, D]: utterances ``rows`` [n]; behind the last frame of each stands anything."""
        shape = (len(rows), longest, self.dim)
        if not len(self.values):
            return torch.empty(shape)
        position = (self.offsets[rows][:, None] + torch.arange(longest)).clamp_(max=len(self.values) - 1)
        return self.values.index_select(0, position.flatten()).view(shape).float()

    def utterance(self, row: int) -> Tensor:
        """float32 [T, D]: the frames of one utterance."""
        return self.values[self.offsets[row] : self.offsets[row + 1]].float()

    def announce(self, rows: Tensor) -> None:
        """Nothing: they are here."""


class StoredFrames:
    """Frames on disk.

    Args:
        path: the feature file.
        utterances: N ids.
        entries: what the file holds of them.

    Raises:
        CorpusError: here and whenever frames are read: the file cannot be read or has changed.
    """

    def __init__(self, path: Path, utterances: Sequence[str], entries: Entries) -> None:
        self.path = path
        self.utterances = utterances
        self.dim = entries.width
        self.dtype = entries.dtype
        self.offsets = torch.from_numpy(np.concatenate([[0], entries.lengths.cumsum()]))
        self._lengths = entries.lengths
        self._positions = entries.positions
        self._open_files()
        self._stamp = self._current_stamp()

    def _open_files(self) -> None:
        try:
            self._raw = FileIO(self.path)
        except OSError as error:
            raise CorpusError(f"{self.path}: cannot be opened ({error.strerror}); copy it again.") from error
        # Opened by whichever process needs it, because HDF5 does not survive a fork.
        self._hdf5: tuple[int, FeatureFile] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the open files, for a worker that is not a fork."""
        return {name: value for name, value in self.__dict__.items() if name not in ("_raw", "_hdf5")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Open the file again."""
        self.__dict__.update(state)
        self._open_files()

    def gather(self, rows: Tensor, longest: int) -> Tensor:
        """float32 [n, longest, D]: utterances ``rows`` [n]; behind the last frame of each stands anything."""
        self._refuse_change()
        gathered = torch.empty(len(rows), longest, self.dim)
        values = gathered.numpy()
        for slot, row in enumerate(rows.tolist()):
            self._read(row, values[slot, : self._lengths[row]])
        return gathered

    def utterance(self, row: int) -> Tensor:
        """float32 [T, D]: the frames of one utterance."""
        self._refuse_change()
        frames = np.empty((self._lengths[row], self.dim), dtype=np.float32)
        self._read(row, frames)
        return torch.from_numpy(frames)

    def announce(self, rows: Tensor) -> None:
        """Have the system fetch utterances ``rows`` [n] while others are worked on; not all systems can."""
        if not hasattr(os, "posix_fadvise"):
            return
        for row in rows.tolist():
            if self._positions[row] >= 0:
                size = self._lengths[row] * self.dim * self.dtype.itemsize
                os.posix_fadvise(self._raw.fileno(), self._positions[row], size, os.POSIX_FADV_WILLNEED)

    def check(self) -> None:
        """Read every frame once.

        Raises:
            CorpusError: some cannot be read, or are not finite.
        """
        self._look_over(np.empty((int(self._lengths.max(initial=0)), self.dim), dtype=self.dtype), keep=False)

    def in_memory(self) -> RaggedFrames:
        """All frames, as stored.

        Raises:
            CorpusError: some cannot be read, or are not finite.
        """
        values = np.empty((int(self.offsets[-1]), self.dim), dtype=self.dtype)
        self._look_over(values, keep=True)
        return RaggedFrames(torch.from_numpy(values), self.offsets)

    def _look_over(self, values: FloatArray, keep: bool) -> None:
        """Read every utterance into ``values``, behind the one before it or, unless ``keep``, on top of it."""
        damaged, strange = [], []
        end = 0
        for row, length in enumerate(self._lengths.tolist()):
            start = end if keep else 0
            end = start + length
            if not self._try_to_read(row, values[start:end]):
                damaged.append(self.utterances[row])
            elif not np.isfinite(values[start:end]).all():
                strange.append(self.utterances[row])
        self._hdf5 = None
        raise_first(unreadable(self.path, damaged) + not_finite(self.path, strange))

    def _read(self, row: int, frames: FloatArray) -> None:
        if not self._try_to_read(row, frames):
            raise_first(unreadable(self.path, [self.utterances[row]]))

    def _try_to_read(self, row: int, frames: FloatArray) -> bool:
        """Read an utterance into ``frames``, float32 or as stored, contiguous and of its shape."""
        if not len(frames):
            return True
        if self._positions[row] < 0:
            return self._through_hdf5().read_into(self.utterances[row], frames)
        stored: Any = frames if frames.dtype == self.dtype else np.empty_like(frames, dtype=self.dtype)
        try:
            whole: bool = os.preadv(self._raw.fileno(), [stored], self._positions[row]) == stored.nbytes
        except OSError:
            return False
        if stored is not frames:
            frames[...] = stored
        return whole

    def _through_hdf5(self) -> FeatureFile:
        if self._hdf5 is None or self._hdf5[0] != os.getpid():
            file = open_features(self.path)
            if isinstance(file, Problem):
                raise CorpusError(str(file))
            self._hdf5 = (os.getpid(), file)
        return self._hdf5[1]

    def _current_stamp(self) -> tuple[int, int]:
        status = os.fstat(self._raw.fileno())
        return status.st_size, status.st_mtime_ns

    def _refuse_change(self) -> None:
        if self._current_stamp() != self._stamp:
            raise CorpusError(f"{self.path}: was changed while it was in use; leave it alone and start again.")
