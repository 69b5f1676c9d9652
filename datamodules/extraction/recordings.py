"""Where the utterances of a corpus are recorded: plain data, read from file names and label files alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from datamodules.storage.problems import Problem

INVENTED = "INVENTED.txt"
"""A file of this name in a corpus's folder says that its recordings are made up: nothing on them is a corpus result."""

Half = Literal["whole", "left", "right"]
"""The part of a picture that shows the speaker."""


@dataclass(frozen=True)
class Source:
    """A span of one media file.

    Attributes:
        path: the file.
        start: seconds from its beginning.
        end: seconds from its beginning; None: to its end.
    """

    path: Path
    start: float = 0.0
    end: float | None = None


@dataclass(frozen=True)
class Recording:
    """One utterance.

    Attributes:
        utterance: its id.
        sound: whose sound track is heard; None where there is none.
        picture: whose picture track is seen; None where there is none.
        text: the words; None or blank where there is no transcript.
        half: the part of the picture that shows the speaker.
        label: name of its class; None: not labelled.
        speaker: who speaks; None: not known.
        absent: why a modality that has no source is absent, by modality: ``{"text": "no transcript"}``.
    """

    utterance: str
    sound: Source | None = None
    picture: Source | None = None
    text: str | None = None
    half: Half = "whole"
    label: str | None = None
    speaker: str | None = None
    absent: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Index:
    """What a corpus of recordings holds, before anything is decoded.

    Attributes:
        corpus: its name, as ``--data`` takes it: ``IEMOCAP``, ``MSPIMPROV`` or ``Folder``.
        class_names: in label order.
        recordings: sorted by utterance.
        folds: by number and split (``train``, ``val``, ``test``), the ids of labelled utterances, sorted.
        problems: everything that is wrong.
        notes: counts and how they compare, for the user to read.
        facts: further plain facts for ``corpus.json``, such as the scenarios taken.
    """

    corpus: str
    class_names: tuple[str, ...]
    recordings: tuple[Recording, ...]
    folds: Mapping[int, Mapping[str, tuple[str, ...]]]
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
