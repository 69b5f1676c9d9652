"""Lengths from label files and headers, as other readers of sound files tell them."""

from __future__ import annotations

import struct
import wave
from pathlib import Path

import pytest

from datamodules.extraction.index.lengths import seconds_of, wav_seconds
from datamodules.extraction.recordings import Recording, Source


def write_wav(path: Path, rate: int, channels: int, frames: int) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(b"\0" * frames * channels * 2)


@pytest.mark.parametrize(("rate", "channels", "frames"), [(16000, 1, 24000), (48000, 2, 1), (44100, 2, 0)])
def test_the_header_of_a_wav(tmp_path: Path, rate: int, channels: int, frames: int) -> None:
    path = tmp_path / "a.wav"
    write_wav(path, rate, channels, frames)
    assert wav_seconds(path) == pytest.approx(frames / rate)


def test_chunks_before_the_sound_and_lengths_that_were_never_written(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    sound = b"\0" * 32000
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, 16000, 32000, 2, 16)
    other = struct.pack("<4sI", b"LIST", 3) + b"abc\0"
    for length in (len(sound), 0, 0xFFFFFFFF):
        path.write_bytes(b"RIFF\0\0\0\0WAVE" + other + form + struct.pack("<4sI", b"data", length) + sound)
        assert wav_seconds(path) == 1.0


@pytest.mark.parametrize(
    "content",
    [b"", b"RIFF", b"ID3 and more bytes", b"RIFF\0\0\0\0WAVEdata\4\0\0\0abcd", b"RIFF\0\0\0\0WAVE" + b"\0" * 5000],
)
def test_what_is_no_wav(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    assert wav_seconds(path) is None
    assert wav_seconds(tmp_path / "no.wav") is None


def test_times_come_first_and_only_a_wav_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "a.WAV"
    write_wav(path, 16000, 1, 32000)
    assert seconds_of(Recording("a", picture=Source(path, 1.5, 4.0), sound=Source(path))) == 2.5
    assert seconds_of(Recording("a", sound=Source(path, 1.0, 1.25))) == 0.25
    assert seconds_of(Recording("a", sound=Source(path, 0.5))) == 1.5
    assert seconds_of(Recording("a", sound=Source(path, 9.0))) == 0.0
    assert seconds_of(Recording("a", sound=Source(tmp_path / "a.mp4"))) is None
    assert seconds_of(Recording("a", text="words")) is None
