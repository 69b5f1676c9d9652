"""Recordings of a few bytes, and a pipeline that needs no media: what surrounds extraction is tested with them."""

from __future__ import annotations

import hashlib
import os
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from datamodules.errors import InputError
from datamodules.extraction.extractor import Absent, Extracted, FloatArray, Reads, Words
from datamodules.extraction.recordings import Recording, Source

WIDTHS = {"audio": 3, "visual": 5, "text": 2}
NAMES = {"audio": "sound", "visual": "faces", "text": "words"}


class FakeExtractor:
    def __init__(self, modality: Literal["audio", "visual", "text"], version: int = 1) -> None:
        self.modality = modality
        self.name = NAMES[modality]
        self.width = WIDTHS[modality]
        kind: Literal["text", "sound"] = "text" if modality == "text" else "sound"
        self.reads = Reads(kind)
        self.version = version

    def __call__(self, item: Words) -> FloatArray:
        if "crash" in item.text:
            os.kill(os.getpid(), signal.SIGKILL)
        if "defect" in item.text:
            raise ZeroDivisionError("division by zero")
        if "refuse" in item.text:
            raise InputError(f"utterance {item.utterance}: refused.")
        if "full" in item.text:
            raise OSError(28, "No space left on device", "/corpus/part.npz")
        if "wait" in item.text:
            time.sleep(60)
        return expected(self.modality, item.utterance, item.text, self.version)

    def recipe(self) -> dict[str, Any]:
        return {"version": self.version}


def expected(modality: str, utterance: str, text: str, version: int = 1) -> FloatArray:
    """Features of an utterance, by a rule that needs neither parts nor files."""
    if not text or f"no {modality}" in text:
        raise Absent("silent" if text else "no such file")
    seed = hashlib.sha256(f"{modality} {utterance} {text} {version}".encode()).digest()
    random = np.random.default_rng([*seed])
    return random.standard_normal((1 + len(text) % 7, WIDTHS[modality]), dtype=np.float32)


class FakePipeline:
    """Reads files as text; an utterance's features follow from its id and the text."""

    detector = None

    def __init__(self, extractors: dict[str, Any], delay: float) -> None:
        self.extractors = extractors
        self._delay = delay

    def only(self, modalities: Sequence[str]) -> FakePipeline:
        return FakePipeline({name: self.extractors[name] for name in modalities}, self._delay)

    def extract(self, recordings: Sequence[Recording]) -> Iterator[Extracted]:
        for recording in reversed(recordings):  # any order will do
            time.sleep(self._delay)
            yield self._one(recording)

    def _one(self, recording: Recording) -> Extracted:
        features, absent = {}, {}
        for modality, extractor in self.extractors.items():
            source = {"audio": recording.sound, "visual": recording.picture}.get(modality)
            text = recording.text if modality == "text" else _content(source)
            try:
                features[modality] = extractor(Words(recording.utterance, text or ""))
            except Absent as reason:
                absent[modality] = str(reason)
        remarks = tuple(f"odd {modality}" for modality in features if "odd" in (recording.text or ""))
        return Extracted(recording.utterance, features, absent, 0.5 * len(features), remarks)


def _content(source: Source | None) -> str:
    return source.path.read_text(encoding="utf-8") if source is not None and source.path.is_file() else ""


@dataclass(frozen=True)
class MakeFake:
    """Makes the pipeline in a worker."""

    modalities: tuple[str, ...] = ("audio", "visual", "text")
    delay: float = 0.0
    visual_version: int = 1
    error: str = ""

    def __call__(self) -> FakePipeline:
        if self.error:
            raise InputError(self.error)
        versions = {"visual": self.visual_version}
        made = {name: FakeExtractor(name, versions.get(name, 1)) for name in self.modalities}  # type: ignore[arg-type]
        return FakePipeline(made, self.delay)


def write_recordings(raw: Path, dialogues: int = 3, turns: int = 4, clips: int = 40) -> list[Recording]:
    """Recordings of which some share a film, some have files of their own, and some lack this or that."""
    raw.mkdir(parents=True, exist_ok=True)
    found = []
    for dialogue in range(dialogues):
        film = raw / f"dialogue{dialogue}.avi"
        film.write_text(f"film {dialogue} " + "x" * 100 * dialogue, encoding="utf-8")
        for turn in range(turns):
            name = f"dialogue{dialogue}_turn{turn}"
            sound = raw / f"{name}.wav"
            sound.write_text(f"sound of {name}", encoding="utf-8")
            span = Source(film, float(turn), turn + 1.0)
            found.append(Recording(name, Source(sound), span, f"words {turn}", "left"))
    for clip in range(clips):
        name = f"clip{clip:02d}"
        media = raw / f"{name}.mp4"
        media.write_text("no audio here" if clip % 9 == 1 else f"clip {clip}", encoding="utf-8")
        if clip % 11 == 5:
            media.unlink()
        text = "" if clip % 8 == 2 else "odd words" if clip % 10 == 7 else f"{clip} words"
        found.append(Recording(name, Source(media), Source(media), text))
    found.append(Recording("words_only", text="nothing but words"))
    return found


def reference(recordings: Sequence[Recording], modality: str) -> tuple[dict[str, FloatArray], dict[str, str]]:
    """Features and reasons of absence of one modality, by a plain loop."""
    features, absent = {}, {}
    for recording in recordings:
        source = recording.sound if modality == "audio" else recording.picture
        text = recording.text or "" if modality == "text" else _content(source)
        try:
            features[recording.utterance] = expected(modality, recording.utterance, text)
        except Absent as reason:
            absent[recording.utterance] = str(reason)
    return features, absent
