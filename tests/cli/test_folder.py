"""A corpus that describes itself, and how its features were made, through every command."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from datamodules.extraction.provenance import ATTRIBUTE, attach, describe, encoded
from ifmmin import Predictor
from ifmmin.checkpoints import load_model
from ifmmin.cli.main import main
from ifmmin.finished import read_run
from tests.cli.extracting import use_fakes, write_manifest
from tests.cli.extracting import write_clips as extracted_clips
from tests.cli.running import best, fit, metrics
from tests.datamodules.corpora import CLIPS, write_clips

NAMES = {"audio": "A/audio.h5", "visual": "V/visual.h5", "text": "L/text.h5"}


def made(name: str, version: str = "1") -> dict[str, Any]:
    facts: dict[str, Any] = {"corpus": "clips", "facts": {}, "utterances": ["a"], "sources": [["a", 1]]}
    recipe = {"of": name, "version": version}
    return describe(extractor=name, options={}, recipe=recipe, detector=None, rate=10, width=5, **facts)


def say(root: Path, **extraction: dict[str, Any]) -> None:
    """Write how features were made into their files, in place of what is there."""
    for modality, provenance in extraction.items():
        with h5py.File(root / NAMES[modality], "r+") as file:
            if ATTRIBUTE in file.attrs:
                del file.attrs[ATTRIBUTE]
            attach(file.id, encoded(provenance))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("clips") / "corpus"
    write_clips(root, name="my clips/ü")
    say(root, audio=made("comparE"), visual=made("face-hog"))
    return root


@pytest.fixture(scope="module")
def run(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fit(tmp_path_factory.mktemp("run") / "run", *options(corpus), "--data.fold", "2", model="MeanFusion")


def options(root: Path) -> list[str]:
    return ["--data", "Folder", "--data.root", str(root), "--trainer.enable_progress_bar", "false"]


def test_check_shows_it(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", *options(corpus)[:4]]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert shown.startswith(f"Folder-my clips/ü at {corpus}")
    assert "calm angry très drôle" in shown
    assert "4 speakers, 0 ids" in shown


def test_a_run_has_its_name_classes_and_recipes(run: Path) -> None:
    found = metrics(run)
    assert found["corpus"] == "Folder-my clips/ü"
    assert not found["is_synthetic"]
    assert found["class_names"] == list(CLIPS)
    assert found["record"]["extraction"] == {"audio": made("comparE"), "visual": made("face-hog")}
    with (run / "per_speaker.csv").open(encoding="utf-8") as file:
        assert {row["speaker"] for row in csv.DictReader(file)} == {"S1"}


def test_its_run_folder_has_the_name_of_the_corpus(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["fit", "--model", "MeanFusion", *options(corpus), "--trainer.max_epochs", "1"]) == 0
    (found,) = Path("runs").glob("*/*/*/run-1")
    assert found == Path("runs/Folder-my_clips__/fold1/MeanFusion-seed0/run-1")


def test_a_finished_run_is_loaded_again(run: Path) -> None:
    model, data = read_run(run).load()
    assert model.class_names == data.class_names == list(CLIPS)


def test_a_predictor_answers_with_its_classes(run: Path) -> None:
    answer = Predictor.load(best(run)).predict({"text": np.ones((3, 7), np.float32)})
    assert list(answer) == list(CLIPS)
    assert sum(answer.values()) == pytest.approx(1)


def test_predict_answers_for_all_by_their_whole_ids(run: Path, corpus: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(corpus, tmp_path / "corpus"))
    shutil.rmtree(root / "target")
    content = json.loads((root / "corpus.json").read_text(encoding="utf-8"))
    for left in ("folds", "classes", "counts"):  # nobody has labelled these
        content.pop(left, None)
    (root / "corpus.json").write_text(json.dumps(content), encoding="utf-8")
    output = tmp_path / "answers.csv"
    words = ["--model", "MeanFusion", *options(root), "--ckpt_path", str(best(run)), "--output", str(output)]
    assert main(["predict", *words]) == 0
    with output.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["utterance"] for row in rows} == {
        f"take {take}/é{number:02d}" for take in range(4) for number in range(9)
    }
    assert all(f"p_{name}" in rows[0] for name in CLIPS)
    record = json.loads(output.with_suffix(".json").read_text(encoding="utf-8"))["record"]
    assert record["extraction"] == {"audio": made("comparE"), "visual": made("face-hog")}


def test_fit_without_labels_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_clips(tmp_path)
    (tmp_path / "corpus.json").write_text('{"format": 1, "name": "clips"}', encoding="utf-8")
    for words in (["fit", "--model", "MeanFusion"], ["fit", "--model", "IFMMIN"]):
        assert main([*words, *options(tmp_path), "--run_dir", str(tmp_path / "run")]) == 1
        assert "error: Folder-clips: its utterances have no labels, so there are no folds" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_other_classes_are_refused_by_name(
    run: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = Path(shutil.copytree(corpus, tmp_path / "corpus"))
    path = root / "corpus.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"angry"', '"furious"'), encoding="utf-8")
    words = ["--model", "MeanFusion", *options(root), "--data.fold", "2", "--ckpt_path", str(best(run))]
    for command in ("test", "predict"):
        assert main([command, *words, "--run_dir", str(tmp_path / command)]) == 1
        line = capsys.readouterr().err
        assert "its classes are calm, angry, très drôle, the corpus's calm, furious, très drôle: " in line
        assert "only one of them has angry, furious;" in line


def test_the_checkpoint_of_another_fold_is_refused(
    run: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--model", "MeanFusion", *options(corpus), "--data.fold", "1", "--ckpt_path", str(best(run))]
    assert main(["test", *words, "--run_dir", str(tmp_path / "test")]) == 1
    assert "trained on fold 2, whose training data include fold 1's test data" in capsys.readouterr().err


# How the features were made.


def warnings_of(run: Path, root: Path, folder: Path, capfd: pytest.CaptureFixture[str]) -> list[str]:
    """Lines of a test that speak of how features were made."""
    capfd.readouterr()
    words = ["--model", "MeanFusion", *options(root), "--data.fold", "2", "--ckpt_path", str(best(run))]
    assert main(["test", *words, "--run_dir", str(folder)]) == 0
    shown = capfd.readouterr()
    return [line for line in (shown.out + shown.err).splitlines() if "extracted by" in line]


def test_the_same_recipe_is_no_news(run: Path, corpus: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert not warnings_of(run, corpus, tmp_path / "test", capfd)


def test_another_recipe_is_one_line_that_names_both(
    run: Path, corpus: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    root = Path(shutil.copytree(corpus, tmp_path / "corpus"))
    say(root, audio=made("comparE", version="2"), text=made("minilm"))
    audio, text = warnings_of(run, root, tmp_path / "test", capfd)
    assert f'{root}/A/audio.h5: extracted by comparE (version "2")' in audio
    assert 'trained on audio features by comparE (version "1")' in audio
    assert f"{root}/L/text.h5: extracted by minilm, but" in text
    assert "trained on text features by an unknown recipe" in text


def test_the_checkpoint_says_how_its_features_were_made(run: Path) -> None:
    _, trained_on = load_model(best(run))
    assert trained_on["extraction"] == {"audio": made("comparE"), "visual": made("face-hog")}


def test_features_without_a_recipe_are_no_news(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_clips(tmp_path / "corpus")
    run = fit(tmp_path / "run", *options(tmp_path / "corpus"), "--data.fold", "2", model="MeanFusion")
    assert "extract" not in capfd.readouterr().err
    _, trained_on = load_model(best(run))
    assert "extraction" not in trained_on
    assert "extraction" not in metrics(run)["record"]
    assert not warnings_of(run, tmp_path / "corpus", tmp_path / "test", capfd)


def test_recordings_without_labels_are_answered_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    use_fakes(monkeypatch)
    labelled, unlabelled, output = tmp_path / "labelled", tmp_path / "unlabelled", tmp_path / "answers.csv"
    assert main(["extract", "clips", str(extracted_clips(tmp_path / "raw")), str(labelled), "--jobs", "1"]) == 0
    run = fit(tmp_path / "run", *options(labelled), model="MeanFusion")
    manifest = write_manifest(tmp_path / "raw" / "new.csv", [("new", "clip00.mp4", "words")], ("id", "media", "text"))
    assert main(["extract", "clips", str(manifest), str(unlabelled), "--jobs", "1"]) == 0
    assert f"next: predict --data Folder --data.root {unlabelled}" in " ".join(capfd.readouterr().out.split())
    words = ["--model", "MeanFusion", *options(unlabelled), "--ckpt_path", str(best(run)), "--output", str(output)]
    assert main(["predict", *words]) == 0
    with output.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["utterance"] for row in rows] == ["new"] * 7  # once for each condition
    shown = capfd.readouterr()
    assert "extracted by" not in shown.out + shown.err
