"""Long use takes no more memory and no more open files: ``pytest -m slow tests/faults/test_soak.py``."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
import torch

from ifmmin import Predictor
from ifmmin.cli.memory import MemoryCap, resident_memory
from tests.cli.running import best, fit, sample

pytestmark = pytest.mark.slow

MIB = 2**20


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_predictions(tmp_path: Path) -> None:
    run = fit(tmp_path / "run", *sample("IEMOCAP"), model="IFMMIN")
    predictor = Predictor.load(best(run))
    dims = dict(zip(("audio", "visual", "text"), predictor.model.feature_dims, strict=True))
    generator = torch.Generator().manual_seed(0)
    seen: dict[int, tuple[float, int]] = {}
    for number in range(1, 501):
        frames = {name: torch.randn(5 + number % 40, dim, generator=generator) for name, dim in dims.items()}
        frames.pop([*dims][number % 3])
        assert sum(predictor.predict(frames).values()) == pytest.approx(1.0, abs=1e-5)
        if number in (100, 500):
            gc.collect()
            seen[number] = resident_memory() / MIB, open_files()
    print(f"500 predictions: {seen}")
    assert seen[500][0] - seen[100][0] < 30
    assert seen[500][1] == seen[100][1]


def test_epochs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[int, tuple[float, int]] = {}

    def measure(self: MemoryCap, trainer, module) -> None:  # type: ignore[no-untyped-def]
        epoch = trainer.current_epoch + 1
        if not module.log_prefix and epoch in (10, 50):
            gc.collect()
            seen[epoch] = resident_memory() / MIB, open_files()

    monkeypatch.setattr(MemoryCap, "on_train_epoch_end", measure, raising=False)
    options = ["--model.constant_epochs", "50", "--trainer.min_epochs", "50"]
    fit(tmp_path / "run", *sample("IEMOCAP"), *options, model="IFMMIN", epochs=50)
    print(f"50 epochs: {seen}")
    assert seen[50][0] - seen[10][0] < 60
    assert seen[50][1] == seen[10][1]
