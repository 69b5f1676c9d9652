"""The check: clean corpora pass, and everything wrong with a broken one is listed at once."""

from __future__ import annotations

import io
import json
import shutil
from collections import Counter
from pathlib import Path

import h5py
import numpy as np
import pytest
from rich.console import Console

from datamodules.storage.check import CheckReport, check_corpus
from datamodules.storage.layouts import IEMOCAP_LAYOUT
from ifmmin.cli.check import render_check
from tests.datamodules.corpora import (
    LAYOUTS,
    SAMPLES,
    change_features,
    load_features,
    load_ids,
    utterance_id,
    write_corpus,
    write_split,
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_corpus(tmp_path / "corpus")
    return tmp_path / "corpus"


def rendered(report: CheckReport) -> str:
    console = Console(width=400, file=io.StringIO(), record=True)
    console.print(render_check(report))
    return console.export_text()


@pytest.mark.parametrize("name", LAYOUTS)
def test_samples_have_no_problems_and_the_facts_are_theirs(name: str) -> None:
    root, layout = SAMPLES[name], LAYOUTS[name]
    report = check_corpus(root, layout)
    assert report.lines == []
    facts = report.summary
    for modality, found in enumerate(facts.modalities.values()):
        path = layout.feature_path(root, modality)
        with h5py.File(path) as file:
            lengths = [len(frames) for frames in load_features(path, list(file))]
        assert (found.utterances, found.dim) == (len(lengths), (26, 34, 48)[modality])
        assert (found.shortest, found.longest) == (min(lengths), max(lengths))
        assert found.median == np.median(lengths)
    assert list(facts.folds) == list(range(1, layout.folds + 1))
    for number, fold in facts.folds.items():
        for split, prefix in (("train", "trn"), ("val", "val"), ("test", "tst")):
            labels = np.load(root / "target" / str(number) / f"{prefix}_label.npy")
            counts = Counter((labels.argmax(axis=1) if labels.ndim == 2 else labels).tolist())
            assert list(fold.counts[split].values()) == [counts[label] for label in range(4)]
        assert fold.statistics_difference is not None
        assert fold.statistics_difference < 1e-5
        assert fold.statistics_agree
    assert facts.statistics_file == str(layout.statistics_path(root))
    assert (facts.speakers, facts.unknown_speakers, facts.unused) == (layout.folds, [], [])


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_report_can_be_shown_and_stored(name: str, tmp_path: Path) -> None:
    write_corpus(tmp_path / "corpus", name)  # type: ignore[arg-type]
    report = check_corpus(tmp_path / "corpus", LAYOUTS[name])
    text = rendered(report)
    assert "No problems." in text
    assert "48 utterances with features, 0 of them in no fold" in text
    assert "angry happy neutral sad" in text
    stored = json.loads(json.dumps(report.to_dict()))
    assert stored["problems"] == []
    assert stored["facts"]["modalities"]["text"]["dim"] == 7
    assert stored["facts"]["folds"]["1"]["statistics_agree"] is None


def test_everything_wrong_is_listed_at_once(root: Path) -> None:
    names = [utterance_id("IEMOCAP", number) for number in range(48)]
    audio, visual, text = (IEMOCAP_LAYOUT.feature_path(root, modality) for modality in range(3))
    nan = np.full((2, 5), np.nan, dtype=np.float32)
    change_features(audio, {names[0]: nan, names[1]: nan, names[2]: None, names[3]: np.zeros((0, 5)), "spare": nan[:1]})
    change_features(visual, {names[4]: np.ones(6), names[5]: np.ones((3, 9)), names[6]: np.full((2, 6), b"x")})
    text.write_bytes(text.read_bytes()[:1000])
    target = root / "target"
    np.save(target / "2" / "val_label.npy", np.full(5, 4))
    (target / "3" / "tst_int2name.npy").unlink()
    np.save(target / "4" / "trn_label.npy", np.array([None, 1]), allow_pickle=True)
    shutil.rmtree(target / "5")
    shutil.rmtree(target / "8")
    shutil.copytree(target / "7", target / "8")
    tested = load_ids(root, 9, "tst")
    write_split(root, "IEMOCAP", 9, "tst", tested[1:], np.zeros(len(tested) - 1, dtype=np.int64))
    validated = [*load_ids(root, 9, "val"), tested[0]]
    write_split(root, "IEMOCAP", 9, "val", validated, np.zeros(len(validated), dtype=np.int64))
    trained = load_ids(root, 10, "trn")[0]
    write_split(root, "IEMOCAP", 10, "val", [trained, trained], np.zeros(2, dtype=np.int64))

    report = check_corpus(root, IEMOCAP_LAYOUT)
    expected = [
        f"target/2/val_label.npy: utterance {load_ids(root, 2, 'val')[0]}: label 4 is outside 0..3 (and 4 more",
        "target/3/tst_int2name.npy: does not exist",
        "target/4/trn_label.npy: is pickled",
        "target/5: this fold has no folder",
        "target/8: its target files are a copy of fold 7's",
        "target/9: speaker Ses05F is in both val and test",
        f"target/10/val_int2name.npy: utterance {trained}: listed more than once;",
        f"target/10: utterance {trained}: in both train and val;",
        f"A/comparE.h5: utterance {names[3]}: has no frames",
        f"A/comparE.h5: utterance {names[0]}: has NaN or infinite values (and 2 more utterances)",
        f"A/comparE.h5: utterance {names[2]}: in the target files, but not in this file",
        f"V/denseface.h5: utterance {names[4]}: not of the shape [frames, width]",
        f"V/denseface.h5: utterance {names[5]}: frames of 9 values where most have 6",
        f"V/denseface.h5: utterance {names[6]}: cannot be read: damaged, or not numbers",
        "L/bert_large.h5: not a whole HDF5 file",
    ]
    for line in expected:
        assert sum(problem.startswith(f"{root}/{line}") for problem in report.lines) == 1, line
    assert len(report.lines) == len(expected), report.lines
    assert not any("\n" in problem for problem in report.lines)
    assert report.summary.unused == ["spare"]
    assert report.summary.unknown_speakers == ["spare"]
    text_shown = rendered(report)
    assert f"{len(expected)} problems:" in text_shown
    assert "not of the shape [frames, width]" in text_shown
    listed = {entry["message"]: entry["utterances"] for entry in report.to_dict()["problems"]}
    assert sorted([*names[:2], "spare"]) in map(sorted, listed.values())


def test_speakers_shared_between_train_and_test_are_found(root: Path) -> None:
    tested = load_ids(root, 1, "tst")
    train = load_ids(root, 1, "trn")
    write_split(root, "IEMOCAP", 1, "tst", tested[1:], np.zeros(len(tested) - 1, dtype=np.int64))
    write_split(root, "IEMOCAP", 1, "trn", [*train, tested[0]], np.zeros(len(train) + 1, dtype=np.int64))
    (problem,) = check_corpus(root, IEMOCAP_LAYOUT).lines
    assert problem.startswith(f"{root}/target/1: speaker Ses01F is in both train and test")


def test_a_split_that_lacks_a_class_is_noted(root: Path) -> None:
    for fold, prefix, classes in ((2, "trn", 3), (3, "tst", 2)):
        names = load_ids(root, fold, prefix)
        write_split(root, "IEMOCAP", fold, prefix, names, np.arange(len(names)) % classes)
    report = check_corpus(root, IEMOCAP_LAYOUT)
    assert report.lines == []
    last, before = IEMOCAP_LAYOUT.class_names[3], IEMOCAP_LAYOUT.class_names[2]
    assert [str(note) for note in report.notes.found if "no utterance of" in str(note)] == [
        f"{root}/target/2: no utterance of train is {last}; no model can learn it.",
        f"{root}/target/3: no utterance of test is {before} or {last}; this split says nothing about it.",
    ]


def test_shipped_statistics_that_differ_are_a_fact_and_damaged_ones_a_problem(root: Path) -> None:
    train = load_ids(root, 1, "trn")
    frames = np.concatenate(load_features(IEMOCAP_LAYOUT.feature_path(root, 0), train)).astype(np.float64)
    path = IEMOCAP_LAYOUT.statistics_path(root)
    with h5py.File(path, "w") as file:
        file["1/mean"], file["1/std"] = frames.mean(axis=0), frames.std(axis=0)
        file["2/mean"], file["2/std"] = frames.mean(axis=0) + 0.5 * frames.std(axis=0), frames.std(axis=0)
        file["3/mean"], file["3/std"] = np.zeros(9), np.ones(9)
        file["4/mean"] = np.zeros(5)
    report = check_corpus(root, IEMOCAP_LAYOUT)
    first, second, third, fourth, fifth = (report.summary.folds[fold] for fold in range(1, 6))
    assert first.statistics_agree is True
    assert second.statistics_agree is False
    # Fold 2 trains on the same speakers as fold 1, so that its statistics are known too.
    assert second.statistics_difference == pytest.approx(0.5, rel=1e-5)
    assert third.statistics_agree is False
    assert (fourth.statistics_agree, fifth.statistics_agree) == (None, None)
    (problem,) = report.lines
    assert "comparE_mean_std.h5: the mean and std of fold 4 cannot be read" in problem
    assert json.loads(json.dumps(report.to_dict()))["facts"]["folds"]["2"]["statistics_agree"] is False


def test_a_root_that_is_not_there_is_one_problem(tmp_path: Path) -> None:
    report = check_corpus(tmp_path / "nowhere", IEMOCAP_LAYOUT)
    assert report.lines == [f"{tmp_path}/nowhere: does not exist; give the folder that holds A, V, L and target."]
    assert "1 problem:" in rendered(report)
    assert report.to_dict()["facts"]["folds"] == {}


def test_an_empty_root_lacks_three_files_and_the_targets(tmp_path: Path) -> None:
    problems = check_corpus(tmp_path, IEMOCAP_LAYOUT).lines
    assert len(problems) == 4
    assert problems[0].startswith(f"{tmp_path}/target: does not exist")
    assert all("does not exist" in problem for problem in problems)


def test_an_empty_file_is_a_problem(root: Path) -> None:
    h5py.File(IEMOCAP_LAYOUT.feature_path(root, 1), "w").close()
    problems = check_corpus(root, IEMOCAP_LAYOUT).lines
    assert any("denseface.h5: holds no utterance" in problem for problem in problems)
    assert any("denseface.h5" in problem and "and 47 more utterances" in problem for problem in problems)
    assert len(problems) == 2
