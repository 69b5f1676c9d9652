"""A checkpoint of features that small extractors make, and these extractors, for tests of media."""

from __future__ import annotations

from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
import torch

from datamodules.extraction.extractor import ENTRY_POINT_GROUP, FloatArray, Pictures, Reads, Sound, Words
from datamodules.extraction.extractors import registry
from datamodules.extraction.media.detectors import Face
from ifmmin import Predictor
from ifmmin.media import MediaPredictor
from tests.batches import CLASSES
from tests.ifmmin.models import MODELS, Small

WIDTHS = {"audio": 2, "visual": 3, "text": 2}
RATE = 16_000

made: list[str] = []
"""Names of the extractors made since a test cleared it."""


class Loudness:
    """Mean square and peak of each tenth of a second."""

    modality: Literal["audio"] = "audio"
    name, width, reads = "loudness", WIDTHS["audio"], Reads("sound", sample_rate=RATE)

    def __init__(self) -> None:
        made.append(self.name)

    def __call__(self, item: Sound) -> FloatArray:
        return loudness(item.samples)

    def recipe(self) -> dict[str, Any]:
        return {}


def loudness(samples: npt.NDArray[Any]) -> FloatArray:
    """Mean square and peak of each tenth of a second, the last one shorter: float32 [T, 2]."""
    step = RATE // 10
    parts = [samples[at : at + step] for at in range(0, len(samples), step)]
    return np.array([[np.square(part).mean(), np.abs(part).max()] for part in parts], np.float32)


class Colour:
    """Mean colour of each picture of a face."""

    modality: Literal["visual"] = "visual"
    name, width, reads = "colour", WIDTHS["visual"], Reads("faces", side=16)

    def __init__(self) -> None:
        made.append(self.name)

    def __call__(self, item: Pictures) -> FloatArray:
        colours: FloatArray = item.pixels.mean(axis=(1, 2), dtype=np.float64).astype(np.float32)
        return colours

    def recipe(self) -> dict[str, Any]:
        return {}


class Bright:
    """Takes the middle of a picture for a face unless the picture is dark."""

    name, grey = "bright", True

    def __call__(self, picture: npt.NDArray[np.uint8]) -> list[Face]:
        height, width = picture.shape[:2]
        is_bright = picture.mean() > 100
        return [Face(width / 4, height / 4, width / 2, height / 2, 1.0)] if is_bright else []

    def recipe(self) -> dict[str, Any]:
        return {}


class Letters:
    """Length and first letter of each word."""

    modality: Literal["text"] = "text"
    name, width, reads = "letters", WIDTHS["text"], Reads("text")

    def __init__(self) -> None:
        made.append(self.name)

    def __call__(self, item: Words) -> FloatArray:
        return letters(item.text)

    def recipe(self) -> dict[str, Any]:
        return {}


def letters(text: str) -> FloatArray:
    """Length and first letter of each word: float32 [T, 2]."""
    return np.array([[len(word), ord(word[0]) / 100] for word in text.split()], np.float32)


EXTRACTORS: dict[str, Any] = {"audio": Loudness, "visual": Colour, "text": Letters}


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that a distribution with these extractors is installed."""
    points = [EntryPoint(kind.name, f"{__name__}:{kind.__name__}", ENTRY_POINT_GROUP) for kind in EXTRACTORS.values()]
    found = EntryPoints([*points, EntryPoint("bright", f"{__name__}:Bright", registry.DETECTOR_GROUP)])
    monkeypatch.setattr(registry, "entry_points", lambda group: found.select(group=group))
    made.clear()


def extraction(*modalities: str, **facts: Any) -> dict[str, dict[str, Any]]:
    """How the features of ``modalities``, by default all, were made: a checkpoint's record of it."""
    return {
        modality: {
            "format": 1,
            "extractor": EXTRACTORS[modality].name,
            "options": {},
            "recipe": {},
            "detector": {"extractor": "bright", "options": {}} if modality == "visual" else None,
            "rate": 10,
            "width": WIDTHS[modality],
            "ifmmin": "0.1.0",
            "corpus": "Folder",
            "facts": facts,
            "utterances": "",
            "sources": "",
        }
        for modality in modalities or EXTRACTORS
    }


RECORD: dict[str, Any] = {"normalization": ["none", "none", "none"], "statistics": {}}


def media_predictor(model: str = "", *modalities: str, facts: Any = None, **options: Any) -> MediaPredictor:
    """A predictor with random weights: of a small model, or of the model of this name."""
    torch.manual_seed(0)
    kind: Any = MODELS[model] if model else Small
    built = kind(feature_dims=[*WIDTHS.values()], class_names=CLASSES, **options)
    return MediaPredictor(Predictor(built, RECORD, "small.ckpt"), extraction(*modalities, **(facts or {})))


def add_extraction(checkpoint: Path, path: Path, record: dict[str, Any] | None = None) -> Path:
    """Copy a checkpoint to ``path``, as if its features had been extracted."""
    stored = torch.load(checkpoint, weights_only=True)
    stored["ifmmin"]["data"]["extraction"] = extraction() if record is None else record
    torch.save(stored, path)
    return path
