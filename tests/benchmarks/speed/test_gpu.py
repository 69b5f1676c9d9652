from __future__ import annotations

import csv
import math
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks.speed import gpu
from benchmarks.speed.gpu import PUBLISHED, Case, Lap, Measured


@pytest.fixture
def in_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs are threads: a process each would take seconds to import."""

    def pool(runs: int, context: object, initializer: Callable[..., None], initargs: Any) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(runs, initializer=initializer, initargs=initargs)

    monkeypatch.setattr(gpu, "ProcessPoolExecutor", pool)
    monkeypatch.setattr(
        "benchmarks.speed.gpu.multiprocessing.get_context", lambda method: SimpleNamespace(Barrier=threading.Barrier)
    )
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: None)


def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main([]) == 1
    assert capsys.readouterr().err == ("error: there is no GPU here; --device cpu tries the program out without one.\n")


def test_it_can_be_tried_out_on_a_cpu(in_threads: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [tmp_path / "table.csv", tmp_path / "table.png"]
    words = ["--device", "cpu", "--utterances", "40", "--epochs", "1", "--no-compile", "--precisions", "32-true"]
    assert gpu.main([*words, "--packed", "2", "--csv", str(paths[0]), "--plot", str(paths[1])]) == 0
    assert "CPU (says nothing about a GPU)" in capsys.readouterr().out
    with paths[0].open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["case"], row["runs"]) for row in rows] == [
        (f"{PUBLISHED}, 32-true", "1"),
        ("ours, 32-true", "1"),
        ("ours, 32-true", "2"),
    ]
    assert all(float(row["utterances_per_second"]) > 0 for row in rows)
    assert all(math.isnan(float(row["busy"])) for row in rows)
    assert paths[1].read_bytes().startswith(b"\x89PNG")


def test_a_run_that_fails_does_not_keep_the_others_waiting(in_threads: None, monkeypatch: pytest.MonkeyPatch) -> None:
    together = iter(range(2))

    def fail_or_wait(**_: object) -> None:
        if next(together):
            raise RuntimeError("out of memory")
        gpu._together.wait()

    monkeypatch.setattr(gpu, "RandomCorpus", fail_or_wait)
    with pytest.raises(RuntimeError, match="out of memory"):
        gpu.measure(Case("ours", runs=2), gpu.Size("IFMMIN", 40, 1, "cpu"))


def test_runs_count_together() -> None:
    laps = [Lap(10.0, 14.0, 400, 0.5, 100.0), Lap(10.5, 15.0, 400, math.nan, 50.0)]
    found = Measured.of(Case("ours", "bf16-mixed", True, 2), laps)
    assert found == Measured("ours, bf16-mixed, compiled", 2, 160.0, 0.5, 150.0)


def test_the_cases() -> None:
    found = gpu.cases(["32-true", "bf16-mixed"], [1, 2, 8], compiled=True)
    assert found == [
        Case(PUBLISHED),
        Case("ours", "32-true"),
        Case("ours", "32-true", compiled=True),
        Case("ours", "bf16-mixed"),
        Case("ours", "bf16-mixed", compiled=True),
        Case("ours", "bf16-mixed", runs=2),
        Case("ours", "bf16-mixed", runs=8),
    ]


@pytest.mark.parametrize(("printed", "share"), [("40\n60\n\n", 0.5), ("[N/A]\n", math.nan), ("", math.nan)])
def test_the_busy_share(printed: str, share: float) -> None:
    assert gpu.busy_share(printed) == pytest.approx(share, nan_ok=True)
