"""Lengths of recordings, as far as label files and headers of sound files tell."""

from __future__ import annotations

import struct
from pathlib import Path

from datamodules.extraction.recordings import Recording

_HEADER = 4096
"""Bytes in which the chunks ``fmt`` and ``data`` of a sound file begin."""


def seconds_of(recording: Recording) -> float | None:
    """Length of an utterance, None if only decoding tells."""
    for source in (recording.picture, recording.sound):
        if source is not None and source.end is not None:
            return source.end - source.start
    sound = recording.sound
    if sound is None or sound.path.suffix.lower() != ".wav":
        return None
    whole = wav_seconds(sound.path)
    return None if whole is None else max(0.0, whole - sound.start)


def wav_seconds(path: Path) -> float | None:
    """Length of a RIFF sound file by its header; None if it has no such header."""
    try:
        with path.open("rb") as file:
            header = file.read(_HEADER)
        size = path.stat().st_size
    except OSError:
        return None
    if header[:4] != b"RIFF" or header[8:12] != b"WAVE":
        return None
    at, bytes_per_second = 12, 0
    while at + 8 <= len(header):
        name, length = struct.unpack_from("<4sI", header, at)
        at += 8
        if name == b"fmt " and at + 12 <= len(header):
            (bytes_per_second,) = struct.unpack_from("<I", header, at + 8)
        if name == b"data":
            # A recorder that was stopped, or a stream, leaves a length of 0 or of 4 GB.
            there = min(length or size, size - at)
            return there / bytes_per_second if bytes_per_second else None
        at += length + length % 2  # chunks begin at even bytes
    return None
