"""Frames of one modality of a corpus: in memory, or read from their file on demand.

Both forms give the same bits. On disk almost every utterance is one contiguous block of the HDF5 file, as h5py
writes arrays by default. Such a block is read straight into the batch, because HDF5 takes longer to find the dataset
than to read it. The system caches what is read; the process does not grow.
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
from datamodules.storage.features import Entries, FeatureFile, FloatArray, open_features, report_bad_frames
from datamodules.storage.ids import EXACT, MatchRule
from datamodules.storage.odd import OddFrames
from datamodules.storage.problems import Problems, Strict


def read_at(file: Any, into: Any, position: int) -> int:
    """Read ``into.nbytes`` bytes at ``position``; the number of bytes read."""
    if hasattr(os, "preadv"):  # Unix: no shared file position, so workers and threads do not disturb each other
        return os.preadv(file.fileno(), [into], position)
    file.seek(position)
    return int(file.readinto(into))


class Frames(Protocol):
    """One modality of N utterances."""

    @property
    def offsets(self) -> Tensor:
        """int64 [N+1]: utterance i has ``offsets[i + 1] - offsets[i]`` frames, 0 if it is absent."""

    @property
    def dim(self) -> int:
        """Number D of values in a frame; 0 if the corpus lacks the modality."""

    def gather(self, indices: Tensor, longest: int) -> Tensor:
        """Gather utterances [n] as float32 [n, longest, D]; values past an utterance's last frame are undefined."""

    def utterance(self, index: int) -> Tensor:
        """Frames of one utterance: float32 [T, D]."""

    def prefetch(self, indices: Tensor) -> None:
        """Hint that utterances ``indices`` [n] will be gathered next."""


class RaggedFrames(NamedTuple):
    """Frames in memory, as stored.

    Attributes:
        values: float32 or float16 [F, D], the frames of all utterances, one utterance after the other.
        offsets: int64 [N+1]; utterance i is ``values[offsets[i]:offsets[i+1]]``, empty if it is absent.
    """

    values: Tensor
    offsets: Tensor

    @property
    def dim(self) -> int:
        """Number D of values in a frame; 0 if the corpus lacks the modality."""
        return self.values.shape[1]

    def gather(self, indices: Tensor, longest: int) -> Tensor:
        """Gather utterances [n] as float32 [n, longest, D]; values past an utterance's last frame are undefined."""
        shape = (len(indices), longest, self.dim)
        if not len(self.values):
            return torch.empty(shape)
        position = (self.offsets[indices][:, None] + torch.arange(longest)).clamp_(max=len(self.values) - 1)
        return self.values.index_select(0, position.flatten()).view(shape).float()

    def utterance(self, index: int) -> Tensor:
        """Frames of one utterance: float32 [T, D]."""
        return self.values[self.offsets[index] : self.offsets[index + 1]].float()

    def prefetch(self, indices: Tensor) -> None:
        """No-op: the frames are already in memory."""


