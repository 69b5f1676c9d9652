"""The frozen stage-1 encoders that teach stage 2."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from datamodules.batch import Batch
from datamodules.errors import InputError
from ifmmin.encoders import ModalityEncoders

LARGEST_MEMORY = 2**26
"""Bytes of embeddings that a teacher holds in memory, some 43,000 utterances; more of them lie in a temporary file."""


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
            os.posix_fallocate(self._file.fileno(), 0, count * self._size)
        except OSError as error:
            raise InputError(
                f"{tempfile.gettempdir()}: no room for {count * self._size / 1e9:.1f} GB of the teacher's embeddings "
                f"({error.strerror}); free some, or set TMPDIR to a folder on another disk."
            ) from error

    def __setitem__(self, index: Tensor, rows: Tensor) -> None:
        """Write ``rows`` [n, *shape] at the positions ``index`` [n]."""
        stored = rows.cpu().contiguous().view(torch.uint8).numpy()
        for position, row in zip(index.tolist(), stored, strict=True):
            os.pwrite(self._file.fileno(), row, position * self._size)

    def __getitem__(self, index: Tensor) -> Tensor:
        """The rows [n, *shape] at the positions ``index`` [n]."""
        rows = self._blank.new_empty(len(index), *self._blank.shape[1:], device="cpu")
        stored = rows.view(torch.uint8).numpy()
        for position, row in zip(index.tolist(), stored, strict=True):
            os.preadv(self._file.fileno(), [row], position * self._size)
        return rows.to(self._blank.device)


class Teacher(nn.Module):
    """Stage-1 encoders, frozen and always in eval mode.

    What they say of an utterance never changes, so ``remember`` computes it once per run.

    Args:
        encoders: of the stage-1 architecture; their weights are loaded by the owner.
    """

    def __init__(self, encoders: ModalityEncoders) -> None:
        super().__init__()
        self.encoders = encoders
        self.requires_grad_(False)
        self.eval()
        # [utterances, 3, E] and [3, E]; no buffers: they are not part of a checkpoint.
        self._memory: Tensor | FileRows | None = None
        self._absent: Tensor | None = None

    def train(self, mode: bool = True) -> Teacher:
        """Stay in eval mode, whatever the owner does."""
        return super().train(False)

    @torch.no_grad()
    def remember(self, batches: Iterable[Batch], utterances: int) -> None:
        """Embed complete utterances once; later calls with them look the result up.

        Args:
            batches: every utterance once, in an order that does not depend on the epoch.
            utterances: the size of the corpus, above every ``Batch.index``.

        Raises:
            InputError: there are more than memory may hold, and no room for them on disk.
        """
        self.forget()
        weight = next(self.parameters())
        shape = (3, self.encoders.embedding_dim)
        fits = utterances * weight.new_empty(shape).nbytes <= LARGEST_MEMORY
        memory = weight.new_zeros(utterances, *shape) if fits else FileRows(utterances, shape, weight)
        for batch in batches:
            batch = batch.to(weight.device, weight.dtype)
            memory[batch.index] = self.encoders(batch.complete())
        self._memory, self._absent = memory, self.encoders.absent()

    def forget(self) -> None:
        """Compute from now on, until ``remember`` is called again."""
        self._memory = self._absent = None

    @torch.no_grad()
    def complete(self, batch: Batch) -> Tensor:
        """[B, 3, E]: the embeddings of each row's utterance with nothing missing."""
        stored = self.encoders(batch.complete()) if self._memory is None else self._memory[batch.index]
        complete: Tensor = stored[batch.row]
        return complete

    @torch.no_grad()
    def absent_part(self, batch: Batch) -> Tensor:
        """[B, 3, E]: true embeddings of what is absent, those of zero frames of what is present."""
        absent = self.encoders.absent() if self._absent is None else self._absent
        return torch.where(batch.present[..., None], absent, self.complete(batch))
