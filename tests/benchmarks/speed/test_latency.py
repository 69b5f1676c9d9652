from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

from benchmarks.speed import latency
from benchmarks.speed.latency import ALL, Spread
from datamodules.conditions import CONDITIONS


def test_tables_and_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(latency, "STARTS", {"nothing": ["pass"]})
    paths = [tmp_path / "table.csv", tmp_path / "table.png"]
    words = ["--models", "MCTN", "--repeats", "2", "--starts", "1", "--csv", str(paths[0]), "--plot", str(paths[1])]
    threads = torch.get_num_threads()
    latency.main(words)
    torch.set_num_threads(threads)
    shown = capsys.readouterr().out
    assert "MCTN" in shown
    assert "nothing" in shown
    with paths[0].open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["condition"] for row in rows if row["what"] == "predict"] == [*CONDITIONS, ALL]
    assert all(0 < float(row["least"]) <= float(row["median"]) <= float(row["most"]) for row in rows)
    assert paths[1].read_bytes().startswith(b"\x89PNG")


def test_ratios_of_serving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(latency, "MINUTE_10", 30)
    monkeypatch.setattr(latency, "BATCH", 4)
    words = ["--models", "TFN", "MeanFusion", "--repeats", "2", "--starts", "0", "--serving"]
    threads = torch.get_num_threads()
    latency.main([*words, "--csv", str(tmp_path / "table.csv")])
    torch.set_num_threads(threads)
    assert "read incrementally" in capsys.readouterr().out
    with (tmp_path / "table.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["unit"] == "times"]
    found = [(row["what"], row["name"], row["condition"]) for row in rows]
    assert found == [("batch", "TFN", ""), ("stream", "TFN", "text"), ("batch", "MeanFusion", "")]
    assert all(float(row["median"]) > 0 for row in rows)


def test_a_ratio_is_of_the_slow_by_the_fast() -> None:
    """A clock that only the calls move on."""
    now = 0.0

    def spend(seconds: float) -> None:
        nonlocal now
        now += seconds

    assert latency.ratios(lambda: spend(6.0), lambda: spend(2.0), 3, lambda: now) == [3.0] * 3


def test_a_spread() -> None:
    found = Spread.of("start", "x", "", "s", [3.0, 1.0, 2.0, 10.0])
    assert (found.median, found.least, found.most) == (2.5, 1.0, 10.0)


def test_the_clock_counts_the_calls_that_are_timed() -> None:
    calls: list[int] = []
    ticks = iter(range(100))
    times = latency.timed(lambda: calls.append(1), 4, lambda: float(next(ticks)))
    assert len(calls) == latency.WARM_UP + 4
    assert times == [1000.0] * 4


def test_a_start_counts_the_child_alone() -> None:
    assert latency.time_start(["import math; [math.sqrt(n) for n in range(10**6)]"]) > 0


@pytest.mark.parametrize("condition", CONDITIONS)
def test_an_utterance_has_what_the_condition_says(condition: str) -> None:
    assert {name[0] for name in latency.utterance(condition)} == set(condition)
