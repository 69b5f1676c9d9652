"""Sequences of any length as the same number of steps, each the mean over its share of the frames."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


def pool_steps(frames: Tensor, lengths: Tensor, steps: int) -> Tensor:
    """Average-pool each sequence to the same number of steps.

    Step j of a sequence of L frames is the mean of its frames ⌊jL/S⌋ to ⌈(j+1)L/S⌉ - 1, which is
    adaptive average pooling over the true length: a sequence shorter than S repeats frames, and one
    of S frames is itself.

    Args:
        frames: [K, T, D]; what lies behind the last true frame is not read.
        lengths: int64 [K] in 0..T; without frames all steps are 0.
        steps: S.

    Returns:
        [K, S, D], of the dtype of ``frames`` also in mixed precision; ``frames`` themselves where all have S.
    """
    K, longest, _ = frames.shape
    if longest == steps and bool((lengths == steps).all()):
        return frames
    first = torch.arange(K, device=lengths.device) * longest
    return pool_sequences(frames.flatten(0, 1), first, lengths, steps)


def pool_sequences(values: Tensor, first: Tensor, lengths: Tensor, steps: int) -> Tensor:
    """As :func:`pool_steps`, of sequences that are read where they lie, without a padded copy of them.

    Args:
        values: [F, D], frames.
        first: int64 [K], where in ``values`` each begins.
        lengths: int64 [K].
        steps: S.

    Returns:
        [K, S, D].
    """
    starts, whole = first.cpu().numpy(), lengths.cpu().numpy()  # small, so numpy is the quicker
    edges = np.arange(steps + 1) * whole[:, None]
    start, end = edges[:, :-1] // steps, -(-edges[:, 1:] // steps)
    counts = (end - start).ravel()
    before = counts.cumsum() - counts
    # A bag is a step: the frames in it, one bag after the other, and the share of each.
    frames = np.arange(counts.sum()) + np.repeat((starts[:, None] + start).ravel() - before, counts)
    shares = np.repeat(1 / counts.clip(min=1), counts)
    inputs, bags = (torch.from_numpy(each).to(values.device) for each in (frames, before))
    weights = torch.from_numpy(shares).to(values)
    pooled = F.embedding_bag(inputs, values, bags, mode="sum", per_sample_weights=weights)
    return pooled.view(len(whole), steps, values.shape[1])
