"""Extractors of another distribution, for tests."""

from __future__ import annotations

from importlib.metadata import EntryPoint, EntryPoints
from typing import Any, Literal

import numpy as np
import pytest

from datamodules.extraction.extractor import ENTRY_POINT_GROUP, FloatArray, Reads, Sound
from datamodules.extraction.extractors import registry


class Loudness:
    """Mean square of each tenth of a second, times ``gain``."""

    modality: Literal["audio", "visual", "text"] = "audio"

    def __init__(
        self,
        gain: float = 1.0,
        steps: int = 3,
        scale: Literal["linear", "log"] = "linear",
        floor: float | None = None,
        centred: bool = False,
        *,
        device: str = "cpu",
    ) -> None:
        self.name, self.width, self.reads = "loudness", 1, Reads("sound")
        self.options = (gain, steps, scale, floor, centred)
        self.device = device

    def __call__(self, item: Sound) -> FloatArray:
        return np.ones((1, 1), np.float32)

    def recipe(self) -> dict[str, Any]:
        return {"gain": self.options[0]}


class Pinned:
    """Has weights, and a digest that they must have."""

    modality: Literal["audio", "visual", "text"] = "text"

    def __init__(self, model: str, sha256: str | None = None) -> None:
        self.name, self.width, self.reads = "pinned", 1, Reads("text")


class Faces(Pinned):
    """The same, of pictures."""

    modality = "visual"


class NamesNoModality:
    """Breaks the contract."""

    def __init__(self) -> None:
        self.name = "x"


class Greedy:
    """Takes any option; needs a module that is not there."""

    modality: Literal["audio", "visual", "text"] = "audio"

    def __init__(self, **options: Any) -> None:
        import no_such_module_at_all  # type: ignore[import-not-found]  # noqa: F401


class Detector:
    """Finds no face."""

    def __init__(self, threshold: float = 0.5, model: str = "", sha256: str = "") -> None:
        self.threshold = threshold


def pretend(monkeypatch: pytest.MonkeyPatch, **values: str) -> None:
    """Pretend that distributions with these entry points, and a detector ``boxes``, are installed and no others."""
    found = [EntryPoint(name, value, ENTRY_POINT_GROUP) for name, value in values.items()]
    points = EntryPoints([*found, EntryPoint("boxes", f"{__name__}:Detector", registry.DETECTOR_GROUP)])
    monkeypatch.setattr(registry, "entry_points", lambda group: points.select(group=group))
