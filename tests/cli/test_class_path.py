"""A corpus given by class path: classes that set their folder themselves, or leave options out."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks.leaderboard.__main__ import main as board
from ifmmin.cli import main
from tests.datamodules.corpora import write_clips, write_regression_corpus

SOURCE = """
from typing import Any
from datamodules.base import EmotionDataModule
from datamodules.folder import Folder
from tests.datamodules.corpora import RegressionSample

class Placed(RegressionSample):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(root="values", **kwargs)

class PlacedFolder(Folder):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(root="clips", **kwargs)

class OneFold(RegressionSample):
    def __init__(self, root: str) -> None:
        super().__init__(root=root)

class Bare(EmotionDataModule):
    pass

class Deaf(RegressionSample):
    def __init__(self, **kwargs: Any) -> None:
        pass
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "own_corpora", raising=False)
    (tmp_path / "own_corpora.py").write_text(SOURCE, encoding="utf-8")
    write_regression_corpus(tmp_path / "values", utterances=40)
    write_clips(tmp_path / "clips")
    return tmp_path


@pytest.mark.parametrize("name", ["Placed", "PlacedFolder", "OneFold"])
def test_a_class_may_set_its_folder_itself(name: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = ["--data", f"own_corpora.{name}", *(["--data.root", "values"] if name == "OneFold" else [])]
    assert main(["check", *data]) == 0, capsys.readouterr()
    assert "No problems." in capsys.readouterr().out
    fit = ["fit", "--model", "MeanFusion", *data, "--trainer.max_epochs", "1", "--run_dir", "run"]
    assert main(fit) == 0, capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("OneFold", "OneFold: takes no --data.fold, which a board sets; let its __init__ take **kwargs"),
        ("Bare", "Bare: has no layout, so its files are unknown; see docs/add_a_corpus.md."),
        ("Deaf", "--data.root: its class does not take it; let its __init__ take **kwargs and pass them on."),
    ],
)
def test_a_board_says_in_one_line_what_a_class_lacks(
    name: str, message: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert board(["--data", f"own_corpora.{name}", "--data.root", "values", "--models", "MeanFusion"]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert message in line
