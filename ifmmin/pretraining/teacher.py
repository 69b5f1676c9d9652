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

    @torch.no_grad()
    def moments(self, batches: Iterable[Batch]) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each coordinate of the complete embeddings, over utterances that have it.

        Args:
            batches: every utterance once.

        Returns:
            two tensors [3, E]; the standard deviation is 1 where a coordinate does not vary.
        """
        weight = next(self.parameters())
        count = weight.new_zeros(3, 1, dtype=torch.float64)
        total = weight.new_zeros(3, self.encoders.embedding_dim, dtype=torch.float64)
        squares = torch.zeros_like(total)
        for batch in batches:
            whole = batch.to(weight.device, weight.dtype).unmasked()
            embeddings, known = self.targets(whole).double(), whole.available[..., None]
            count += known.sum(dim=0)
            total += (embeddings * known).sum(dim=0)
            squares += (embeddings.square() * known).sum(dim=0)
        mean = total / count.clamp(min=1)
        std = (squares / count.clamp(min=1) - mean.square()).clamp(min=0).sqrt()
        # Below float32's resolution a spread is rounding.
        std = std.where(std > 1e-6 * mean.abs().clamp(min=1e-6), 1.0)
        return mean.to(weight.dtype), std.to(weight.dtype)
