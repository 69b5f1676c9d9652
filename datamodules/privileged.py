"""Privileged, the second built-in corpus: does it help to imagine what is missing?

Complete training data make the modality that is absent in a test *privileged information* (Vapnik and Vashist, "A new
learning paradigm: learning using privileged information", 2009). To learn from it pays where utterances are few
against the width of what is left, labels are noisy, and the absent modality is easy and well predicted by the others.
So text is narrow and clean here, audio and visual are wide and hold a strong distractor, and 400 utterances train.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from datamodules.base import expanded
from datamodules.linear_gaussian.datamodule import BuiltInClasses, cache_folder
from datamodules.linear_gaussian.files import DIALOGUE, FEATURE_NAMES, single_fold, write_corpus
from datamodules.linear_gaussian.generator import LinearGaussianCorpus
from datamodules.linear_gaussian.views import View
from datamodules.ranges import Range, check_options
from datamodules.storage.layouts import EMOTIONS, Layout

_NO_SPEAKER = r"(?!)"

# Nobody speaks; any twenty successive utterances are turns, so that models that read them can be run.
_TURN = r"^fold\d+_(?:train|val|test)(\d+)$"

PRIVILEGED_LAYOUT = Layout(
    "Privileged",
    FEATURE_NAMES,
    EMOTIONS,
    10,
    _NO_SPEAKER,
    independent_folds=True,
    turn_pattern=_TURN,
    dialogue_turns=DIALOGUE,
)

VALIDATION, TEST = 600, 2000
"""Utterances of the other splits, whatever the number of training utterances."""

_LATENT = (1.0,) * 8
_FRAMES: dict[str, Any] = {"median_length": 6.0, "length_spread": 0.0, "shortest": 6, "longest": 6}
_WIDE: dict[str, Any] = {"dim": 130, "loadings": _LATENT, "nuisance": 0.3, "noise": 1.0, **_FRAMES}
_DISTRACTION: dict[str, Any] = {"distractors": 24, "distractor_std": 3.0}

VIEWS: tuple[View, View, View] = (
    View(**_WIDE, **_DISTRACTION),
    View(**_WIDE, **_DISTRACTION, rms=0.25, split_signs=True),
    View(dim=16, loadings=_LATENT, nuisance=0.1, noise=0.3, **_FRAMES, rms=0.5, outliers=1),
)
"""Audio, visual and text: text is easy; the others predict it well, but they are wide and distracted."""


def privileged_corpus(fold: int) -> LinearGaussianCorpus:
    """The generator of a fold; its Bayes rule reaches a 67.6, v 67.6, t 71.7, av 69.7, at 71.7, vt 71.7, avt 71.8 %."""
    return LinearGaussianCorpus(fold, overlap=1.0, separation=2.2, gain_swing=0.0, gain_decay=0.0, views=VIEWS)


class Privileged(BuiltInClasses):
    """The second built-in corpus: 4 classes, 10 folds that are independent draws. No result on it is a corpus result.

    Each fold has mixing matrices and utterances of its own, 600 for validation and 2,000 for the test, in a folder of
    its own, which is written when the fold is first asked for.
    :mod:`datamodules.linear_gaussian.generator` gives the equations and the exact posterior.

    Args:
        root: folder that the folds' folders are kept in; None: in the user's cache.
        utterances: of the training split. Validation and test split do not depend on it.
        **kwargs: of :class:`~datamodules.base.EmotionDataModule`.
    """

    layout = PRIVILEGED_LAYOUT

    def __init__(
        self, root: str | None = None, utterances: Annotated[int, Range(1, 100_000)] = 400, **kwargs: Any
    ) -> None:
        place = self.locate({"root": root, "utterances": utterances, "fold": 1, **kwargs})
        super().__init__(root=str(place), **kwargs)

    @classmethod
    def locate(cls, options: Mapping[str, Any]) -> Path:
        """Write the fold unless it is there; its folder."""
        size, fold, root = options["utterances"], options["fold"], options["root"]
        check_options(Privileged, {"utterances": size, "fold": fold}, "--data.")
        base = expanded(root) if root else cache_folder("privileged", size)
        cls.layout.target_folder(base, fold)  # refuses a fold that does not exist
        folder = base / f"fold{fold}"
        write_corpus(
            folder, privileged_corpus(fold), single_fold(fold, {"train": size, "val": VALIDATION, "test": TEST})
        )
        return folder
