"""Seconds of an epoch, and of a whole run on the CPU, which the board's ``--models fast`` reads."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path
from statistics import median

import pytest

from baselines import EmotionShift, LinearImputation, MeanFusion
from benchmarks.speed.epochs import main
from benchmarks.speed.random_corpus import RandomCorpus


def lines(path: Path) -> dict[str, dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return {row["model"]: row for row in csv.DictReader(file)}


def test_turns_come_in_whole_chains_as_long_as_those_of_iemocap(capsys: pytest.CaptureFixture[str]) -> None:
    data = RandomCorpus(utterances=640, frames=0.05)
    data.setup("fit")
    data.serve(EmotionShift.needs, 32)
    # Ids, read here without the code under test: all but the number of the turn names a chain.
    train = data.indices("train").tolist()
    expected = Counter(data.corpus.utterances[index][:-3] for index in train)
    assert len(set(data.corpus.utterances)) == 640
    assert 12 <= median(expected.values()) <= 24 and max(expected.values()) <= 56
    seen: Counter[str] = Counter()
    for batch in data.train_dataloader():
        assert batch.turn is not None
        found = Counter(name[:-3] for name in batch.utterances)
        assert all(expected[chain] == turns for chain, turns in found.items())
        assert len(batch.turn[:, 0].unique()) == len(found)
        seen += found
    assert seen == expected
    main(["--models", "EmotionShift", "--utterances", "64", "--frames", "0.1", "--epochs", "1"])
    assert "EmotionShift" in capsys.readouterr().out


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
