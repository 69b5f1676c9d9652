"""The missing-rate sweep: how a trained model does as more and more is missing at random."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from datamodules.base import EmotionDataModule
from datamodules.batches.masks import MissingRate, utterance_keys
from datamodules.conditions import CONDITION_TABLE, CONDITIONS
from ifmmin.base import MissingModalityModule

RATES: tuple[float, ...] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
"""Each modality of each utterance is absent with this probability; at least one is left."""


@torch.no_grad()
def missing_rate_sweep(
    model: MissingModalityModule, data: EmotionDataModule, seed: int, rates: Sequence[float] = RATES
) -> dict[str, list[list[int]]]:
    """Confusion matrices of the test split under each missing rate.

    The masks are fixed by (seed, utterance id), so every model sees the same; what is absent at one
    rate is absent at every higher one.

    Args:
        model: trained, with its best weights.
        data: set up.
        seed: of the masks.
        rates: in [0, 1).

    Returns:
        by rate (``"0.3"``), C x C counts, true classes in rows; empty for a model that does not answer
        every condition.
    """
    if not all(model.answers(condition) for condition in CONDITIONS):
        return {}
    model.eval()
    classes = model.num_classes
    counts = {f"{rate:.1f}": np.zeros((classes, classes), dtype=np.int64) for rate in rates}
    # The position in CONDITIONS of each pattern of three bits.
    position = np.zeros(8, dtype=np.int64)
    position[CONDITION_TABLE.numpy() @ (4, 2, 1)] = np.arange(len(CONDITIONS))
    for batch in data.in_order("test"):
        # A mask is one of the seven conditions: each utterance is encoded once, whatever the number of rates.
        logits, row, condition = model.evaluate(batch, CONDITIONS)
        predicted = np.zeros((len(batch.utterances), len(CONDITIONS)), dtype=np.int64)
        predicted[row.numpy(), condition.numpy()] = logits.argmax(dim=1).numpy()
        keys, label = utterance_keys(batch.utterances), batch.labels.numpy()
        for rate, confusion in zip(rates, counts.values(), strict=True):
            pattern = position[MissingRate(rate)(keys, seed, 0) @ (4, 2, 1)]
            np.add.at(confusion, (label, predicted[np.arange(len(label)), pattern]), 1)
    return {name: confusion.tolist() for name, confusion in counts.items()}
