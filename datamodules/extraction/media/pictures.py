"""Pictures of a video, sampled by their time stamps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.extraction.dependencies import require
from datamodules.extraction.extractor import Absent
from datamodules.extraction.media.containers import LONGEST, beginning, open_track, reason, seconds_of
from datamodules.extraction.media.detectors import UInt8Array
from datamodules.extraction.recordings import Source

_EXACT = 0.0006
"""Seconds within which two times are the same: some containers round to milliseconds."""

_LONGEST_STILL = 1.0
"""Seconds for which a picture is shown at most: what follows a longer gap was not seen."""

_LUMA_FIRST = ("yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p", "yuv411p", "nv12", "nv21")
"""Formats of 8 bits whose first plane is lightness."""

_TO_FULL_RANGE = np.clip(np.round((np.arange(256) - 16) * (255 / 219)), 0, 255).astype(np.uint8)
"""Lightness 16..235, as video has it, to 0..255."""


class Picture:
    """One picture, turned upright, converted when it is asked for.

    Args:
        frame: of PyAV; or an array uint8 [H, W, 3] in RGB.
        rotation: degrees to turn it by, counter-clockwise; a multiple of 90.
    """

    def __init__(self, frame: Any, rotation: int = 0) -> None:
        self._frame = frame
        self._turns = rotation // 90 % 4
        self._grey: UInt8Array | None = None
        self._rgb: UInt8Array | None = None

    @property
    def grey(self) -> UInt8Array:
        """Lightness uint8 [H, W] in 0..255."""
        if self._grey is None:
            self._grey = np.rot90(self._lightness(), self._turns)
        return self._grey

    @property
    def rgb(self) -> UInt8Array:
        """Colours uint8 [H, W, 3]."""
        if self._rgb is None:
            pixels = self._frame if isinstance(self._frame, np.ndarray) else self._frame.to_ndarray(format="rgb24")
            self._rgb = np.rot90(pixels, self._turns)
        return self._rgb

    def _lightness(self) -> UInt8Array:
        """Without a conversion to RGB where the frame has a plane of lightness."""
        if not isinstance(self._frame, np.ndarray) and self._frame.format.name in _LUMA_FIRST:
            plane = self._frame.planes[0]
            rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
            lightness = rows[: self._frame.height, : self._frame.width]
            full = self._frame.format.name.startswith("yuvj") or self._frame.color_range == 2
            return lightness if full else _TO_FULL_RANGE[lightness]
        pixels = self._frame if isinstance(self._frame, np.ndarray) else self._frame.to_ndarray(format="rgb24")
        weighted = pixels.astype(np.uint32) @ np.array([299, 587, 114], np.uint32)
        grey: UInt8Array = ((weighted + 500) // 1000).astype(np.uint8)
        return grey


@dataclass(frozen=True)
class Shown:
    """A picture and when it is shown.

    Attributes:
        picture: what is seen.
        start: seconds from the beginning of the file.
        end: seconds; the start of the next one, or later than that if nothing follows.
    """

    picture: Picture
    start: float
    end: float


class Film:
    """The pictures of a video file, decoded forward, each time it is iterated over.

    Iterating raises :class:`Absent` if the file is not there or has no video track.

    Args:
        path: the file.

    Attributes:
        damaged: after an iteration, why it ended early; None if nothing is wrong.
    """

    def __init__(self, path: Path) -> None:
        self.damaged: str | None = None
        self._path = path

    def __iter__(self) -> Iterator[Shown]:
        """Decode it; at an error it ends."""
        av = require("av")
        self.damaged = None
        with open_track(self._path, "video") as (container, track):
            origin = beginning(container)
            usual = 1 / float(track.average_rate) if track.average_rate else 0.04
            last: tuple[Picture, float] | None = None
            try:
                for frame in container.decode(track):
                    time = 0.0 if last is None else last[1] + usual
                    if frame.pts is not None and frame.time_base is not None:
                        time = seconds_of(frame.pts, frame.time_base) - origin
                    if last is not None:
                        if time <= last[1]:
                            continue  # a damaged time stamp
                        yield Shown(last[0], last[1], min(time, last[1] + _LONGEST_STILL))
                    last = Picture(frame, int(frame.rotation)), time
            except (av.FFmpegError, ValueError, OSError) as error:
                self.damaged = reason(error)
            if last is not None:
                yield Shown(last[0], last[1], last[1] + min(usual, _LONGEST_STILL))


class Frames:
    """Pictures in memory.

    Args:
        frames: uint8 [H, W, 3] each, in RGB.
        fps: how many are shown a second.

    Attributes:
        damaged: None; as :class:`Film` has it.
    """

    def __init__(self, frames: Sequence[UInt8Array], fps: float) -> None:
        self.damaged: str | None = None
        self._frames, self._fps = frames, fps

    def __iter__(self) -> Iterator[Shown]:
        """All of them, in order."""
        for number, frame in enumerate(self._frames):
            yield Shown(Picture(frame), number / self._fps, (number + 1) / self._fps)


def sample(film: Iterable[Shown], spans: Sequence[Source], fps: float) -> Iterator[tuple[int, float, Picture | None]]:
    """Go through a film once, forward, and take from each span what is shown every 1/``fps`` seconds from its start.

    A span that begins less than 1/``fps`` seconds before the first picture begins with that one.

    Args:
        film: what is shown, in time order.
        spans: of it.
        fps: pictures a second.

    Yields:
        The number of a span, seconds from its start and a picture; then once, when nothing more comes, None instead of
        the picture and how many seconds the span has.
    """
    waiting = sorted(range(len(spans)), key=lambda number: -spans[number].start)
    active: list[int] = []
    taken = [0] * len(spans)
    seen = [0.0] * len(spans)

    def finished(number: int) -> tuple[int, float, None]:
        span = spans[number]
        return number, seen[number] if span.end is None else span.end - span.start, None

    for shown in film:
        while waiting and spans[waiting[-1]].start < shown.end - _EXACT:
            active.append(waiting.pop())
        for number in list(active):
            start, end = spans[number].start, spans[number].end
            stop = min(shown.end, start + LONGEST, shown.end if end is None else end)
            while (time := taken[number] / fps) + start < stop - _EXACT:
                taken[number] += 1
                if time + start > shown.start - 1 / fps:
                    yield number, time, shown.picture
            seen[number] = max(seen[number], shown.end - start)
            if shown.end >= (start + LONGEST + 2 * _EXACT if end is None else end) - _EXACT:
                active.remove(number)
                yield finished(number)
        if not active and not waiting:
            return
    for number in sorted([*active, *waiting]):
        yield finished(number)


def check_length(span: Source, seconds: float) -> None:
    """Refuse what is no utterance.

    Raises:
        Absent: it is longer than :data:`LONGEST`.
    """
    if seconds > LONGEST or (span.end is not None and span.end - span.start > LONGEST):
        raise Absent(f"longer than {LONGEST:.0f} s")
