"""The extractors of a checkpoint's features, made again."""

from __future__ import annotations

import logging
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from datamodules.errors import InputError
from datamodules.extraction.extractor import ENTRY_POINT_GROUP, FloatArray, Reads
from datamodules.extraction.extractors import registry
from datamodules.extraction.recorded import NoExtractorError, RecordedExtractors

made: list[tuple[str, str | None]] = []


class Weighty:
    """Has weights in a file, and a digest that they must have."""

    modality: Literal["text"] = "text"
    name, width, reads = "weighty", 1, Reads("text")

    def __init__(self, model: str, sha256: str | None = None) -> None:
        made.append((model, sha256))

    def __call__(self, item: Any) -> FloatArray:
        return np.ones((1, 1), np.float32)

    def recipe(self) -> dict[str, Any]:
        return {"sha256": "5a", "version": "2"}


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    points = EntryPoints([EntryPoint("weighty", f"{__name__}:Weighty", ENTRY_POINT_GROUP)])
    monkeypatch.setattr(logging.getLogger("ifmmin"), "propagate", True)  # a command may have set it otherwise
    monkeypatch.setattr(registry, "entry_points", lambda group: points.select(group=group))
    made.clear()


def record(**recipe: str) -> dict[str, dict[str, Any]]:
    common = {"extractor": "weighty", "options": {"model": "bert"}, "detector": None, "rate": 0, "width": 1}
    return {"text": {**common, "recipe": {"sha256": "5a", "version": "2", **recipe}, "facts": {}}}


def test_weights_are_read_from_where_they_are_and_are_the_same(tmp_path: Path) -> None:
    RecordedExtractors(record()).pipeline(["text"])
    extractors = RecordedExtractors(record(), weights={"text": tmp_path})
    extractors.pipeline(["text"])
    extractors.pipeline(["text"])
    assert made == [("bert", "5a"), (str(tmp_path), "5a")]


@pytest.mark.parametrize("version", ["1", "2"])
def test_another_recipe_is_warned_of_once(version: str, caplog: pytest.LogCaptureFixture) -> None:
    extractors = RecordedExtractors(record(version=version))
    with caplog.at_level(logging.WARNING, "ifmmin"):
        extractors.pipeline(["text"])
        extractors.pipeline(["text"])
    expected = (
        'text is extracted by weighty (version "2"), but the model was trained on features by weighty (version "1"); '
        "answers may differ."
    )
    assert caplog.messages == ([expected] if version == "1" else [])


def test_what_cannot_be_made() -> None:
    missing = record()
    missing["text"]["extractor"] = "missing"
    extractors = RecordedExtractors(missing)
    assert {*extractors.modalities} == {"text"} and not extractors.pipeline([]).extractors
    with pytest.raises(NoExtractorError, match="'missing' is not installed"):
        extractors.pipeline(["text"])
    with pytest.raises(InputError, match="weights of video: give them for audio, visual, text, detector"):
        RecordedExtractors(record(), weights={"video": "x"})
