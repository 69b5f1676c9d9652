"""From frames of utterances to batches of similar length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from datamodules.batches.batch import Batch
from datamodules.conditions import per_modality
from ifmmin.inference.features import ReadFrames

MOST_VALUES = 2**26
"""Numbers in a padded batch: 256 MiB. A single utterance may have more."""


def batch_of(utterances: Sequence[ReadFrames], dims: Sequence[int], device: torch.device, turns: bool) -> Batch:
    """A batch of one row per utterance, labels unknown.

    Args:
        utterances: N, at least one.
        dims: frame widths of audio, visual, text.
        device: of the batch.
        turns: whether each is also the only turn of a dialogue of its own.
    """
    count = len(utterances)
    place = torch.arange(count, device=device)
    zeros = torch.zeros_like(place)
    return Batch(
        frames=per_modality(
            _padded([utterance.frames[modality] for utterance in utterances], dim).to(device)
            for modality, dim in enumerate(dims)
        ),
        lengths=torch.tensor([utterance.lengths for utterance in utterances], device=device),
        index=place,
        labels=zeros - 1,
        utterances=[""] * count,
        row=place,
        present=torch.tensor([utterance.present for utterance in utterances], device=device),
        turn=torch.stack([place, zeros, zeros], dim=1) if turns else None,
    )


def _padded(sequences: Sequence[Tensor | None], dim: int) -> Tensor:
    """Float32 [N, T, dim], zeros behind the last frame of each and where there is none."""
    if len(sequences) == 1:
        return torch.zeros(1, 0, dim) if sequences[0] is None else sequences[0][None]
    longest = max(0 if frames is None else len(frames) for frames in sequences)
    padded = torch.zeros(len(sequences), longest, dim)
    for row, frames in zip(padded, sequences, strict=True):
        if frames is not None:
            row[: len(frames)] = frames
    return padded


def by_length(lengths: Sequence[Sequence[int]], dims: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    """Positions of utterances in batches of similar length, each once.

    Args:
        lengths: [N, 3] frames of audio, visual, text; 0 where one is absent.
        dims: their widths.
        batch_size: utterances of a batch at most; fewer, where padded they would be above :data:`MOST_VALUES`.

    >>> list(by_length([[4, 0, 2], [9, 9, 0], [5, 5, 3]], [1, 1, 1], batch_size=2))
    [[0, 2], [1]]
    """
    frames = np.array(lengths, dtype=np.float64).reshape(-1, len(dims))
    there = frames > 0
    # Rates differ between modalities, and some are absent: how long an utterance is, is relative to what is usual.
    usual = frames.sum(axis=0) / there.sum(axis=0).clip(min=1)
    relative = (frames / usual.clip(min=1)).sum(axis=1) / there.sum(axis=1).clip(min=1)
    batch: list[int] = []
    for position in np.argsort(relative, kind="stable").tolist():
        longest = frames[[*batch, position]].max(axis=0)
        if batch and (len(batch) == batch_size or (len(batch) + 1) * float(longest @ np.array(dims)) > MOST_VALUES):
            yield batch
            batch = []
        batch.append(position)
    if batch:
        yield batch
