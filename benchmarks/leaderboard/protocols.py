"""The missing-rate sweep: how a trained model does as more and more is missing at random."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from datamodules.base import EmotionDataModule
from datamodules.batches.masks import MissingRate, restrict, utterance_keys
from datamodules.conditions import CONDITION_TABLE, CONDITIONS
from ifmmin.base import MissingModalityModule

RATES: tuple[float, ...] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
"""Each modality of each utterance is absent with this probability; at least one is left."""


@torch.no_grad()
def missing_rate_sweep(
    model: MissingModalityModule, data: EmotionDataModule, seed: int, rates: Sequence[float] = RATES
) -> dict[str, Any]:
    """Count the task on the test split under each missing rate.

    The masks are fixed by (seed, utterance id), so every model sees the same; what is absent at one
    rate is absent at every higher one. What the corpus lacks of an utterance is absent at every rate.

    Args:
        model: trained, with its best weights.
        data: set up.
        seed: of the masks.
        rates: in [0, 1).

    Returns:
        the task's counts of one condition (a confusion matrix of a classification) by rate (``"0.3"``), as lists;
        empty for a model that does not answer every condition.
    """
    if not all(model.answers(condition) for condition in CONDITIONS):
        return {}
    model.eval()
    task = model.task
    counts = {f"{rate:.1f}": torch.zeros(task.shape, dtype=task.counts_dtype) for rate in rates}
    # The position in CONDITIONS of each pattern of three bits.
    position = np.zeros(8, dtype=np.int64)
    position[CONDITION_TABLE.numpy() @ (4, 2, 1)] = np.arange(len(CONDITIONS))
    for batch in data.in_order("test"):
        # A mask is one of the seven conditions: each utterance is encoded once, whatever the number of rates.
        outputs, row, condition = model.evaluate(batch, CONDITIONS)
        each = torch.zeros(len(batch.utterances), len(CONDITIONS), *task.shape, dtype=task.counts_dtype)
        each[row, condition] = task.count(outputs, batch.labels[row])
        keys, utterance = utterance_keys(batch.utterances), torch.arange(len(batch.utterances))
        for rate, total in zip(rates, counts.values(), strict=True):
            shown = restrict(MissingRate(rate)(keys, seed, 0), batch.available.numpy(), keys, seed, 0)
            pattern = position[shown @ (4, 2, 1)]
            total += each[utterance, torch.from_numpy(pattern)].sum(dim=0)
    return {name: total.tolist() for name, total in counts.items()}
