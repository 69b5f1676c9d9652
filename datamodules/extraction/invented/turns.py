"""Utterances of an invented corpus: who says what, how, and what is missing of it."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

SENTENCES: dict[str, list[str]] = {
    "angry": [
        "I asked you twice to close that window.",
        "No, that's enough, I won't hear it again!",
        "You broke the kettle and you said nothing.",
        "Why does nobody here ever answer me?",
    ],
    "happy": [
        "They said yes, we can have the garden!",
        "Look, the first tomato, isn't it lovely?",
        "I laughed so much that I dropped the cake.",
        "You came, what a wonderful surprise!",
    ],
    "neutral": [
        "The library opens at nine on Mondays.",
        "Put the blue folder on the second shelf.",
        "There are eleven chairs and one table.",
        "I think the bus stops behind the station.",
    ],
    "sad": [
        "The old dog didn't come home tonight.",
        "I kept her letters, I don't know why.",
        "It was the last summer in that house.",
        "Nobody asked for him, not even once.",
    ],
    "other": ["Well, one could say that, I suppose.", "Hm, what was that noise?"],
}


@dataclass(frozen=True)
class Options:
    """What is made.

    Attributes:
        turns: utterances of each class by each speaker in a dialogue.
        syllables: at most so many in a synthetic utterance, 0.16 s each.
        width: pixels of IEMOCAP's picture (truly 720), half of them in the others. Below 480 faces get too small to be
            found in each frame.
        defects: spoil some utterances: no sound, no face, no words; a broken video.
        msp_layout: ``split`` has folders ``Audio`` and ``Video``, ``flat`` one tree.
        voice: ``synthetic``, or ``espeak-ng``, the program, which a speech recogniser can read.
        seed: of all random numbers.
        sessions: only the first so many sessions of IEMOCAP and MSP-IMPROV; None: all five, all six.
    """

    turns: int = 1
    syllables: int = 4
    width: int = 480
    defects: bool = False
    msp_layout: Literal["split", "flat"] = "split"
    voice: Literal["synthetic", "espeak-ng"] = "synthetic"
    seed: int = 0
    sessions: int | None = None

    def first(self, sessions: int) -> range:
        """Numbers, from 1, of those of ``sessions`` that are made."""
        return range(1, 1 + min(sessions, self.sessions or sessions))


@dataclass
class Turn:
    """One utterance.

    Attributes:
        name: its id.
        speaker: who speaks.
        label: the label as the corpus writes it.
        emotion: one of the four classes, or "other": how it is spoken and looks.
        text: the words.
        absent: the modalities that a reader must find absent.
        half: the half of the picture the speaker is in: left, right or whole.
        start: seconds into the dialogue.
        end: where it ends.
    """

    name: str
    speaker: str
    label: str
    emotion: str
    text: str
    absent: list[str] = field(default_factory=list)
    half: str = "whole"
    start: float = 0.0
    end: float = 0.0


def generator(*words: object) -> np.random.Generator:
    """Random numbers that depend on the words alone."""
    return np.random.default_rng(zlib.crc32(" ".join(map(str, words)).encode()))
