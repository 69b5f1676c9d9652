"""What a user gives to be predicted from: a file, or pictures, sound and words in memory. Checked, not yet decoded."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from datamodules.conditions import MODALITIES
from datamodules.errors import InputError
from datamodules.extraction.extractor import FloatArray
from datamodules.extraction.media.tracks import Tracks, tracks_of
from datamodules.extraction.recordings import Half
from datamodules.files import expanded
from datamodules.text import printable

Images = Sequence[npt.NDArray[np.uint8]]
Samples = tuple[FloatArray, int]


@dataclass(frozen=True)
class Given:
    """What one utterance, or a long recording, is predicted from.

    Attributes:
        media: a video or sound file; None if everything is given by the others.
        text: the words.
        frames: pictures uint8 [H, W, 3] in RGB, instead of the file's.
        fps: how many of these are shown a second.
        samples: sound in -1..1, float32 [n] or [n, channels], and its rate in hertz, instead of the file's.
        without: modalities to leave out.
        half: the part of the picture that shows the speaker.

    Raises:
        InputError: one of them is wrong.
    """

    media: str | Path | None
    text: str | None
    frames: Images | None
    fps: float | None
    samples: Samples | None
    without: Collection[str]
    half: Half

    def __post_init__(self) -> None:
        """Check everything that can be checked without a file."""
        if isinstance(self.without, str) or (unknown := sorted({*self.without} - {*MODALITIES})):
            named = self.without if isinstance(self.without, str) else unknown[0]
            raise InputError(f"without: {printable(repr(named), 60)}; give a list of {', '.join(MODALITIES)}.")
        if self.half not in get_args(Half):
            raise InputError(f"half {printable(self.half, 60)}: give {', '.join(get_args(Half))}.")
        if self.frames is not None:
            _check_frames(self.frames, self.fps)
        if self.samples is not None:
            _check_samples(*self.samples)

    @cached_property
    def path(self) -> Path | None:
        """Of the file, if there is one."""
        return None if self.media is None else expanded(self.media)

    @property
    def shown(self) -> str:
        """What it is called."""
        if self.path is not None:
            return printable(self.path.name)
        return "memory" if self.in_memory else "text"

    @property
    def utterance(self) -> str:
        """Its id."""
        return "memory" if self.path is None else printable(self.path.stem)

    @cached_property
    def tracks(self) -> Tracks:
        """Of the file.

        Raises:
            InputError: it is not there, or not media.
        """
        assert self.path is not None
        return tracks_of(self.path)

    @cached_property
    def in_memory(self) -> dict[str, Any]:
        """What is given instead of the file's, by modality, unless left out."""
        found: dict[str, Any] = {}
        if self.samples is not None:
            found["audio"] = self.samples
        if self.frames is not None:
            found["visual"] = (self.frames, self.fps)
        return {modality: values for modality, values in found.items() if modality not in self.without}

    @property
    def seconds(self) -> float:
        """How long it is."""
        seconds = 0.0 if self.path is None else self.tracks.seconds
        if self.samples is not None:
            seconds = max(seconds, len(self.samples[0]) / self.samples[1])
        if self.frames is not None and self.fps is not None:
            seconds = max(seconds, len(self.frames) / self.fps)
        return seconds


def _check_frames(frames: Images, fps: float | None) -> None:
    if fps is None or not 0 < fps <= 1000:
        raise InputError(f"fps {fps}: give how many of the frames are shown a second.")
    shapes = {np.shape(frame) for frame in frames}
    sound = len(shapes) == 1 and all(getattr(frame, "dtype", None) == np.uint8 for frame in frames)
    if not sound or len(shape := next(iter(shapes))) != 3 or shape[2] != 3 or 0 in shape:
        raise InputError("frames: give arrays uint8 [H, W, 3] in RGB, all of one size, at least one.")


def _check_samples(samples: FloatArray, rate: int) -> None:
    if np.ndim(samples) not in (1, 2) or not np.issubdtype(np.asarray(samples).dtype, np.floating):
        raise InputError("samples: give floats [n] or [n, channels] in -1..1.")
    if not 1000 <= rate <= 768_000:
        raise InputError(f"samples: {rate} a second; give their rate in hertz, from 1000 to 768000.")
    if not np.isfinite(samples).all():
        raise InputError("samples: NaN or infinite values; correct them.")
