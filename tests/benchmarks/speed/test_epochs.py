"""Seconds of an epoch, and of a whole run on the CPU, which the board's ``--models fast`` reads."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from baselines import LinearImputation, MeanFusion
from benchmarks.speed.epochs import main


def lines(path: Path) -> dict[str, dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return {row["model"]: row for row in csv.DictReader(file)}


def test_a_run_is_its_epochs_and_lines_of_other_models_stay(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "epochs.csv"
    words = ["--utterances", "40", "--epochs", "1", "--csv", str(path), "--models"]
    main([*words, "MeanFusion"])
    first = lines(path)
    main([*words, "LinearImputation"])
    both = lines(path)
    assert list(both) == ["LinearImputation", "MeanFusion"] and both["MeanFusion"] == first["MeanFusion"]
    for model in (MeanFusion, LinearImputation):
        row = both[model.__name__]
        assert int(row["epochs"]) == model.recipe.epochs
        assert 0 < float(row["run_cpu"]) < 1000
    assert "run CPU s" in capsys.readouterr().out
