"""Batch that every model reads."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from datamodules.conditions import per_modality


@dataclass(eq=False)  # not frozen: Lightning rebuilds a batch when it changes its precision
class Batch:
    """N stored utterances, and B rows that each read one of them with some modalities present.

    In training there is one row per utterance. In evaluation each utterance is read by several
    rows, one per condition, so that a model can encode it once and answer them all.

    Padding is zero and follows the last frame. A length of 0 means that the corpus lacks this modality of this
    utterance.

    Attributes:
        frames: three float tensors [N, T_m, D_m], padded, in the order audio, visual, text; [K_m, T_m, D_m]
            with ``stored``. For a model with ``needs.steps`` these are the pooled steps.
        lengths: int64 [N, 3], the number of true frames.
        index: int64 [N], the utterance's position in its corpus.
        labels: [N], int64 class numbers, -1 where unknown, or float32 values, NaN where unknown.
        utterances: N utterance ids.
        row: int64 [B], the stored utterance each row reads.
        present: bool [B, 3], what each row may see.
        stored: three int64 tensors [K_m], ascending, the utterances whose frames are in the batch; None: all N.
            Training batches of a model without ``needs.hidden_frames`` store only what their rows may see.
        soft_labels: float32 [N, C], the probability of each class, of a corpus with soft labels; otherwise None.
        turn: int64 [N, 3], for a model with ``needs.turns``; otherwise None. The chain, a number unique within the
            corpus: the turns of one speaker in one dialogue. The position in it, 0, 1, ... in order of time among the
            utterances of the split. The step since the speaker's previous turn, in turns, 0 for the first of a chain.
        reading: int64 [B], where utterances are read more than once: the rows of a chain with equal numbers are one
            reading of it, in evaluation those of one condition. None: each utterance is read once.
        shown: where a pattern loses frames or adds noise (:mod:`datamodules.batches.patterns`): the frames as rows see
            them, shaped as ``frames``, which are then the whole ones. None: rows see ``frames``.
    """

    frames: tuple[Tensor, Tensor, Tensor]
    lengths: Tensor
    index: Tensor
    labels: Tensor
    utterances: list[str]
    row: Tensor
    present: Tensor
    stored: tuple[Tensor, Tensor, Tensor] | None = None
    soft_labels: Tensor | None = None
    turn: Tensor | None = None
    reading: Tensor | None = None
    shown: tuple[Tensor, Tensor, Tensor] | None = None

    def __len__(self) -> int:
        """Number of rows B."""
        return len(self.row)

    @property
    def label(self) -> Tensor:
        """Label [B] of each row."""
        return self.labels[self.row]

    @property
    def targets(self) -> Tensor:
        """What a training loss compares with, of each stored utterance: soft labels [N, C], or labels [N]."""
        return self.labels if self.soft_labels is None else self.soft_labels

    @property
    def target(self) -> Tensor:
        """:attr:`targets` of each row."""
        return self.targets[self.row]

    @property
    def available(self) -> Tensor:
        """Bool [N, 3]: what the corpus has of each utterance."""
        return self.lengths > 0

    def unmasked(self) -> Batch:
        """Show the same utterances, one row each, with all that the corpus has of them, no frame lost or noisy."""
        row = torch.arange(len(self.lengths), device=self.lengths.device)
        return replace(self, row=row, present=self.available, reading=None, shown=None)

    def complete(self) -> Batch:
        """Former name of :meth:`unmasked`."""
        warnings.warn("Batch.complete() is now Batch.unmasked(); the old name goes in 0.3", FutureWarning, stacklevel=2)
        return self.unmasked()

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None, non_blocking: bool = True) -> Batch:
        """Move every tensor to ``device``, and the frames to ``dtype``."""
        # Copies from a GPU must block, or the CPU could read the tensor too early.
        non_blocking = non_blocking and torch.device(device).type == "cuda"
        moved = self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))
        if dtype is None:
            return moved
        cast = replace(moved, frames=per_modality(frames.to(dtype) for frames in moved.frames))
        return cast if cast.shown is None else replace(cast, shown=per_modality(each.to(dtype) for each in cast.shown))

    def pin_memory(self) -> Batch:
        """Copy every tensor to page-locked memory, for asynchronous copies to a GPU."""
        return self._map(Tensor.pin_memory)

    def _map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        return Batch(
            frames=per_modality(map(change, self.frames)),
            lengths=change(self.lengths),
            index=change(self.index),
            labels=change(self.labels),
            utterances=self.utterances,
            row=change(self.row),
            present=change(self.present),
            stored=None if self.stored is None else per_modality(map(change, self.stored)),
            soft_labels=None if self.soft_labels is None else change(self.soft_labels),
            turn=None if self.turn is None else change(self.turn),
            reading=None if self.reading is None else change(self.reading),
            shown=None if self.shown is None else per_modality(map(change, self.shown)),
        )
