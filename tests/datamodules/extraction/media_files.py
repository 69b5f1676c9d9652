"""Small media files for tests, and recordings of them."""

from __future__ import annotations

import wave
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from datamodules.extraction.dependencies import require

Array = npt.NDArray[Any]


def face_picture(height: int = 240, width: int = 320, left: int = 90, size: int = 140) -> Array:
    """A photograph of a face (NASA, public domain) of about ``size`` columns on a plain wall, uint8 [H, W, 3]."""
    face = Image.fromarray(require("skimage.data").astronaut()[30:250, 120:340]).resize((size, size))
    picture = np.full((height, width, 3), (120, 130, 140), np.uint8)
    top = (height - size) // 2
    picture[top : top + size, left : left + size] = np.asarray(face)
    return picture


def voice(seconds: float, rate: int = 16_000, loudness: float = 0.2) -> Array:
    """A buzz float64 [n] with a slowly changing pitch."""
    time = np.arange(round(seconds * rate)) / rate
    phase = np.cumsum(120 + 30 * np.sin(2 * np.pi * time)) / rate
    harmonics = sum(np.sin(2 * np.pi * k * phase) / k for k in range(1, 12))
    noise = np.random.default_rng(0).normal(0, 0.01, len(time))
    return np.asarray(loudness * (harmonics / np.abs(harmonics).max() + noise))


def write_wav(path: Path, samples: Array, rate: int = 16_000) -> Path:
    """16-bit PCM of samples [n] or [n, channels]."""
    data = np.clip(np.round(samples * 32768), -32768, 32767).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1 if samples.ndim == 1 else samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(data.tobytes())
    return path


def write_video(
    path: Path,
    pictures: Sequence[Array],
    fps: int | Fraction = 25,
    sound: Array | None = None,
    rate: int = 16_000,
    codec: str = "mpeg4",
    times: Sequence[float] | None = None,
    sound_codec: str = "pcm_s16le",
    pixels: str = "yuv420p",
) -> Path:
    """A video of RGB pictures [H, W, 3], lossless with ``ffv1``; with time stamps of its own if ``times`` are given."""
    import av

    with av.open(str(path), "w") as file:
        stream: Any = file.add_stream(codec, rate=Fraction(fps))
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = pixels
        if codec == "mpeg4":
            stream.bit_rate = 2_000_000
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        track: Any = None
        if sound is not None:
            track = file.add_stream(sound_codec, rate=rate, layout="mono" if sound.ndim == 1 else "stereo")
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = round(1000 * times[number]), Fraction(1, 1000)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
        if sound is not None:
            data = np.clip(np.round(sound * 32768), -32768, 32767).astype(np.int16)
            audio = av.AudioFrame.from_ndarray(data.reshape(1, -1), format="s16", layout=track.layout.name)
            audio.sample_rate, audio.pts, audio.time_base = rate, 0, Fraction(1, rate)
            for part in _frames_of(audio, track, rate):
                file.mux(track.encode(part))
            file.mux(track.encode(None))
    return path


def _frames_of(audio: Any, track: Any, rate: int) -> list[Any]:
    """The sound in the format and the pieces that the encoder takes."""
    import av

    size = track.codec_context.frame_size or 1024
    resampler = av.AudioResampler(track.codec_context.format or "s16", track.layout.name, rate, size)
    return [*resampler.resample(audio), *resampler.resample(None)]
