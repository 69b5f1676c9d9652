"""What the rows of a batch may see: the one place where modalities are taken away."""

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
        a batch of B <= N * len(conditions) rows, and int64 [B], the position of each row's condition
        in :data:`~datamodules.conditions.CONDITIONS`. Rows of one utterance stand together.
    """
    wanted = torch.tensor([CONDITIONS.index(condition) for condition in conditions])
    table = CONDITION_TABLE[wanted].to(batch.lengths.device)
    # A condition can be answered where everything it calls available is there.
    allowed = (batch.available[:, None, :] | ~table[None]).all(dim=-1)
    row, column = allowed.nonzero(as_tuple=True)
    condition = wanted.to(row.device)[column]
    return replace(batch, row=row, present=table[column]), condition


@dataclass(frozen=True)
class Visible:
    """What the rows of a batch may see of one modality: each stored utterance at most once.

    Attributes:
        frames: float [K, T, D], padded; only utterances that some row may see.
        lengths: int64 [K], at least 1.
        rows: int64 [S], the rows in which the modality is present.
        slots: int64 [S], which of the K sequences each of those rows reads.
    """

    frames: Tensor
    lengths: Tensor
    rows: Tensor
    slots: Tensor


def visible(batch: Batch, modality: int) -> Visible:
    """Take away everything of ``modality`` (0 audio, 1 visual, 2 text) that no row may see.

    All a model reads of a batch's frames comes through here (or, for training targets, through
    ``batch.complete()`` first): an absent modality's values and length cannot reach it.

    Raises:
        RuntimeError: a row may see what the batch does not hold.
    """
    rows = batch.present[:, modality].nonzero(as_tuple=True)[0]
    stored = batch.row[rows]
    # A mark and a running count, not torch.unique: the stored order stays and nothing is sorted.
    needed = torch.zeros(len(batch.lengths), dtype=torch.bool, device=stored.device)
    needed[stored] = True
    slots = (needed.cumsum(0) - 1)[stored]
    frames, lengths = batch.frames[modality], batch.lengths[:, modality]
    if batch.held is not None:
        wanted, held = needed, batch.held[modality]
        needed, lengths = wanted[held], lengths[held]
        if bool(needed.sum() < wanted.sum()):
            raise RuntimeError(
                f"this batch holds no {MODALITIES[modality]} but what its mask shows: a model whose losses read "
                "batch.complete() must say so with needs = DataNeeds(hidden_frames=True)."
            )
    if not bool(needed.all()):
        sequences = needed.nonzero(as_tuple=True)[0]
        lengths = lengths[sequences]
        frames = frames.index_select(0, sequences)
    longest = int(lengths.max()) if len(lengths) else 0
    return Visible(frames[:, :longest], lengths, rows, slots)
