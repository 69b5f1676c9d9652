"""SyntheticSentiment, the third built-in corpus: values instead of classes. Its best possible MAE is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from datamodules.base import expanded
from datamodules.labels import Scale
from datamodules.linear_gaussian.datamodule import BuiltInValues, cache_folder
from datamodules.linear_gaussian.files import sessions, write_corpus
from datamodules.linear_gaussian.sentiment import END, SentimentGenerator
from datamodules.ranges import Range, check_options
from datamodules.synthetic import SYNTHETIC_LAYOUT

SENTIMENT_LAYOUT = replace(SYNTHETIC_LAYOUT, name="SyntheticSentiment", labels=Scale(-END, END))


class SyntheticSentiment(BuiltInValues):
    """The third built-in corpus: values from -3 to 3, 5 folds, 4,000 utterances. No result on it is a corpus result.

    Speakers, sessions, folds and modalities are those of :class:`~datamodules.synthetic.Synthetic`, and labels are
    stored as CMU-MOSI's are. :mod:`datamodules.linear_gaussian.sentiment` gives the equations and the best answer.

    Args:
        root: folder it is kept in; None: in the user's cache.
        utterances_per_speaker: of each of the ten speakers; the default is the built-in corpus.
        **kwargs: of :class:`~datamodules.base.EmotionDataModule`.
    """

    layout = SENTIMENT_LAYOUT
    monitor = "MAE"

    def __init__(
        self,
        root: str | None = None,
        utterances_per_speaker: Annotated[int, Range(1, 100_000)] = 400,
        **kwargs: Any,
    ) -> None:
        place = self.locate({"root": root, "utterances_per_speaker": utterances_per_speaker, **kwargs})
        super().__init__(root=str(place), **kwargs)

    @classmethod
    def locate(cls, options: Mapping[str, Any]) -> Path:
        """Write the corpus unless it is there; its folder."""
        size, root = options["utterances_per_speaker"], options["root"]
        check_options(SyntheticSentiment, {"utterances_per_speaker": size}, "--data.")
        folder = expanded(root) if root else cache_folder("synthetic-sentiment", size)
        write_corpus(folder, SentimentGenerator(), sessions(size))
        return folder
