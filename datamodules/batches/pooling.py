"""Average pooling of sequences of any length to the same number of steps."""

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
        frames: [K, T, D]; values past a sequence's last frame are not read.
        lengths: int64 [K] in 0..T; without frames all steps are 0.
        steps: S.

    Returns:
        [K, S, D], of the dtype of ``frames`` also in mixed precision; ``frames`` themselves if all have S.

    >>> pool_steps(torch.tensor([[[1.0], [3.0], [5.0], [7.0]]]), torch.tensor([4]), 2).flatten().tolist()
    [2.0, 6.0]
    """
    K, longest, _ = frames.shape
    if longest == steps and bool((lengths == steps).all()):
        return frames
    first = torch.arange(K, device=lengths.device) * longest
    return pool_sequences(frames.flatten(0, 1), first, lengths, steps)


def pool_sequences(values: Tensor, first: Tensor, lengths: Tensor, steps: int) -> Tensor:
    """Pool as :func:`pool_steps` does, from frames stored back to back, without a padded copy.

    Args:
        values: [F, D], frames.
        first: int64 [K], position in ``values`` of each sequence's first frame.
        lengths: int64 [K].
        steps: S.

    Returns:
        [K, S, D].
    """
    starts, whole = first.cpu().numpy(), lengths.cpu().numpy()  # small arrays: NumPy is faster
    edges = np.arange(steps + 1) * whole[:, None]
    start, end = edges[:, :-1] // steps, -(-edges[:, 1:] // steps)
    counts = (end - start).ravel()
    before = counts.cumsum() - counts
    # Each step is a bag: the positions of its frames, bag after bag, and their weights.
    frames = np.arange(counts.sum()) + np.repeat((starts[:, None] + start).ravel() - before, counts)
    shares = np.repeat(1 / counts.clip(min=1), counts)
    inputs, bags = (torch.from_numpy(each).to(values.device) for each in (frames, before))
    weights = torch.from_numpy(shares).to(values)
    pooled = F.embedding_bag(inputs, values, bags, mode="sum", per_sample_weights=weights)
    return pooled.view(len(whole), steps, values.shape[1])
