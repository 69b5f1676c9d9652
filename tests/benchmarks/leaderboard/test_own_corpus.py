"""A board on a corpus that describes itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.figures.__main__ import main as figures
from benchmarks.leaderboard.__main__ import main
from benchmarks.leaderboard.published import read_published
from benchmarks.leaderboard.records import RECORDS, read_records
from benchmarks.leaderboard.summary import summarise_board
from tests.cli.running import CHECKOUT
from tests.datamodules.corpora import CLIPS, write_clips
from tests.datamodules.test_classes import SIX, six_columns

CHOICE = ["--models", "MeanFusion", "--folds", "2", "--seeds", "1", "--trainer.max_epochs", "1"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(CHECKOUT))  # runs are processes of their own, and benchmarks are not installed
    write_clips(tmp_path / "corpus", name="IEMOCAP")  # whoever calls it so
    return tmp_path


def test_a_board_has_its_classes_and_no_published_figure(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--data", "Folder", "--data.root", "corpus", *CHOICE]
    assert main(words) == 0, capsys.readouterr().err
    board = Path("runs/leaderboard/Folder-IEMOCAP")
    (record,) = read_records(board / RECORDS)
    assert (record.corpus, record.is_synthetic, record.fold) == ("Folder-IEMOCAP", False, 2)
    assert record.class_names == CLIPS
    assert record.extraction == {}
    summary = summarise_board([record])
    assert read_published("IEMOCAP", 4)
    assert not summary.published
    assert "published" not in (board / "leaderboard.csv").read_text(encoding="utf-8")
    assert json.dumps("très drôle") in (board / "leaderboard.html").read_text(encoding="utf-8")
    assert figures([str(board)]) == 0
    capsys.readouterr()
    assert main(words) == 0
    assert "1 runs, 1 of them done already" in capsys.readouterr().out
    # Other classes are another corpus, although every file but one is the same.
    path = here / "corpus" / "corpus.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(content | {"classes": ["calm", "sad", "très drôle"]}), encoding="utf-8")
    assert main([*words, "--report"]) == 0
    assert "not used: 1 record(s) of MeanFusion: data" in capsys.readouterr().out


def test_a_board_of_six_classes_stands_beside_what_is_published_for_six(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    six_columns(here / "six")
    own = ["--data", "IEMOCAP", "--data.root", "six", "--data.allow_shared_speakers", "true", "--board", "board"]
    words = [*own, "--data.label_names", json.dumps(SIX), "--data.classes", json.dumps(SIX), *CHOICE]
    assert main(words) == 0, capsys.readouterr().err
    (record,) = read_records(Path("board") / RECORDS)
    assert (record.corpus, record.class_names) == ("IEMOCAP", tuple(SIX))
    summary = summarise_board([record])
    assert {row.model for row in summary.published} == {row.model for row in read_published("IEMOCAP", 6)}
    assert not {row.model for row in summary.published} & {"MMIN", "IF-MMIN"}  # theirs are of four
    assert figures(["board"]) == 0
    # Four of the six, two merged, are another board; they are not mixed.
    four = json.dumps(["angry", "happy=happy+excited", "neutral", "sad"])
    capsys.readouterr()
    assert main([*own, "--data.label_names", json.dumps(SIX), "--data.classes", four, *CHOICE, "--report"]) == 0
    printed = capsys.readouterr()
    assert "not used: 1 record(s) of MeanFusion: config" in printed.out and "no run is recorded" in printed.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data.root", "corpus", "--folds", "3"], "--folds 3: Folder-IEMOCAP has folds 1..2; give some of them"),
        (["--data.root", "nowhere"], "nowhere: does not exist; give the folder"),
        (["--data.root", "."], "corpus.json: does not exist, so the corpus's classes and folds are unknown"),
        ([], "--data.root is needed"),
    ],
)
def test_what_is_wrong_is_one_line_before_any_run(
    words: list[str], message: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--data", "Folder", "--models", "MeanFusion", *words]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert not Path("runs").exists()
