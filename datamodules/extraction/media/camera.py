"""A camera and a microphone, of which the last seconds are kept."""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from datamodules.errors import InputError
from datamodules.extraction.dependencies import require
from datamodules.extraction.extractor import FloatArray
from datamodules.extraction.media.containers import reason, seconds_of
from datamodules.extraction.media.sound import mono
from datamodules.text import printable

_CAMERAS = {"linux": ("v4l2", "/dev/video{}"), "darwin": ("avfoundation", "{}:none")}
_MICROPHONES = {"linux": ("alsa", "default"), "darwin": ("avfoundation", ":0")}

_OLDEST = 1.0
"""Seconds after which a picture is not taken for what a camera sees."""

_PATIENCE = 2.0
"""Seconds that a device may take to let go."""


@dataclass(frozen=True)
class Device:
    """What FFmpeg opens.

    Attributes:
        name: of a device, in the words of its format, or the path of a file.
        format: of FFmpeg: ``v4l2``, ``alsa``, ``avfoundation``, ``dshow``, ...; None of a file.
        shown: what the user called it.
    """

    name: str
    format: str | None
    shown: str


def camera_named(word: str) -> Device:
    """The camera that a user means: its number, ``FORMAT:NAME`` of FFmpeg, the path of a device, or a file.

    A file is played at its own speed, as if it was a camera.

    Raises:
        InputError: this system numbers no cameras.

    >>> camera_named("v4l2:/dev/video2")
    Device(name='/dev/video2', format='v4l2', shown='v4l2:/dev/video2')
    """
    if word.isdecimal():
        if sys.platform not in _CAMERAS:
            raise InputError(f"--camera {word}: cameras have names here; give dshow:video=NAME.")
        kind, name = _CAMERAS[sys.platform]
        return Device(name.format(word), kind, word)
    return _named(word)


def microphone_named(word: str | None) -> Device | None:
    """The microphone that a user means, ``FORMAT:NAME`` of FFmpeg or a file; the system's for None.

    Returns:
        None where the user wants none, or the system names none.
    """
    if word == "none":
        return None
    if word is not None:
        return _named(word)
    found = _MICROPHONES.get(sys.platform)
    return None if found is None else Device(found[1], found[0], f"{found[0]}:{found[1]}")


def _named(word: str) -> Device:
    kind, colon, name = word.partition(":")
    if Path(word).is_file() or not colon:
        if word.startswith("/dev/video"):
            return Device(word, "v4l2", word)
        return Device(word, None, word)
    return Device(name, kind, word)


class Live:
    """Keeps the last seconds of a device, read in a thread of its own.

    Args:
        device: to open.
        kind: ``video`` or ``audio``.
        keep: seconds that are kept.
        fps: pictures a second that are kept.

    Raises:
        InputError: it cannot be opened, or has no such track.
    """

    def __init__(self, device: Device, kind: str, keep: float, fps: float) -> None:
        av = require("av")
        self.device = device
        try:
            self._container = av.open(device.name, format=device.format)
        except (av.FFmpegError, OSError, ValueError) as error:
            what = {"video": "camera", "audio": "microphone"}[kind]
            raise InputError(f"{what} {printable(device.shown, 80)}: cannot be opened ({reason(error)}).") from error
        streams = getattr(self._container.streams, kind)
        if not streams:
            self._container.close()
            raise InputError(f"{printable(device.shown, 80)}: it has no {kind}; give another device.")
        self._stream, self._keep, self._fps = streams[0], keep + _OLDEST, fps
        self.rate = int(self._stream.codec_context.sample_rate or 0) if kind == "audio" else 0
        self._kept: deque[tuple[float, npt.NDArray[Any]]] = deque()
        self._lock, self._stop = threading.Lock(), threading.Event()
        self.ended = threading.Event()
        self._take = self._take_sound if kind == "audio" else self._take_picture
        # A device sends at its own pace; a file, or a generator of test pictures, as fast as it is read.
        self._paced = device.format in (None, "lavfi")
        self._thread = threading.Thread(target=self._read, daemon=True, name=f"{kind} {device.shown}")
        self.started = time.monotonic()
        self._thread.start()

    def close(self) -> None:
        """Let go of the device."""
        self._stop.set()
        self._thread.join(_PATIENCE)
        if not self._thread.is_alive():  # a device that hangs is left to the end of the process
            self._container.close()

    def pictures(self, start: float, seconds: float) -> list[npt.NDArray[np.uint8]]:
        """Pictures uint8 [H, W, 3] at the rate that is kept, from ``start`` by the clock of :func:`time.monotonic`."""
        with self._lock:
            kept = list(self._kept)
        found, position = [], -1
        for number in range(round(seconds * self._fps)):
            moment = start + number / self._fps
            while position + 1 < len(kept) and kept[position + 1][0] <= moment:
                position += 1
            if position >= 0 and moment - kept[position][0] < _OLDEST:
                found.append(kept[position][1])
        return found

    def sound(self, start: float, seconds: float) -> FloatArray:
        """Sound float32 [n] from ``start``; silence where none came."""
        whole = np.zeros(round(seconds * self.rate), np.float32)
        with self._lock:
            kept = list(self._kept)
        if not kept:
            return whole[:0]
        # Pieces follow each other without a gap, though they arrive at uneven times: the last one tells where all are.
        end = round((kept[-1][0] - start) * self.rate)
        for _, piece in reversed(kept):
            first = end - len(piece)
            begin, stop = max(first, 0), min(end, len(whole))
            if begin < stop:
                whole[begin:stop] = piece[begin - first : stop - first]
            end = first
        return whole

    def _read(self) -> None:
        av = require("av")
        first: float | None = None
        try:
            for frame in self._container.decode(self._stream):
                if self._paced and frame.pts is not None:
                    at = seconds_of(frame.pts, frame.time_base)
                    first = at if first is None else first
                    length = frame.samples / frame.sample_rate if self.rate else 0.0
                    if self._stop.wait(max(0.0, self.started + at - first + length - time.monotonic())):
                        return
                if self._stop.is_set():
                    return
                self._take(frame)
        except (av.FFmpegError, OSError, ValueError):
            pass  # unplugged; the end is told
        finally:
            self.ended.set()

    def _take_picture(self, frame: Any) -> None:
        now = time.monotonic()
        # Half a period early is in time: the camera's pace need not be a multiple of ours.
        if self._kept and now - self._kept[-1][0] < 0.5 / self._fps:
            return
        self._add(now, frame.to_ndarray(format="rgb24"))

    def _take_sound(self, frame: Any) -> None:
        self._add(time.monotonic(), mono(frame))

    def _add(self, now: float, piece: npt.NDArray[Any]) -> None:
        with self._lock:
            self._kept.append((now, piece))
            while self._kept[0][0] < now - self._keep:
                self._kept.popleft()
