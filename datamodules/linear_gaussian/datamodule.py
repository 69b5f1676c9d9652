"""The datamodule that the built-in corpora share: it knows the Bayes-optimal accuracy on its own utterances."""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt

from datamodules.base import EmotionDataModule
from datamodules.classes import ChosenClasses
from datamodules.conditions import CONDITION_TABLE, CONDITIONS
from datamodules.linear_gaussian.files import load_source
from datamodules.linear_gaussian.generator import VERSION, LinearGaussianCorpus

_TOGETHER = 1000  # utterances whose frames are in memory at once


def cache_folder(name: str, size: int) -> Path:
    """Where a built-in corpus is kept by default: a folder per corpus, version and size in the user's cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "ifmmin" / f"{name}-{VERSION}-{size}"


class BuiltInCorpus(EmotionDataModule):
    """A corpus that :class:`~datamodules.linear_gaussian.generator.LinearGaussianCorpus` draws.

    It is written once, in the public feature layout, and read by the reader of the real corpora. A subclass sets
    ``layout`` and overrides :meth:`locate`, which writes it.
    """

    schedule: ClassVar[Literal["epochs", "steps"]] = "steps"
    synthetic = True

    @property
    def source(self) -> LinearGaussianCorpus:
        """The generator of this folder's utterances."""
        return load_source(self.root)

    def bayes_accuracy(self, split: str) -> dict[str, float]:
        """WA of the Bayes-optimal rule per condition, on the utterances of a split that have all its modalities."""
        source, indices, labels = self.source, self.indices(split), self.corpus_layout.labels
        correct, counted = np.zeros(len(CONDITIONS)), np.zeros(len(CONDITIONS))
        available = (self.corpus.lengths > 0).numpy()
        for part in np.array_split(indices, max(1, len(indices) // _TOGETHER)):
            posterior = source.log_posterior_batch(*self._stacked(part))
            if isinstance(labels, ChosenClasses):  # of classes left out there is no utterance
                with np.errstate(divide="ignore"):
                    posterior = np.log(np.exp(posterior) @ labels.membership)
            decided = posterior.argmax(axis=-1)
            allowed = (available[part] | ~CONDITION_TABLE.numpy()[:, None]).all(axis=2)
            correct += ((decided == self.labels.numpy()[part]) & allowed).sum(axis=1)
            counted += allowed.sum(axis=1)
        return {
            condition: right / number
            for condition, right, number in zip(CONDITIONS, correct.tolist(), counted.tolist(), strict=True)
            if number
        }

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
