"""What an extractor is: one modality of one utterance in, frames [T, D] out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]

ENTRY_POINT_GROUP = "ifmmin.extractors"
"""Another distribution names an extractor's class under this group; the built-in ones register the same way."""

FRAME_RATE = 10
"""Frames a second of audio and visual features."""


class Absent(Exception):  # noqa: N818 - no error: a finding about the recording
    """This modality of this utterance is not there; its text is the reason, as ``absent.csv`` gives it."""


@dataclass(frozen=True)
class Reads:
    """What an extractor wants to be given.

    Attributes:
        kind: ``sound``: :class:`Sound`; ``faces`` or ``frames``: :class:`Pictures`, of the face or of the whole
            picture; ``text``: :class:`Words`; ``nothing``: :class:`Words` too, for files that others made by id.
        sample_rate: hertz, of sound.
        side: pixels of a picture's side.
        fps: pictures a second; of files that others made, rows a second, 0 where that is not known.
        grey: one channel instead of RGB.
    """

    kind: Literal["sound", "faces", "frames", "text", "nothing"]
    sample_rate: int = 16_000
    side: int = 64
    fps: int = FRAME_RATE
    grey: bool = False


@dataclass(frozen=True)
class Sound:
    """Sound of one utterance.

    Attributes:
        utterance: its id.
        samples: mono, float32 [n] in -1..1.
        rate: hertz, as :attr:`Reads.sample_rate` asks.
    """

    utterance: str
    samples: FloatArray
    rate: int


@dataclass(frozen=True)
class Pictures:
    """Pictures of one utterance, in time order.

    Attributes:
        utterance: its id.
        pixels: uint8 [N, side, side, 3] (RGB), or [N, side, side] where grey; N at least 1.
        times: float64 [N], seconds from the utterance's start.
        looked_at: how many frames were looked at for faces; at least N.
    """

    utterance: str
    pixels: npt.NDArray[np.uint8]
    times: npt.NDArray[np.float64]
    looked_at: int


@dataclass(frozen=True)
class Words:
    """Words of one utterance.

    Attributes:
        utterance: its id.
        text: not blank, except for extractors that read nothing.
    """

    utterance: str
    text: str


@runtime_checkable
class Extractor(Protocol):
    """Turns one modality of an utterance into features.

    A class is made with its options by keyword, in the process that uses it: weights are loaded in ``__init__``, onto
    ``device`` where it takes that option. An error other than :class:`Absent` names the utterance and ends the run.

    Attributes:
        name: stem of its feature file, ``A/<name>.h5``.
        modality: audio, visual or text.
        width: D.
        reads: what it is given.
    """

    name: str
    modality: Literal["audio", "visual", "text"]
    width: int
    reads: Reads

    def __call__(self, item: Any) -> FloatArray:
        """Compute finite features [T, D], T at least 1.

        Raises:
            Absent: there is nothing in it to compute them from.
        """

    def recipe(self) -> dict[str, Any]:
        """Everything that changes a value, as plain data: versions, model id, sha256 of weights, options."""


@dataclass(frozen=True)
class Extracted:
    """What was made of one recording.

    Attributes:
        utterance: its id.
        features: float32 [T, D] by modality, of those that are there.
        absent: why, by modality, of those that are not.
        seconds: of speech, as long as the longest of its modalities.
        remarks: of what was used although it is not as it should be: ``clipped``, ``several faces``, ...
    """

    utterance: str
    features: dict[str, FloatArray]
    absent: dict[str, str]
    seconds: float
    remarks: tuple[str, ...] = field(default=())
