"""Rows of one shape in a temporary file."""

from __future__ import annotations

import os
import tempfile

import torch
from torch import Tensor

from datamodules.errors import InputError
from datamodules.storage.frames import read_at


class FileRows:
    """Rows of one shape in a temporary file that vanishes with the process, to read and write as those of a tensor.

    Args:
        count: how many; the disk space is taken at once.
        shape: of a row.
        like: rows have its dtype and come back on its device.

    Raises:
        InputError: there is no room for them.
    """

    def __init__(self, count: int, shape: tuple[int, ...], like: Tensor) -> None:
        self._blank = like.new_empty(0, *shape)
        self._size = like.new_empty(shape).nbytes
        try:
            self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - open as long as the rows are needed
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(self._file.fileno(), 0, count * self._size)
            else:  # macOS and Windows: a full disk shows when rows are written
                self._file.truncate(count * self._size)
        except OSError as error:
            raise InputError(
                f"{tempfile.gettempdir()}: no room for {count * self._size / 1e9:.1f} GB of the teacher's embeddings "
                f"({error.strerror}); free some, or set TMPDIR to a folder on another disk."
            ) from error

    def __setitem__(self, index: Tensor, rows: Tensor) -> None:
        """Write ``rows`` [n, *shape] at the positions ``index`` [n]."""
        stored = rows.cpu().contiguous().view(torch.uint8).numpy()
        for position, row in zip(index.tolist(), stored, strict=True):
            if hasattr(os, "pwrite"):
                os.pwrite(self._file.fileno(), row, position * self._size)
            else:  # Windows
                self._file.seek(position * self._size)
                self._file.write(row)

    def __getitem__(self, index: Tensor) -> Tensor:
        """The rows [n, *shape] at the positions ``index`` [n]."""
        rows = self._blank.new_empty(len(index), *self._blank.shape[1:], device="cpu")
        stored = rows.view(torch.uint8).numpy()
        for position, row in zip(index.tolist(), stored, strict=True):
            read_at(self._file, row, position * self._size)
        return rows.to(self._blank.device)
