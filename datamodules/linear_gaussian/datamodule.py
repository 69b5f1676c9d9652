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


def cache_folder(name: str, size: int, stay: float | None = None) -> Path:
    """Where a built-in corpus is kept by default: a folder per corpus, version, size and memory in the user's cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    memory = "" if stay is None else f"-stay{float(stay)}"
    return cache / "ifmmin" / f"{name}-{VERSION}-{size}{memory}"


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

    def bayes_accuracy(self, split: str, memory: bool = False) -> dict[str, float]:
        """WA of the Bayes-optimal rule per condition, on the utterances of a split that have all its modalities.

        Args:
            split: ``train``, ``val`` or ``test``.
            memory: whether the rule also reads the speaker's earlier turns, each under the same condition. Of turns
                that are left out with their class it knows no more than that they were there.
        """
        source, indices, labels = self.source, self.indices(split), self.corpus_layout.labels
        parts = np.array_split(indices, max(1, len(indices) // _TOGETHER))
        posterior = np.concatenate([source.log_posterior_batch(*self._stacked(part)) for part in parts], axis=1)
        allowed = ((self.corpus.lengths > 0).numpy()[indices] | ~CONDITION_TABLE.numpy()[:, None]).all(axis=2)
        with np.errstate(divide="ignore"):  # of classes left out there is no utterance
            if memory:
                if isinstance(labels, ChosenClasses):
                    posterior = posterior + np.log(labels.membership.any(axis=1))
                posterior = source.chain.filtered(posterior, self.turns[indices], allowed)
            if isinstance(labels, ChosenClasses):
                posterior = np.log(np.exp(posterior) @ labels.membership)
        correct = ((posterior.argmax(axis=-1) == self.labels.numpy()[indices]) & allowed).sum(axis=1)
        counted = allowed.sum(axis=1)
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
