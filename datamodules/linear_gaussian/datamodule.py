"""The datamodules that the built-in corpora share: they know the best possible scores on their own utterances."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt

from datamodules.base import EmotionDataModule
from datamodules.classes import ChosenClasses
from datamodules.conditions import CONDITION_TABLE, CONDITIONS
from datamodules.linear_gaussian.files import load_source
from datamodules.linear_gaussian.generator import VERSION, LinearGaussianCorpus
from datamodules.linear_gaussian.observation import BoolArray, IntArray
from datamodules.linear_gaussian.sentiment import SentimentGenerator

_TOGETHER = 1000  # utterances whose frames are in memory at once


def cache_folder(name: str, size: int, stay: float | None = None) -> Path:
    """Where a built-in corpus is kept by default: a folder per corpus, version, size and memory in the user's cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    memory = "" if stay is None else f"-stay{float(stay)}"
    return cache / "ifmmin" / f"{name}-{VERSION}-{size}{memory}"


class BuiltInCorpus(EmotionDataModule):
    """A corpus that a generator draws.

    It is written once, in the public feature layout, and read by the reader of the real corpora. A subclass sets
    ``layout`` and overrides :meth:`locate`, which writes it.
    """

    schedule: ClassVar[Literal["epochs", "steps"]] = "steps"
    synthetic = True

    def _in_parts(self, indices: IntArray) -> Iterator[tuple[list[npt.NDArray[np.float32]], list[IntArray]]]:
        """Yield the frames of some utterances a few at a time, see :meth:`_stacked`."""
        for part in np.array_split(indices, max(1, len(indices) // _TOGETHER)):
            yield self._stacked(part)

    def _shown(self, indices: IntArray) -> BoolArray:
        """Whether an utterance has all modalities of a condition, bool [7, n]."""
        lacks = (self.corpus.lengths == 0).numpy()[indices]
        shown: BoolArray = ~(lacks & CONDITION_TABLE.numpy()[:, None]).any(axis=2)
        return shown

    def _stacked(self, indices: IntArray) -> tuple[list[npt.NDArray[np.float32]], list[IntArray]]:
        """The frames of some utterances one after the other, and where each begins, by modality."""
        values, offsets = [], []
        for frames in self.corpus.frames:
            parts = [frames.utterance(index).numpy() for index in indices.tolist()]
            values.append(np.concatenate(parts))
            offsets.append(np.cumsum([0, *map(len, parts)]))
        return values, offsets


class BuiltInClasses(BuiltInCorpus):
    """Classes that :class:`~datamodules.linear_gaussian.generator.LinearGaussianCorpus` draws."""

    @property
    def source(self) -> LinearGaussianCorpus:
        """The generator of this folder's utterances."""
        return load_source(self.root)

    def bayes_accuracy(self, split: str, memory: bool = False) -> dict[str, float]:
        """WA of the Bayes-optimal rule per condition, on the utterances of a split that have all its modalities.

        Args:
            split: ``train``, ``val`` or ``test``.
            memory: whether the rule also reads the speaker's earlier turns, each under the same condition. Of turns
                that are left out with their class it knows no more than that they were there.
        """
        source, indices, labels = self.source, self.indices(split), self.corpus_layout.labels
        posterior = np.concatenate([source.log_posterior_batch(*part) for part in self._in_parts(indices)], axis=1)
        allowed = self._shown(indices)
        with np.errstate(divide="ignore"):  # of classes left out there is no utterance
            if memory:
                if isinstance(labels, ChosenClasses):
                    posterior = posterior + np.log(labels.membership.any(axis=1))
                posterior = source.chain.filtered(posterior, self.turns[indices], allowed)
            if isinstance(labels, ChosenClasses):
                posterior = np.log(np.exp(posterior) @ labels.membership)
        return _means(posterior.argmax(axis=-1) == self.labels.numpy()[indices], allowed)


class BuiltInValues(BuiltInCorpus):
    """Values that :class:`~datamodules.linear_gaussian.sentiment.SentimentGenerator` draws."""

    @property
    def source(self) -> SentimentGenerator:
        """The generator of this folder's utterances."""
        return load_source(self.root, SentimentGenerator)

    def bayes_answers(self, split: str) -> npt.NDArray[np.float64]:
        """The best answer under the absolute error to each utterance of a split, float64 [7, n] by condition."""
        source = self.source
        parts = [source.best_answers(*part) for part in self._in_parts(self.indices(split))]
        return np.concatenate(parts, axis=1)

    def bayes_limit(self, split: str, memory: bool = False) -> dict[str, float]:
        """MAE of the best answers per condition, on the utterances of a split that have all its modalities.

        Args:
            split: ``train``, ``val`` or ``test``.
            memory: whether earlier turns are read too; they tell nothing, for values are independent.
        """
        indices = self.indices(split)
        return _means(np.abs(self.bayes_answers(split) - self.labels.numpy()[indices]), self._shown(indices))


def _means(values: npt.NDArray[np.generic], shown: BoolArray) -> dict[str, float]:
    """Mean over the utterances that a condition shows, of [7, n]; without conditions that show none."""
    sums, counted = np.where(shown, values, 0).sum(axis=1).tolist(), shown.sum(axis=1).tolist()
    return {
        condition: total / number for condition, total, number in zip(CONDITIONS, sums, counted, strict=True) if number
    }
