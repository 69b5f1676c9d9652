"""The command line on Privileged, whose folds have a folder each."""

from __future__ import annotations

import csv
import json
import signal
from pathlib import Path

import pytest

from benchmarks.leaderboard.__main__ import main as leaderboard
from benchmarks.leaderboard.records import RECORDS, read_records
from ifmmin.cli.main import main
from tests.cli.running import best, fresh, metrics, same, weights
from tests.cli.test_resume import KILL

QUICK = ["--data", "Privileged", "--data.utterances", "40", "--trainer.logger", "false"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("privileged") / "run"
    words = ["--data.fold", "2", "--trainer.max_epochs", "2", "--run_dir", str(folder)]
    assert main(["fit", "--model", "MeanFusion", *QUICK, *words]) == 0
    return folder


def test_fit_reports_the_limit_of_its_fold(run: Path) -> None:
    found = metrics(run)
    assert (found["corpus"], found["is_synthetic"], found["fold"]) == ("Privileged", True, 2)
    assert found["invented"] is False
    assert found["metrics"]["t"]["n"] == 2000
    # Text says nearly as much as everything, audio and visual alone say less.
    limits = {row: found["metrics"][row]["bayes_WA"] for row in ("a", "v", "t", "avt")}
    assert max(limits["a"], limits["v"]) < limits["t"] - 0.02 < limits["avt"]


def test_a_killed_run_resumes_to_the_same_bits(run: Path, tmp_path: Path) -> None:
    words = ["--data.fold", "2", "--trainer.max_epochs", "2", "--run_dir", str(tmp_path / "run")]
    killed = fresh(
        "fit", "--model", "MeanFusion", *QUICK, *words, cwd=tmp_path, prelude=KILL.format(place="run/checkpoints")
    )
    assert killed.returncode == -signal.SIGKILL
    assert main(["fit", "--resume", str(tmp_path / "run")]) == 0
    assert same(*(weights(folder / "checkpoints" / "last.ckpt") for folder in (tmp_path / "run", run)))


def test_test_and_predict_read_the_fold_that_was_trained(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--model", "MeanFusion", *QUICK, "--ckpt_path", str(best(run))]
    assert main(["test", *words, "--data.fold", "2", "--run_dir", str(tmp_path / "test")]) == 0
    assert metrics(tmp_path / "test")["confusion"] == metrics(run)["confusion"]
    output = ["--output", str(tmp_path / "answers.csv"), "--data.predict_split", "val"]
    assert main(["predict", *words, "--data.fold", "2", *output]) == 0
    with (tmp_path / "answers.csv").open(encoding="utf-8") as file:
        assert {row["utterance"][:10] for row in csv.DictReader(file)} == {"fold02_val"}
    assert main(["test", *words, "--data.fold", "3", "--run_dir", str(tmp_path / "other")]) == 1
    assert "trained on fold 2, whose features are another draw than fold 3's" in capsys.readouterr().err


def test_check_writes_and_checks_one_fold(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--data.root", str(tmp_path / "here"), "--data.fold", "4", "--json", str(tmp_path / "report.json")]
    assert main(["check", *QUICK[:4], *words]) == 0
    assert "No problems." in capsys.readouterr().out
    facts = json.loads((tmp_path / "report.json").read_text())["facts"]
    assert list(facts["folds"]) == ["4"] and facts["utterances"] == 2640
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["fold4"]


def test_check_finds_the_first_built_in_corpus_without_a_root(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--data", "Synthetic", "--data.utterances_per_speaker", "12"]) == 0
    assert "No problems." in capsys.readouterr().out


@pytest.mark.slow
def test_the_folds_of_a_board_are_independent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--models", "MeanFusion", "ModalityDropout", "--folds", "all", "--seeds", "1"]
    assert leaderboard([*words, *QUICK[:4], "--trainer.max_epochs", "1", "--board", str(tmp_path)]) == 0
    records = read_records(tmp_path / RECORDS)
    assert len(records) == 20 and len({record.training for record in records}) == 10
    assert {record.independent_folds for record in records} == {True}
    shown = capsys.readouterr().out
    assert "built-in synthetic corpus Privileged (not a corpus result)" in shown
    assert "independent draws" in " ".join(shown.split()) and "training sets" not in shown
