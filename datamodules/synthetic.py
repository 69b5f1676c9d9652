"""The built-in corpus, whose Bayes-optimal accuracy is known."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt

from datamodules.base import EmotionDataModule, expanded
from datamodules.conditions import CONDITIONS
from datamodules.linear_gaussian.files import FOLDS, load_source, write_corpus
from datamodules.linear_gaussian.generator import VERSION
from datamodules.ranges import Range, check_options
from datamodules.storage.layouts import EMOTIONS, IEMOCAP_LAYOUT, Layout

SYNTHETIC_LAYOUT = Layout(
    name="Synthetic",
    feature_names=("audio", "visual", "text"),
    labels=EMOTIONS,
    folds=FOLDS,
    speaker_pattern=IEMOCAP_LAYOUT.speaker_pattern,
)


_TOGETHER = 1000  # utterances whose frames are in memory at once


def default_root(utterances_per_speaker: int) -> Path:
    """Where the built-in corpus is kept: a folder per version and size in the user's cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "ifmmin" / f"synthetic-{VERSION}-{utterances_per_speaker}"


class Synthetic(EmotionDataModule):
    """The built-in linear-Gaussian corpus: 4 classes, 5 folds. No result on it is a corpus result.

    It is written once, in the public feature layout, and read by the reader of the real corpora.
    :mod:`datamodules.linear_gaussian.generator` gives its equations and the exact posterior.

    Args:
        root: folder it is kept in; None: in the user's cache.
        utterances_per_speaker: of each of the ten speakers; the default is the built-in corpus.
        **kwargs: of :class:`~datamodules.base.EmotionDataModule`.
    """

    layout = SYNTHETIC_LAYOUT
    schedule = "steps"
    synthetic = True

    def __init__(
        self, root: str | None = None, utterances_per_speaker: Annotated[int, Range(1, 100_000)] = 400, **kwargs: Any
    ) -> None:
        check_options(Synthetic, {"utterances_per_speaker": utterances_per_speaker}, "--data.")
        folder = expanded(root) if root else default_root(utterances_per_speaker)
        write_corpus(folder, utterances_per_speaker=utterances_per_speaker)
        super().__init__(root=str(folder), **kwargs)
        self.source = load_source(folder)

    def bayes_accuracy(self, split: str) -> dict[str, float]:
        """WA of the Bayes-optimal rule on the utterances of a split, per condition."""
        indices = self.indices(split)
        correct = np.zeros(len(CONDITIONS))
        for part in np.array_split(indices, max(1, len(indices) // _TOGETHER)):
            decided = self.source.log_posterior_batch(*self._stacked(part)).argmax(axis=-1)
            correct += (decided == self.labels.numpy()[part]).sum(axis=1)
        return dict(zip(CONDITIONS, (correct / len(indices)).tolist(), strict=True))

    def _stacked(
        self, indices: npt.NDArray[np.int64]
    ) -> tuple[list[npt.NDArray[np.float32]], list[npt.NDArray[np.int64]]]:
        """The frames of some utterances one after the other, and where each begins, by modality."""
        values, offsets = [], []
        for frames in self.corpus.frames:
            parts = [frames.utterance(index).numpy() for index in indices.tolist()]
            values.append(np.concatenate(parts))
            offsets.append(np.cumsum([0, *map(len, parts)]))
        return values, offsets
