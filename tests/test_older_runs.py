"""Checkpoints, interrupted runs and boards of version 0.1.0 still load, resume and report.

``tests/data/runs_0_1_0`` was written by commit f769487 on the built-in corpus with 12 utterances a speaker.
``corpus`` is that corpus; its generator writes other features today.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from benchmarks.leaderboard.__main__ import main as leaderboard
from benchmarks.leaderboard.records import RECORDS
from datamodules import EmotionDataModule, Synthetic
from ifmmin import Predictor
from ifmmin.cli.main import main
from tests.cli.running import DATA, SMALL, best, metrics, weights

OLDER = DATA / "runs_0_1_0"
CORPUS = OLDER / "corpus"
MODELS = ("IFMMIN", "MMIN", "ModalityDropout", "CMARR", "MCTN")


@pytest.fixture
def older_corpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read the built-in corpus of 0.1.0, whose generator is gone."""
    monkeypatch.setattr(Synthetic, "locate", classmethod(lambda cls, options: CORPUS))
    monkeypatch.setattr(Synthetic, "bayes_accuracy", EmotionDataModule.bayes_accuracy)


@pytest.mark.usefixtures("older_corpus")
@pytest.mark.parametrize("model", MODELS)
def test_an_older_checkpoint_answers_and_scores_as_it_did(model: str, tmp_path: Path) -> None:
    checkpoint = best(OLDER / model)
    predictor = Predictor.load(checkpoint)
    assert type(predictor.model).__name__ == model
    frames = torch.ones(5, predictor.feature_dims[0])
    assert sum(predictor.predict({"audio": frames}).values()) == pytest.approx(1)
    words = ["test", "--model", model, *SMALL, "--ckpt_path", str(checkpoint), "--run_dir", str(tmp_path / "run")]
    assert main(words) == 0
    assert metrics(tmp_path / "run")["confusion"] == metrics(OLDER / model)["confusion"]


@pytest.mark.usefixtures("older_corpus")
@pytest.mark.parametrize("model", ["IFMMIN", "ModalityDropout"])
def test_an_older_interrupted_run_resumes(model: str, tmp_path: Path) -> None:
    run = shutil.copytree(OLDER / "interrupted" / model, tmp_path / "run")
    assert main(["fit", "--resume", str(run)]) == 0
    finished = torch.load(run / "finished_weights.pt", weights_only=True)
    resumed = weights(run / "checkpoints" / "last.ckpt")
    assert resumed.keys() == finished.keys()
    for name, value in finished.items():
        torch.testing.assert_close(resumed[name], value, rtol=1e-4, atol=1e-6)


def test_todays_corpus_is_told_from_the_older_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--ckpt_path", str(best(OLDER / "MMIN")), "--run_dir", str(tmp_path / "test")]
    assert main(["test", "--model", "MMIN", *SMALL, *words]) == 1
    assert "frames of 40 values, but" in capsys.readouterr().err
    run = shutil.copytree(OLDER / "interrupted" / "IFMMIN", tmp_path / "run")
    assert main(["fit", "--resume", str(run)]) == 1
    assert "the corpus changed since" in capsys.readouterr().err


def test_an_older_board_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from benchmarks.figures.__main__ import main as figures

    board = shutil.copytree(OLDER / "board", tmp_path / "board")
    assert figures([str(board)]) == 0
    before = (board / RECORDS).read_bytes()
    words = ["--models", "ModalityDropout", "--folds", "1", "--seeds", "1", *SMALL, "--board", str(board), "--report"]
    assert leaderboard(words) == 0
    # Its code was another, so it is named and kept, and not mixed with new records.
    assert "not used: 1 record(s) of ModalityDropout" in capsys.readouterr().out
    assert (board / RECORDS).read_bytes() == before