class StoredFrames:
    """Frames on disk.

    Args:
        path: the feature file.
        utterances: N ids.
        entries: their shapes and positions in the file.
        match_ids: the rule by which ids are those of entries.
        in_folders: whether ids name groups of the file.

    Raises:
        CorpusError: here and whenever frames are read: the file cannot be read or has changed.
    """

    def __init__(
        self,
        path: Path,
        utterances: Sequence[str],
        entries: Entries,
        match_ids: MatchRule = EXACT,
        in_folders: bool = False,
    ) -> None:
        self.path = path
        self.utterances = utterances
        self.dim = entries.width
        self.dtype = entries.dtype
        self.offsets = torch.from_numpy(np.concatenate([[0], entries.lengths.cumsum()]))
        self._match_ids = match_ids
        self._in_folders = in_folders
        self._lengths = entries.lengths
        self._positions = entries.positions
        self._open_files()
        self._stamp = self._current_stamp()

    def _open_files(self) -> None:
        try:
            self._raw = FileIO(self.path)
        except OSError as error:
            raise CorpusError(f"{self.path}: cannot be opened ({error.strerror}); copy it again.") from error
        # Opened per process: HDF5 does not survive a fork.
        self._hdf5: tuple[int, FeatureFile] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the open files, for spawned workers."""
        return {name: value for name, value in self.__dict__.items() if name not in ("_raw", "_hdf5")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Open the file again."""
        self.__dict__.update(state)
        self._open_files()

    def gather(self, indices: Tensor, longest: int) -> Tensor:
        """Gather utterances [n] as float32 [n, longest, D]; values past an utterance's last frame are undefined."""
        self._refuse_change()
        gathered = torch.empty(len(indices), longest, self.dim)
        values = gathered.numpy()
        for slot, index in enumerate(indices.tolist()):
            self._read(index, values[slot, : self._lengths[index]])
        return gathered

    def utterance(self, index: int) -> Tensor:
        """Frames of one utterance: float32 [T, D]."""
        self._refuse_change()
        frames = np.empty((self._lengths[index], self.dim), dtype=np.float32)
        self._read(index, frames)
        return torch.from_numpy(frames)

    def prefetch(self, indices: Tensor) -> None:
        """Ask the system to read utterances ``indices`` [n] ahead, if it can."""
        if not hasattr(os, "posix_fadvise"):
            return
        for index in indices.tolist():
            if self._positions[index] >= 0:
                size = self._lengths[index] * self.dim * self.dtype.itemsize
                os.posix_fadvise(self._raw.fileno(), self._positions[index], size, os.POSIX_FADV_WILLNEED)

    def check(self, notes: Problems) -> None:
        """Read every frame once.

        Args:
            notes: collects what is odd about them.

        Raises:
            CorpusError: some cannot be read, or are not finite.
        """
        self._read_all(np.empty((int(self._lengths.max(initial=0)), self.dim), dtype=self.dtype), False, notes)

    def in_memory(self, notes: Problems) -> RaggedFrames:
        """Load all frames, as stored.

        Args:
            notes: collects what is odd about them.

        Raises:
            CorpusError: some cannot be read, or are not finite; there is not enough memory.
        """
        shape = (int(self.offsets[-1]), self.dim)
        try:
            values = np.empty(shape, dtype=self.dtype)
        except MemoryError as error:
            size = shape[0] * shape[1] * self.dtype.itemsize / 1e9
            raise CorpusError(
                f"{self.path}: no memory for {size:.1f} GB of frames; give a smaller --data.memory_budget_gb."
            ) from error
        self._read_all(values, True, notes)
        return RaggedFrames(torch.from_numpy(values), self.offsets)

    def _read_all(self, values: FloatArray, keep: bool, notes: Problems) -> None:
        """Read every utterance into ``values``, back to back if ``keep``, otherwise overwriting the previous one."""
        unreadable, not_finite = [], []
        odd = OddFrames()
        end = 0
        for index, length in enumerate(self._lengths.tolist()):
            start = end if keep else 0
            end = start + length
            if not self._try_to_read(index, values[start:end]):
                unreadable.append(self.utterances[index])
            elif not np.isfinite(values[start:end]).all():
                not_finite.append(self.utterances[index])
            else:
                odd.add(self.utterances[index], values[start:end])
        self._hdf5 = None
        odd.report(self.path, notes)
        report_bad_frames(self.path, unreadable, not_finite, Strict())

    def _read(self, index: int, frames: FloatArray) -> None:
        if not self._try_to_read(index, frames):
            report_bad_frames(self.path, [self.utterances[index]], [], Strict())

    def _try_to_read(self, index: int, frames: FloatArray) -> bool:
        """Read an utterance into ``frames``, float32 or as stored, contiguous and of its shape."""
        if not len(frames):
            return True
        if self._positions[index] < 0:
            return self._through_hdf5().read_into(self.utterances[index], frames)
        stored: Any = frames if frames.dtype == self.dtype else np.empty_like(frames, dtype=self.dtype)
        try:
            whole = bool(read_at(self._raw, stored, self._positions[index]) == stored.nbytes)
        except OSError:
            return False
        if stored is not frames:
            frames[...] = stored
        return whole

    def _through_hdf5(self) -> FeatureFile:
        if self._hdf5 is None or self._hdf5[0] != os.getpid():
            file = open_features(self.path, Strict(), self._match_ids, in_folders=self._in_folders)
            assert file is not None
            self._hdf5 = (os.getpid(), file)
        return self._hdf5[1]

    def _current_stamp(self) -> tuple[int, int]:
        status = os.fstat(self._raw.fileno())
        return status.st_size, status.st_mtime_ns

    def _refuse_change(self) -> None:
        if self._current_stamp() != self._stamp:
            raise CorpusError(f"{self.path}: was changed while it was in use; leave it alone and start again.")
