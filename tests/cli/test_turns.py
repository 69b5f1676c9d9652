"""A model that reads earlier turns, from end to end: trained, tested and asked on a corpus with dialogues."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest

from benchmarks.leaderboard.__main__ import main as leaderboard
from benchmarks.leaderboard.records import RECORDS, read_records
from datamodules.conditions import CONDITIONS
from datamodules.storage.layouts import IEMOCAP_LAYOUT
from ifmmin.cli.main import main
from tests.cli.running import best, fit, metrics, same, weights
from tests.datamodules.corpora import change_features, load_features, load_ids, write_corpus

REMARKS = ["around MeanFusion", "reads earlier turns"]
SIZES = ["--model.around", "MeanFusion", "--model.pretraining.width", "8", "--model.party_dim", "8"]
LENGTH = 4
"""Turns of a dialogue."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten speakers with three dialogues of four turns each, whose order in time is not that of the ids."""
    folder = tmp_path_factory.mktemp("turns") / "corpus"
    ids = write_corpus(folder, utterances=120)
    lines = ["id,start,dialogue"]
    for split in ("trn", "val", "tst"):
        for dialogue in dialogues(folder, split):
            lines += [f"{name},{float(start)},{dialogue[0]}" for start, name in enumerate(dialogue)]
    assert len(lines) == len(ids) + 1
    (folder / "turns.csv").write_text("\n".join(lines) + "\n")
    return folder


def dialogues(root: Path, split: str) -> list[list[str]]:
    """The turns of each dialogue of a split in order of time: a speaker's ids backwards, four at a time."""
    speakers: dict[str, list[str]] = {}
    for name in load_ids(root, 1, split):
        speakers.setdefault(name[:5] + name.rpartition("_")[2][0], []).append(name)
    turns = [sorted(names, reverse=True) for names in speakers.values()]
    return [names[start : start + LENGTH] for names in turns for start in range(0, len(names), LENGTH)]


def words(root: Path) -> list[str]:
    return ["--data", "IEMOCAP", "--data.root", str(root), "--trainer.logger", "false", *SIZES]


@pytest.fixture(scope="module")
def run(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fit(tmp_path_factory.mktemp("fitted") / "run", *words(root), model="EmotionShift", epochs=2)


Answers = dict[tuple[str, str], dict[str, str]]


def answers(path: Path) -> Answers:
    """Rows of a file of predictions, by condition and utterance."""
    with path.open(encoding="utf-8") as file:
        return {(row["condition"], row["utterance"]): row for row in csv.DictReader(file)}


def predict(run: Path, root: Path, output: Path, split: str = "test") -> Answers:
    chosen = ["--data.predict_split", split, "--output", str(output)]
    assert main(["predict", "--model", "EmotionShift", *words(root), "--ckpt_path", str(best(run)), *chosen]) == 0
    return answers(output)


def test_fit_test_and_predict_agree_and_say_what_they_read(
    run: Path, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert metrics(run)["remarks"] == REMARKS
    capsys.readouterr()
    tested = ["test", "--model", "EmotionShift", *words(root), "--ckpt_path", str(best(run))]
    assert main([*tested, "--run_dir", str(tmp_path / "test")]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert ", ".join(["EmotionShift", *REMARKS]) in shown
    again = metrics(tmp_path / "test")
    assert (again["remarks"], again["metrics"]) == (REMARKS, metrics(run)["metrics"])
    found = predict(run, root, tmp_path / "answers.csv")
    assert found == answers(run / "predictions.csv") == answers(tmp_path / "test" / "predictions.csv")
    assert found.keys() == {(condition, name) for condition in CONDITIONS for name in load_ids(root, 1, "tst")}


def test_the_first_turn_of_a_dialogue_has_no_shift(run: Path, root: Path, tmp_path: Path) -> None:
    for split, prefix in (("test", "tst"), ("val", "val")):
        found = predict(run, root, tmp_path / f"{split}.csv", split)
        for first, *later in dialogues(root, prefix):
            assert all(found[condition, first]["shift"] == "" for condition in CONDITIONS)
            assert all(0 < float(found[condition, name]["shift"]) < 1 for condition in CONDITIONS for name in later)


def test_a_turn_reaches_the_answers_to_later_ones_of_its_dialogue_alone(run: Path, root: Path, tmp_path: Path) -> None:
    changed = tmp_path / "corpus"
    shutil.copytree(root, changed)
    first, *others = dialogues(root, "tst")
    for modality in range(3):
        path = IEMOCAP_LAYOUT.feature_path(changed, modality)
        (frames,) = load_features(path, [first[1]])
        change_features(path, {first[1]: frames[::-1] + 3})
    before, after = predict(run, root, tmp_path / "a.csv"), predict(run, changed, tmp_path / "b.csv")
    untouched = [first[0], *(name for dialogue in others for name in dialogue)]
    for condition in CONDITIONS:
        for name in untouched:
            assert after[condition, name] == before[condition, name]
        for name in first[1:]:
            assert after[condition, name] != before[condition, name]


def test_a_corpus_on_disk_trains_to_the_same_bits(run: Path, root: Path, tmp_path: Path) -> None:
    options = [*words(root), "--data.memory_budget_gb", "0"]
    streamed = fit(tmp_path / "run", *options, model="EmotionShift", epochs=2)
    assert same(weights(best(streamed)), weights(best(run)))


@pytest.mark.slow
def test_records_and_tables_of_a_board_mark_what_reads_earlier_turns(tmp_path: Path) -> None:
    asked = ["--data", "Synthetic", "--data.utterances_per_speaker", "12", "--data.stay", "0.85"]
    asked += [
        "--trainer.max_epochs",
        "2",
        "--models",
        "EmotionShift",
        "ModalityDropout",
        "--folds",
        "1",
        "--seeds",
        "1",
    ]
    assert leaderboard([*asked, "--reference", "ModalityDropout", "--board", str(tmp_path)]) == 0
    records = {record.model: record for record in read_records(tmp_path / RECORDS)}
    remarks = ("around ModalityDropout", "reads earlier turns")
    assert records["EmotionShift"].remarks == remarks
    assert records["ModalityDropout"].remarks == ()
    title = ", ".join(("EmotionShift", *remarks))
    assert f"| {title} |" in (tmp_path / "leaderboard.md").read_text(encoding="utf-8")
    assert title in (tmp_path / "leaderboard.tex").read_text(encoding="utf-8")
    with (tmp_path / "leaderboard.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["model"] for row in rows if "reads earlier turns" in row["note"]} == {"EmotionShift"}
