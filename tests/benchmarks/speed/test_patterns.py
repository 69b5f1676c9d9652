"""The program that times patterns: what it writes adds up."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from benchmarks.speed import patterns
from benchmarks.speed.patterns import main


def test_every_pattern_is_timed_against_a_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(patterns, "UTTERANCES", 20)
    main(["--models", "MeanFusion", "--repeats", "1", "--csv", str(tmp_path / "table.csv")])
    printed = capsys.readouterr().out
    with (tmp_path / "table.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["pattern"] for row in rows] == ["frames:0.3", "bursts:0.3", "noise:0.5"]
    for row in rows:
        assert row["pattern"] in printed
        batch, added, step, share = (float(row[name]) for name in ("batch_ms", "added_ms", "step_ms", "share"))
        assert batch > 0 and share == pytest.approx(added / (batch + step))
