"""Synthetic, the first built-in corpus: does a model learn? Its Bayes-optimal accuracy is known."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from datamodules.base import expanded
from datamodules.linear_gaussian.datamodule import BuiltInClasses, cache_folder
from datamodules.linear_gaussian.files import DIALOGUE, FEATURE_NAMES, SESSIONS, sessions, write_corpus
from datamodules.linear_gaussian.generator import LinearGaussianCorpus
from datamodules.ranges import Range, check_options
from datamodules.storage.layouts import EMOTIONS, IEMOCAP_LAYOUT, Layout

SYNTHETIC_LAYOUT = Layout(
    "Synthetic",
    FEATURE_NAMES,
    EMOTIONS,
    SESSIONS,
    IEMOCAP_LAYOUT.speaker_pattern,
    turn_pattern=IEMOCAP_LAYOUT.turn_pattern,
    dialogue_turns=DIALOGUE,
)


STAY = Range(0.1, 1, below=True)


class Synthetic(BuiltInClasses):
    """The first built-in corpus: 4 classes, 5 folds, 4,000 utterances. No result on it is a corpus result.

    :mod:`datamodules.linear_gaussian.generator` gives its equations and the exact posterior. Twenty successive
    utterances of a speaker are one dialogue.

    Args:
        root: folder it is kept in; None: in the user's cache.
        utterances_per_speaker: of each of the ten speakers; the default is the built-in corpus.
        stay: the probability that a speaker's next turn in a dialogue has the same label, so that earlier turns tell of
            later ones; at 0.261 they do not. None: labels are independent, as in the built-in corpus.
        **kwargs: of :class:`~datamodules.base.EmotionDataModule`.
    """

    layout = SYNTHETIC_LAYOUT

    def __init__(
        self,
        root: str | None = None,
        utterances_per_speaker: Annotated[int, Range(1, 100_000)] = 400,
        stay: Annotated[float, STAY] | None = None,
        **kwargs: Any,
    ) -> None:
        place = self.locate({"root": root, "utterances_per_speaker": utterances_per_speaker, "stay": stay, **kwargs})
        super().__init__(root=str(place), **kwargs)

    @classmethod
    def locate(cls, options: Mapping[str, Any]) -> Path:
        """Write the corpus unless it is there; its folder."""
        size, stay, root = options["utterances_per_speaker"], options.get("stay"), options["root"]
        check_options(Synthetic, {"utterances_per_speaker": size, "stay": stay}, "--data.")
        folder = expanded(root) if root else cache_folder("synthetic", size, stay)
        write_corpus(folder, LinearGaussianCorpus(stay=stay), sessions(size))
        return folder
