"""What the rows of a batch may see: the one place that takes modalities away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from datamodules.batches.batch import Batch
from datamodules.conditions import CONDITION_TABLE, CONDITIONS, MODALITIES


def under_conditions(batch: Batch, conditions: Sequence[str]) -> tuple[Batch, Tensor]:
    """Read each stored utterance once per condition that its available modalities allow.

    Args:
        batch: N stored utterances.
        conditions: names out of :data:`~datamodules.conditions.CONDITIONS`.

    Returns:
        a batch of B <= N * len(conditions) rows, those of one utterance together, and int64 [B], the position of each
        row's condition in :data:`~datamodules.conditions.CONDITIONS`, which is its ``reading`` as well.
    """
    wanted = torch.tensor([CONDITIONS.index(condition) for condition in conditions])
    table = CONDITION_TABLE[wanted].to(batch.lengths.device)
    # A condition can be answered if everything it calls available is there.
    allowed = (batch.available[:, None, :] | ~table[None]).all(dim=-1)
    row, column = allowed.nonzero(as_tuple=True)
    condition = wanted.to(row.device)[column]
    return replace(batch, row=row, present=table[column], reading=condition), condition


@dataclass(frozen=True)
class Visible:
    """Sequences of one modality that the rows of a batch may see, each stored utterance at most once.

    Attributes:
        frames: float [K, T, D], padded; only utterances that some row may see.
        lengths: int64 [K], at least 1.
        rows: int64 [S], the rows in which the modality is present.
        slots: int64 [S], which of the K sequences each of those rows reads.
        batch_rows: B, the number of all rows.
    """

    frames: Tensor
    lengths: Tensor
    rows: Tensor
    slots: Tensor
    batch_rows: int

    def spread(self, values: Tensor, fill: float = 0.0) -> Tensor:
        """Bring a value per sequence [K, ...] to the rows of the batch: [B, ...], ``fill`` where absent.

        >>> import torch
        >>> seen = Visible(torch.ones(1, 2, 3), torch.tensor([2]), torch.tensor([0, 2]), torch.tensor([0, 0]), 3)
        >>> seen.spread(torch.tensor([5.0])).tolist()
        [5.0, 0.0, 5.0]
        """
        if len(self.rows) == self.batch_rows:  # nothing is absent
            return values.index_select(0, self.slots)
        spread = values.new_full((self.batch_rows, *values.shape[1:]), fill)
        return spread.index_copy(0, self.rows, values[self.slots])


def visible(batch: Batch, modality: int) -> Visible:
    """Return the sequences of ``modality`` (0 audio, 1 visual, 2 text) that at least one row may see.

    A model reads frames only through this function (for training targets of ``batch.unmasked()``): an absent
    modality's values and length cannot reach it.

    Raises:
        RuntimeError: a row may see what is not stored in the batch.
    """
    rows = batch.present[:, modality].nonzero(as_tuple=True)[0]
    read = batch.row[rows]
    # A mark and a running count, not torch.unique: nothing is sorted, and the stored order is kept.
    needed = torch.zeros(len(batch.lengths), dtype=torch.bool, device=read.device)
    needed[read] = True
    slots = (needed.cumsum(0) - 1)[read]
    frames, lengths = (batch.shown or batch.frames)[modality], batch.lengths[:, modality]
    if batch.stored is not None:
        wanted, stored = needed, batch.stored[modality]
        needed, lengths = wanted[stored], lengths[stored]
        if bool(needed.sum() < wanted.sum()):
            raise RuntimeError(
                f"this batch holds no {MODALITIES[modality]} but what its mask shows: a model whose losses read "
                "batch.unmasked() must say so with needs = DataNeeds(hidden_frames=True)."
            )
    if not bool(needed.all()):
        sequences = needed.nonzero(as_tuple=True)[0]
        lengths = lengths[sequences]
        frames = frames.index_select(0, sequences)
    longest = int(lengths.max()) if len(lengths) else 0
    return Visible(frames[:, :longest], lengths, rows, slots, len(batch))
