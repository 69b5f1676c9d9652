"""The frozen stage-1 encoders that teach stage 2."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from datamodules.batches.batch import Batch
from ifmmin.nn.encoders import ModalityEncoders
from ifmmin.pretraining.file_rows import FileRows

LARGEST_MEMORY = 2**26
"""Bytes of embeddings that a teacher keeps in memory, some 43,000 utterances; more go to a temporary file."""


class Teacher(nn.Module):
    """Stage-1 encoders, frozen and always in eval mode.

    Their embedding of an utterance never changes, so ``remember`` computes it once per run.

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
            InputError: there are more than fit in memory, and no room for them on disk.
        """
        self.forget()
        weight = next(self.parameters())
        shape = (3, self.encoders.embedding_dim)
        fits = utterances * weight.new_empty(shape).nbytes <= LARGEST_MEMORY
        memory = weight.new_zeros(utterances, *shape) if fits else FileRows(utterances, shape, weight)
        for batch in batches:
            batch = batch.to(weight.device, weight.dtype)
            memory[batch.index] = self.encoders(batch.unmasked())
        self._memory, self._absent = memory, self.encoders.absent()

    def forget(self) -> None:
        """Compute from now on, until ``remember`` is called again."""
        self._memory = self._absent = None

    @torch.no_grad()
    def targets(self, batch: Batch) -> Tensor:
        """[B, 3, E]: the embeddings of each row's utterance with nothing missing."""
        stored = self.encoders(batch.unmasked()) if self._memory is None else self._memory[batch.index]
        targets: Tensor = stored[batch.row]
        return targets

    @torch.no_grad()
    def absent_part(self, batch: Batch) -> Tensor:
        """[B, 3, E]: true embeddings of what is absent, those of zero frames of what is present."""
        absent = self.encoders.absent() if self._absent is None else self._absent
        return torch.where(batch.present[..., None], absent, self.targets(batch))
