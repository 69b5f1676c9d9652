"""The sound of utterances: spans of files, mixed to mono, resampled."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.signal import resample_poly

from datamodules.extraction.dependencies import require
from datamodules.extraction.extractor import Absent, FloatArray
from datamodules.extraction.media.containers import LONGEST, beginning, open_track, reason, seconds_of
from datamodules.extraction.recordings import Source

SILENT = 1e-4
"""Peak below which nothing was recorded, -80 dB."""

SHORTEST = 0.06
"""Seconds: the longest window of comparE."""

_FULL = 0.999
"""Of full scale, which 16 bits do not reach on the positive side."""

_JITTER = 0.05
"""Seconds that a time stamp may be off; a larger step is a gap."""

_RATES = range(1_000, 768_001)
"""Hertz that are believed; a damaged header may say anything."""


@dataclass(frozen=True)
class Heard:
    """Sound of one span.

    Attributes:
        samples: mono, float32 [n].
        rate: hertz.
        damaged: why nothing was read after it; None if nothing is wrong.
    """

    samples: FloatArray
    rate: int
    damaged: str | None = None

    @property
    def seconds(self) -> float:
        """How long it is."""
        return len(self.samples) / self.rate


@dataclass
class _Collector:
    """Gathers one span; a gap in the time stamps is silence.

    Attributes:
        number: of the span.
        first: index of its first sample in the file.
        last: index after its last one; None to the end.
        pieces: index and samples of what came.
    """

    number: int
    first: int
    last: int | None
    pieces: list[tuple[int, FloatArray]] = field(default_factory=list)

    def add(self, at: int, samples: FloatArray) -> None:
        """Take what belongs to it of ``samples``, which begin at index ``at`` of the file."""
        begin = max(self.first - at, 0)
        end = len(samples) if self.last is None else min(self.last - at, len(samples))
        if begin < end:
            self.pieces.append((at + begin - self.first, samples[begin:end]))

    def samples(self) -> FloatArray:
        """All of it."""
        length = max((at + len(piece) for at, piece in self.pieces), default=0)
        whole = np.zeros(length, np.float32)
        for at, piece in self.pieces:
            whole[at : at + len(piece)] = piece
        return whole


def listen(path: Path, spans: Sequence[Source]) -> Iterator[tuple[int, Heard | Absent]]:
    """Decode a file once, forward.

    Args:
        path: the file.
        spans: what is wanted of it.

    Yields:
        The number of a span and its sound, or why there is none, in the order that they end.

    Raises:
        InputError: PyAV is not installed.
    """
    try:
        with open_track(path, "audio") as (container, track):
            yield from _listen(container, track, spans)
    except Absent as absent:
        for number in range(len(spans)):
            yield number, absent


def _listen(container: Any, track: Any, spans: Sequence[Source]) -> Iterator[tuple[int, Heard | Absent]]:
    rate = int(track.codec_context.sample_rate or 0)
    if rate not in _RATES:
        raise Absent(f"cannot be read: its sound has {rate} samples a second")
    limit = int(LONGEST * rate)
    waiting = sorted(
        (
            _Collector(number, round(span.start * rate), None if span.end is None else round(span.end * rate))
            for number, span in enumerate(spans)
        ),
        key=lambda one: -one.first,
    )
    active: list[_Collector] = []
    damaged: str | None = None
    frames = _Frames(container, track, rate)
    for at, samples in frames:
        end = at + len(samples)
        while waiting and waiting[-1].first < end:
            active.append(waiting.pop())
        for one in list(active):
            if end - one.first > limit and (one.last is None or one.last - one.first > limit):
                active.remove(one)
                yield one.number, Absent(f"longer than {LONGEST:.0f} s")
                continue
            one.add(at, samples)
            if one.last is not None and one.last <= end:
                active.remove(one)
                yield one.number, Heard(one.samples(), rate)
        if not active and not waiting:
            return
    damaged = frames.damaged
    for one in sorted([*active, *waiting], key=lambda one: one.number):
        samples = one.samples()
        if len(samples):
            yield one.number, Heard(samples, rate, damaged)
        else:
            yield one.number, Absent(f"cannot be read: {damaged}" if damaged else "no sound in its time")


class _Frames:
    """Decoded sound with its place in the file; ends at the first error, which ``damaged`` then names."""

    def __init__(self, container: Any, track: Any, rate: int) -> None:
        self.damaged: str | None = None
        self._container, self._track, self._rate = container, track, rate

    def __iter__(self) -> Iterator[tuple[int, FloatArray]]:
        av = require("av")
        origin, at = beginning(self._container), 0
        try:
            for frame in self._container.decode(self._track):
                if frame.sample_rate != self._rate:
                    self.damaged = "its sample rate changes"
                    return
                if frame.pts is not None and frame.time_base is not None:
                    index = round((seconds_of(frame.pts, frame.time_base) - origin) * self._rate)
                    if abs(index - at) > _JITTER * self._rate:
                        at = index
                samples = mono(frame)
                yield at, samples
                at += len(samples)
        except (av.FFmpegError, ValueError, OSError) as error:
            self.damaged = reason(error)


def mono(frame: Any) -> FloatArray:
    """The mean of all channels in -1..1."""
    values: npt.NDArray[Any] = frame.to_ndarray()
    if values.dtype == np.uint8:
        scaled = (values.astype(np.float32) - 128) / 128
    elif values.dtype.kind == "i":
        scaled = values.astype(np.float64) / -float(np.iinfo(values.dtype).min)
    else:
        scaled = values
    if not frame.format.is_planar:
        scaled = scaled.reshape(-1, frame.layout.nb_channels).T
    mixed: FloatArray = np.nan_to_num(scaled.mean(axis=0, dtype=np.float64), posinf=0.0, neginf=0.0).astype(np.float32)
    return mixed


def resampled(samples: FloatArray, rate: int, wanted: int) -> FloatArray:
    """Sound at another rate, by a polyphase filter.

    Args:
        samples: float32 [n].
        rate: hertz it has.
        wanted: hertz.
    """
    if rate == wanted:
        return samples
    shared = math.gcd(rate, wanted)
    values: FloatArray = resample_poly(samples, wanted // shared, rate // shared).astype(np.float32)
    return values


def usable(samples: FloatArray, rate: int) -> tuple[str, ...]:
    """Check that something was recorded.

    Args:
        samples: float32 [n], as recorded.
        rate: hertz.

    Returns:
        Remarks: ``clipped``, ``quiet``.

    Raises:
        Absent: it is too short, or silent.
    """
    if len(samples) < SHORTEST * rate:
        raise Absent(f"shorter than {SHORTEST * 1000:.0f} ms")
    loudness = np.abs(samples)
    if loudness.max() < SILENT:
        raise Absent("silent")
    remarks = []
    if np.mean(loudness >= _FULL) > 0.01:
        remarks.append("clipped")
    if np.sqrt(np.mean(np.square(samples, dtype=np.float64))) < 10 ** (-50 / 20):
        remarks.append("quiet")
    return tuple(remarks)
