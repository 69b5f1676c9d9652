"""Pictures for face networks, and networks from files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datamodules.errors import InputError
from datamodules.extraction.extractor import Pictures
from datamodules.extraction.extractors import registry
from datamodules.extraction.recipes import Choice


def faces(count: int, side: int, grey: bool = False) -> Pictures:
    shape = (count, side, side) if grey else (count, side, side, 3)
    pixels = np.random.default_rng(count).integers(0, 256, shape, np.uint8)
    return Pictures("one", pixels, np.arange(count) / 10, count)


def made(kind: str, model: Path, batch: int = 16, **options: Any) -> Any:
    return registry.build(Choice(kind, {"model": str(model), **options}), "visual", batch=batch)


def line_of(kind: str, model: Path, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        made(kind, model, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def built(kind: str, model: Path, **options: Any) -> Any:
    choice = Choice(kind, {"model": str(model), **options})
    return registry.build_detector(choice) if kind == "yunet" else registry.build(choice, "visual")
