"""Sound and video files of an invented corpus, the same bytes for the same content."""

from __future__ import annotations

import importlib
import wave
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from datamodules.errors import InputError

Array = npt.NDArray[np.float64]


def write_wav(path: Path, channels: list[Array], rate: int) -> None:
    """Write 16-bit PCM."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = np.round(np.clip(np.stack(channels, axis=1), -1, 1) * 32767).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(len(channels))
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(data.tobytes())


class Video:
    """A video file that is written frame by frame."""

    def __init__(self, path: Path, width: int, height: int, fps: Fraction, rate: int | None, channels: int = 1) -> None:
        """Open ``path``; with a sound of ``rate`` hertz unless that is None."""
        try:
            self._av: Any = importlib.import_module("av")
        except ImportError as error:
            raise InputError(f"PyAV cannot be imported ({error}); pip install 'ifmmin[media]'.") from error
        path.parent.mkdir(parents=True, exist_ok=True)
        avi = path.suffix == ".avi"
        self._file = self._av.open(str(path), "w", options={"fflags": "+bitexact"})
        self._stream = self._file.add_stream("mpeg4", rate=fps)
        self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, "yuv420p"
        self._stream.bit_rate = 900_000
        self._stream.codec_context.thread_count = 1
        self._stream.codec_context.flags |= 0x800000  # AV_CODEC_FLAG_BITEXACT
        if avi:
            self._stream.codec_context.codec_tag = "DIVX"
        self._sound = None
        if rate is not None:
            layout = "mono" if channels == 1 else "stereo"
            self._sound = self._file.add_stream("pcm_s16le" if avi else "aac", rate=rate, layout=layout)
            self._sound.codec_context.flags |= 0x800000

    def frames(self, picture: Array, times: int) -> None:
        """Write a picture [height, width, 3] of 0..1 several times."""
        frame = self._av.VideoFrame.from_ndarray(np.round(picture * 255).astype(np.uint8), format="rgb24")
        for _ in range(times):
            frame.pts = None
            self._file.mux(self._stream.encode(frame))

    def sound(self, channels: list[Array], rate: int) -> None:
        """Write all sound."""
        assert self._sound is not None
        data = np.round(np.clip(np.stack(channels, axis=1), -1, 1) * 32767).astype(np.int16)
        layout = "mono" if len(channels) == 1 else "stereo"
        for start in range(0, len(data), rate):
            part = np.ascontiguousarray(data[start : start + rate]).reshape(1, -1)
            frame = self._av.AudioFrame.from_ndarray(part, format="s16", layout=layout)
            frame.sample_rate, frame.pts = rate, start
            frame.time_base = Fraction(1, rate)
            self._file.mux(self._sound.encode(frame))

    def close(self) -> None:
        """Finish the file."""
        self._file.mux(self._stream.encode(None))
        if self._sound is not None:
            self._file.mux(self._sound.encode(None))
        self._file.close()
