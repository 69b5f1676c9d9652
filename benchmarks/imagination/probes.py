"""Probes: what a linear classifier can tell from a model's features of one modality.

A row is the feature vector [E] of one modality of one utterance, read complete. A logistic regression (scikit-learn,
C 1), fitted on the rows of the training split, each coordinate standardised by their mean and standard deviation, is
asked for the modality or the emotion of the rows of the validation split.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from datamodules.base import EmotionDataModule
from datamodules.batches.batch import Batch


@dataclass(frozen=True)
class Features:
    """Feature vectors, one row per utterance and modality that the corpus has of it.

    Attributes:
        values: float64 [R, E].
        targets: by name, int64 [R]: the ``modality``, and the ``emotion``.
    """

    values: npt.NDArray[np.float64]
    targets: dict[str, npt.NDArray[np.int64]]

    def spread(self) -> float:
        """Standard deviation over utterances, mean over modalities and coordinates."""
        modality = self.targets["modality"]
        own = [self.values[modality == each] for each in np.unique(modality)]
        return float(np.mean([rows.std(axis=0, ddof=1) for rows in own if len(rows) > 1]))


@torch.no_grad()
def read_features(compute: Callable[[Batch], Tensor | None], data: EmotionDataModule, split: str) -> Features | None:
    """Compute the features [B, 3, E] of every utterance of a split, read complete; None if ``compute`` gives None."""
    values, modalities, emotions = [], [], []
    for batch in data.in_order(split):
        features = compute(batch.unmasked())
        if features is None:
            return None
        utterance, modality = batch.available.nonzero(as_tuple=True)
        values.append(features[utterance, modality])
        modalities.append(modality)
        emotions.append(batch.labels[utterance])
    targets = {"modality": torch.cat(modalities).numpy(), "emotion": torch.cat(emotions).numpy()}
    return Features(torch.cat(values).double().numpy(), targets)


def told(train: Features, held_out: Features, target: str) -> float:
    """Share of the held-out rows whose ``target`` a logistic regression on the training rows tells rightly."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    wanted = train.targets[target]
    if len(np.unique(wanted)) < 2:
        return chance(train, held_out, target)
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    probe.fit(train.values, wanted)
    return float(np.mean(probe.predict(held_out.values) == held_out.targets[target]))


def chance(train: Features, held_out: Features, target: str) -> float:
    """Share of the held-out rows that have the most frequent ``target`` of the training rows."""
    found, counts = np.unique(train.targets[target], return_counts=True)
    return float(np.mean(held_out.targets[target] == found[counts.argmax()]))
