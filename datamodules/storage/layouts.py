"""What distinguishes one corpus in the public feature layout from another."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from datamodules.conditions import MODALITIES
from datamodules.errors import InputError

FOLDERS: tuple[str, str, str] = ("A", "V", "L")
"""The folder of each modality, in the order of :data:`~datamodules.conditions.MODALITIES`."""


@dataclass(frozen=True)
class Layout:
    """The names, classes, folds and utterance ids of one corpus.

    Attributes:
        name: the corpus, as messages call it.
        feature_names: of audio, visual and text: ``A/<name>.h5``, ``V/<name>.h5``, ``L/<name>.h5``.
        class_names: in label order; label c is ``class_names[c]``.
        folds: the number of folds, which are called 1..folds.
        speaker_pattern: a regular expression; the groups that match, joined, are an utterance's speaker.
        statistics_name: ``A/<name>.h5`` may hold each fold's mean and std of the audio features.
    """

    name: str
    feature_names: tuple[str, str, str]
    class_names: tuple[str, ...]
    folds: int
    speaker_pattern: str
    statistics_name: str = "comparE_mean_std"

    def feature_path(self, root: Path, modality: int) -> Path:
        """Where the features of a modality (0 audio, 1 visual, 2 text) lie."""
        return root / FOLDERS[modality] / f"{self.feature_names[modality]}.h5"

    def statistics_path(self, root: Path) -> Path:
        """Where the audio statistics that come with a corpus would lie."""
        return root / FOLDERS[MODALITIES.index("audio")] / f"{self.statistics_name}.h5"

    def target_folder(self, root: Path, fold: int) -> Path:
        """Where the label files of a fold lie.

        Raises:
            InputError: there is no such fold.
        """
        if not 1 <= fold <= self.folds:
            raise InputError(f"fold {fold}: {self.name} has folds 1..{self.folds}.")
        return root / "target" / str(fold)


_CLASSES = ("angry", "happy", "neutral", "sad")

# Ses01F_impro04_M012: session 1, recorded with the motion capture on the woman, spoken by the man.
_IEMOCAP_SPEAKER = r"^(Ses\d+)[FM]_.+_([FM])[^_]*$"

# MSP-IMPROV-S01A-F01-P-FM01: sentence 1 in anger, speaker F01. The IEMOCAP form is accepted too.
_MSP_SPEAKER = rf"^MSP-IMPROV-[^-]+-([FM]\d+)-|{_IEMOCAP_SPEAKER}"

IEMOCAP_LAYOUT = Layout("IEMOCAP", ("comparE", "denseface", "bert_large"), _CLASSES, 10, _IEMOCAP_SPEAKER)

# The public pack does not document the label order of MSP-IMPROV: IEMOCAP's order is our reading.
MSP_IMPROV_LAYOUT = Layout("MSP-IMPROV", ("comparE_raw", "denseface", "bert_large"), _CLASSES, 12, _MSP_SPEAKER)


def speaker_of(utterance: str, layout: Layout) -> str | None:
    """Who speaks, by the utterance's id, or None where the id does not say."""
    match = re.search(layout.speaker_pattern, utterance)
    return "".join(filter(None, match.groups())) or None if match else None


def speakers_of(utterances: Iterable[str], layout: Layout) -> set[str]:
    """The speakers of all ids that say theirs."""
    return {speaker for utterance in utterances if (speaker := speaker_of(utterance, layout))}
