"""What distinguishes one corpus in the public feature layout from another."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from datamodules.classes import choose_classes
from datamodules.conditions import MODALITIES
from datamodules.errors import InputError
from datamodules.labels import Classes, LabelScheme, Scale
from datamodules.storage.ids import EXACT, MatchRule, key_of

if TYPE_CHECKING:
    from datamodules.storage.description import Description

Incomplete = Literal["refuse", "drop", "keep"]
"""What becomes of labelled utterances that lack a modality."""

FOLDERS: tuple[str, str, str] = ("A", "V", "L")
"""The folder of each modality, in the order of :data:`~datamodules.conditions.MODALITIES`."""


@dataclass(frozen=True)
class Layout:
    """The names, classes, folds and utterance ids of one corpus.

    Attributes:
        name: the corpus, as messages call it.
        feature_names: of audio, visual and text: ``A/<name>.h5``, ``V/<name>.h5``, ``L/<name>.h5``.
        labels: what the labels are, classes in label order or a scale.
        folds: the number of folds, which are called 1..folds; 0 where nothing is labelled.
        speaker_pattern: a regular expression; the groups that match, joined, are an utterance's speaker.
        statistics_name: ``A/<name>.h5`` may have each fold's mean and std of the audio features.
        match_ids: the rule by which ids of target files are those of feature files.
        drop_unknown_labels: whether utterances of no or another class are left out, instead of being a problem.
        zero_frames_absent: whether an utterance whose frames are all zero, or were never written, lacks the modality.
        incomplete: what becomes of labelled utterances that lack a modality: they are a problem, left out, or kept.
        independent_folds: whether every fold is data of its own, in a root of its own, and shares nothing with others.
        speakers_shared: whether published splits share speakers, which is noted and not refused.
        invented: whether its recordings are made up, in the form of a corpus.
        description: what says all this, where it is the corpus itself and not a class; it knows the speakers then.
        turn_pattern: a regular expression; the group that matches is the number of a speaker's turn in a dialogue, and
            the id without it names both of them. None: ids do not say it.
        dialogue_turns: how many successive turns make a dialogue, where ids count a speaker's turns and name none.
    """

    name: str
    feature_names: tuple[str, str, str]
    labels: LabelScheme
    folds: int
    speaker_pattern: str
    statistics_name: str = "comparE_mean_std"
    match_ids: MatchRule = EXACT
    drop_unknown_labels: bool = False
    zero_frames_absent: bool = False
    incomplete: Incomplete = "refuse"
    independent_folds: bool = False
    speakers_shared: bool = False
    invented: bool = False
    description: Description | None = None
    turn_pattern: str | None = None
    dialogue_turns: int | None = None

    @property
    def class_names(self) -> tuple[str, ...]:
        """Class names in label order, () for a scale."""
        return self.labels.names

    @property
    def monitor(self) -> str | None:
        """The metric that selects models if the corpus itself names one; otherwise its class does."""
        return None if self.description is None else self.description.monitor

    @property
    def ids_have_folders(self) -> bool:
        """Whether an id such as ``take1/0003`` is an entry in a group of the feature file."""
        return self.description is not None

    def with_features(self, audio: str | None = None, visual: str | None = None, text: str | None = None) -> Layout:
        """Replace the names of features that are given; ``.h5`` and the modality's own folder are dropped.

        >>> IEMOCAP_LAYOUT.with_features(audio="A/wav2vec.h5").feature_names
        ('wav2vec', 'denseface', 'bert_large')
        """
        given = zip((audio, visual, text), self.feature_names, FOLDERS, strict=True)
        first, second, third = (
            name.removeprefix("./").removeprefix(f"{folder}/").removesuffix(".h5") if name else usual
            for name, usual, folder in given
        )
        return replace(self, feature_names=(first, second, third))

    def with_options(self, options: Mapping[str, Any]) -> Layout:
        """Read a corpus as the options of a datamodule say: feature names, classes, matching of ids, what is left out.

        Args:
            options: of :class:`~datamodules.base.EmotionDataModule`, by name; others are ignored.

        Raises:
            InputError: the classes that are chosen are none of the corpus's.
        """
        named = self.with_features(*(options.get(f"{name}_features") for name in MODALITIES))
        reading = ("match_ids", "drop_unknown_labels", "zero_frames_absent", "incomplete")
        given = {name: options[name] for name in reading if options.get(name) is not None}
        if self.description is not None and "match_ids" in given:
            given["description"] = self.description.matching(given["match_ids"])
        classes, names = options.get("classes"), options.get("label_names")
        labels = choose_classes(self.labels, self.name, classes, names, described=self.description is not None)
        return replace(named, labels=labels, **given)

    def feature_path(self, root: Path, modality: int) -> Path:
        """Path of the features of a modality (0 audio, 1 visual, 2 text)."""
        return root / FOLDERS[modality] / f"{self.feature_names[modality]}.h5"

    def statistics_path(self, root: Path) -> Path:
        """Path of the audio statistics that may come with a corpus."""
        return root / FOLDERS[MODALITIES.index("audio")] / f"{self.statistics_name}.h5"

    def target_folder(self, root: Path, fold: int) -> Path:
        """Folder of the label files of a fold.

        Raises:
            InputError: there is no such fold.
        """
        if not self.folds:
            raise InputError(f"{self.name}: its utterances have no labels, so there are no folds, but predict works.")
        if not 1 <= fold <= self.folds:
            raise InputError(f"fold {fold}: {self.name} has folds 1..{self.folds}.")
        return root / "target" / str(fold)


EMOTIONS = Classes(("angry", "happy", "neutral", "sad"))
"""The four classes of both corpora, in label order."""

# Ses01F_impro04_M012: session 1, recorded with the motion capture on the woman, spoken by the man.
_IEMOCAP_SPEAKER = r"^(Ses\d+)[FM]_.+_([FM])[^_]*$"

# MSP-IMPROV-S01A-F01-P-FM01: sentence 1 in anger, speaker F01. The IEMOCAP form is accepted too.
_MSP_SPEAKER = rf"^MSP-IMPROV-[^-]+-([FM]\d+)-|{_IEMOCAP_SPEAKER}"

# Ses01F_impro04_M012: the man's turn 12, counted from 0 apart from the woman's. Turns that transcriptions call XX0, ...
# are not labelled, and have no place among the others.
_IEMOCAP_TURN = r"^Ses\d+[FM]_(?:impro|script)\d+[ab]?(?:_\d+[ab]?)?_[FM](\d{3,})$"

# MSP-IMPROV-S01A-F01-P-FM01, UTD-IMPROV- in label files: sentence 1 in anger, recording P, turn 1. Whether F01 or one
# of the last letters says who speaks is disputed; a chain shares both, so that either way it is one person.
_MSP_TURN = rf"^(?:MSP|UTD)-IMPROV-S\d+[AHSN]-[FM]\d+-[PRST]-[FM]{{2}}(\d+)$|{_IEMOCAP_TURN}"

IEMOCAP_LAYOUT = Layout(
    "IEMOCAP", ("comparE", "denseface", "bert_large"), EMOTIONS, 10, _IEMOCAP_SPEAKER, turn_pattern=_IEMOCAP_TURN
)

# The public pack does not say MSP-IMPROV's label order; its authors' preprocess/msp/arrange_data.py does: A, H, N, S.
MSP_IMPROV_LAYOUT = Layout(
    "MSP-IMPROV", ("comparE_raw", "denseface", "bert_large"), EMOTIONS, 12, _MSP_SPEAKER, turn_pattern=_MSP_TURN
)

# 03bSnISJMiM$_$1: the second clip of a video.
_VIDEO = r"^(.+?)\$_\$"

CMU_MOSI_LAYOUT = Layout("CMU-MOSI", ("covarep", "facet", "bert"), Scale(-3, 3), 1, _VIDEO)

CMU_MOSEI_LAYOUT = Layout("CMU-MOSEI", ("covarep", "facet", "bert"), Scale(-3, 3), 1, _VIDEO)

# Its videos are films and shows, cut into clips of which some train and some test.
CH_SIMS_LAYOUT = Layout("CH-SIMS", ("librosa", "openface", "bert"), Scale(-1, 1), 1, _VIDEO, speakers_shared=True)


def speaker_of(utterance: str, layout: Layout) -> str | None:
    """Find who speaks by the utterance's id or the corpus's description, None if neither says.

    >>> speaker_of("Ses01F_impro04_M012", IEMOCAP_LAYOUT)
    'Ses01M'
    """
    if layout.description is not None:
        return layout.description.speakers.get(key_of(utterance, layout.match_ids))
    ignores_case = layout.match_ids in ("case", "all")
    match = re.search(layout.speaker_pattern, utterance, re.IGNORECASE if ignores_case else 0)
    if match is None:
        return None
    speaker = "".join(group for group in match.groups() if group)
    return (speaker.upper() if ignores_case else speaker) or None


def speakers_of(utterances: Iterable[str], layout: Layout) -> set[str]:
    """Collect the speakers of all ids that name theirs."""
    return {speaker for utterance in utterances if (speaker := speaker_of(utterance, layout))}
