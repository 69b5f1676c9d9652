"""Open a media file and say in words why it cannot be used."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

from datamodules.extraction.dependencies import require
from datamodules.extraction.extractor import Absent
from datamodules.text import printable

LONGEST = 600.0
"""Seconds of an utterance. What is longer would fill the memory, and is no utterance."""

_LARGEST_PICTURE = 7680 * 4320
"""Pixels: a damaged header may ask for more memory than there is."""

_ATTACHED_PICTURE = 0x400
"""FFmpeg's flag of a cover."""

_KINDS = {"audio": "no audio track", "video": "no video track"}


@contextmanager
def open_track(path: Path, kind: Literal["audio", "video"]) -> Iterator[tuple[Any, Any]]:
    """Open a file and its first sound or picture track, decoded by one thread.

    Yields:
        PyAV's container and stream.

    Raises:
        Absent: the file is not there or not media, or has no such track.
        InputError: PyAV is not installed.
    """
    av = require("av")
    if not path.is_file():  # opening a pipe would wait for ever
        raise Absent("no such file" if not path.exists() else "not a file")
    if not path.stat().st_size:
        raise Absent("the file is empty")
    try:
        # A playlist may name addresses: only files are read. As options of streams too, they crash PyAV 14 to 16.
        container = av.open(str(path.absolute()), container_options={"protocol_whitelist": "file"})
    except (av.FFmpegError, OSError, ValueError) as error:
        raise Absent(f"cannot be read: {reason(error)}") from error
    with container:
        if container.format.name == "tty":  # text, which FFmpeg would draw as a terminal does
            raise Absent("cannot be read: it is text")
        tracks = [track for track in getattr(container.streams, kind) if not _is_cover(track)]
        if not tracks:
            raise Absent(_KINDS[kind])
        track = tracks[0]
        if track.codec_context is None:
            raise Absent(f"cannot be read: its {kind} has an unknown codec")
        track.codec_context.thread_count = 1
        if kind == "video":
            track.codec_context.options = {"max_pixels": str(_LARGEST_PICTURE)}
        yield container, track


def reason(error: BaseException) -> str:
    """What went wrong, without the path and number that PyAV adds."""
    words = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return printable(words, 100)


def seconds_of(time_stamp: int, time_base: Fraction) -> float:
    """A time stamp in seconds."""
    return float(time_stamp * time_base)


def beginning(container: Any) -> float:
    """Seconds at which the file begins by its own time stamps; its times are counted from there."""
    return (container.start_time or 0) / 1_000_000


def _is_cover(track: Any) -> bool:
    """Whether it is the picture on the cover of a sound file."""
    return bool(track.disposition.value & _ATTACHED_PICTURE)
