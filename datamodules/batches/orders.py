"""The order in which a model reads a split: by length, or in whole chains of turns."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from datamodules.batches.chains import ChainBatches
from datamodules.batches.loading import IntArray, LengthBatches, RequestSampler
from datamodules.errors import CorpusError


def batch_order(
    indices: IntArray,
    lengths: Tensor,
    turns: IntArray | None,
    batch_size: int,
    training: bool,
    seed: int,
    rank: int,
    devices: int,
    where: str,
) -> RequestSampler:
    """The order of a split's utterances, in whole chains for a model that reads earlier turns.

    Args:
        indices: int64 [n], positions of the split in the corpus.
        lengths: [N, 3] frames of audio, visual and text of all utterances.
        turns: int64 [n, 3], the turn of each of the split; None for a model that reads none.
        batch_size: utterances per batch, over all devices together.
        training: whether there is a new order each epoch.
        seed: of the order.
        rank: this device.
        devices: that share a batch.
        where: the corpus and split, for the message.

    Raises:
        CorpusError: there are fewer utterances or chains than devices, one of which would have nothing to read.
    """
    units, what = len(indices), "utterances"
    if turns is not None:
        units, what = len(np.unique(turns[:, 0])), "whole chains of turns"
    if 0 < units < devices:
        raise CorpusError(
            f"{where} has too few {what} for {devices} devices: {units}; give at most so many --trainer.devices."
        )
    if turns is None:
        cost = lengths.sum(dim=1).numpy()[indices]
        return LengthBatches(indices, cost, batch_size, training, seed, rank, devices)
    return ChainBatches(indices, turns, batch_size, training, seed, rank, devices)
