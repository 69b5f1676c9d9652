"""``save``, from a fit to an answer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ifmmin import Predictor
from ifmmin.cli.main import main
from ifmmin.sharing.hub import shipped_folder
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


def test_a_saved_folder_scores_as_its_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--model", "MeanFusion", *sample("IEMOCAP")]
    checkpoint = best(fit(tmp_path / "run", *words[2:], model="MeanFusion"))
    saved = tmp_path / "saved"
    assert main(["save", str(checkpoint), str(saved)]) == 0
    for command, name in (("test", "metrics.json"), ("validate", "val_metrics.json"), ("predict", "predictions.json")):
        for source, run in ((checkpoint, "one"), (saved, "two")):
            place = tmp_path / command / run
            assert main([command, *words, "--ckpt_path", str(source), "--run_dir", str(place)]) == 0
            assert json.loads((place / name).read_text())["record"]["checkpoint"] == str(source)
        answers = "val_predictions.csv" if command == "validate" else "predictions.csv"
        one, two = ((tmp_path / command / run / answers).read_bytes() for run in ("one", "two"))
        assert one == two
    capsys.readouterr()
    unchanged = {"fit": [], "validate": ["--calibrate", "true"]}
    for command, more in unchanged.items():
        given = ["--ckpt_path", str(saved), "--run_dir", str(tmp_path / command / "three")]
        assert main([command, *words, *given, *more]) == 1
        said = capsys.readouterr().err
        assert str(saved) in said and ".ckpt file" in said and "it was saved from" in said
    (saved / "model.safetensors").write_bytes(b"torn")
    assert main(["test", *words, "--ckpt_path", str(saved), "--run_dir", str(tmp_path / "torn")]) == 1
    assert "model.safetensors: 4 bytes, but config.json says" in capsys.readouterr().err


def test_a_model_that_comes_with_the_library_is_scored_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["test", "--model", "LinearImputation", "--ckpt_path", "synthetic", "--run_dir", "run"]
    assert main(words) == 0
    stated = json.loads((shipped_folder("synthetic") / "results.json").read_text())["metrics"]["pooled"]
    # Another machine's linear algebra may turn a tie: by less than one in a hundred.
    assert metrics(tmp_path / "run")["metrics"]["pooled"]["WA"] == pytest.approx(stated["WA"], abs=0.01)
