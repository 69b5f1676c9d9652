"""``save``, from a fit to an answer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ifmmin import Predictor
from ifmmin.cli.main import main
from tests.cli.running import best, fit, metrics, sample
from tests.ifmmin.inference.test_predictor import frames_of


def test_a_checkpoint_is_saved_and_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = best(fit(tmp_path / "run", *sample("IEMOCAP"), model="MeanFusion"))
    folder = tmp_path / "deep" / "saved"
    capsys.readouterr()
    assert main(["save", str(checkpoint), str(folder)]) == 0
    assert capsys.readouterr().out == f"saved: {folder}\n"
    assert main(["save", str(folder), str(folder), "--overwrite", "--licence", "cc-by-4.0"]) == 0
    assert "license: cc-by-4.0" in (folder / "README.md").read_text()
    scores = json.loads((folder / "results.json").read_text())
    assert scores["metrics"] == metrics(tmp_path / "run")["metrics"]
    utterance = next(iter((tmp_path / "run" / "predictions.csv").read_text().splitlines()[1:])).split(",")[0]
    features = frames_of(utterance, "av")
    assert dict(Predictor.from_pretrained(folder).predict(features)) == dict(
        Predictor.load(checkpoint).predict(features)
    )


def test_a_validated_epoch_is_not_a_test(tmp_path: Path) -> None:
    run = fit(tmp_path / "run", *sample("IEMOCAP"), "--test", "false", model="MeanFusion")
    assert main(["save", str(best(run)), str(tmp_path / "saved")]) == 0
    assert "seed 0 · val" in (tmp_path / "saved" / "README.md").read_text()
