"""Real boards on a very small built-in corpus, and what of them must not depend on how they were run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.leaderboard.records import RECORDS, read_records
from tests.cli.running import CHECKOUT

WORDS = ["--data", "Synthetic", "--data.utterances_per_speaker", "12", "--trainer.max_epochs", "2"]
CHOICE = ["--models", "MMIN", "ModalityDropout", "--folds", "1", "--seeds", "1", "--jobs", "2"]
OUTSIDE = ("wall_time_s", "date", "commit", "dirty")


def results(board: Path) -> list[dict[str, Any]]:
    """The records of a board by model, without what a clock or somebody at work in the checkout wrote into them."""
    records = sorted(read_records(board / RECORDS), key=lambda record: record.key)
    return [{name: value for name, value in record.to_json().items() if name not in OUTSIDE} for record in records]


def start(board: Path, *words: str) -> subprocess.Popen[str]:
    """Begin a board in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.leaderboard", *WORDS, *CHOICE, "--board", str(board), *words]
    return subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def run(board: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a board to its end in a fresh process."""
    process = start(board, *words)
    printed, _ = process.communicate(timeout=300)
    return subprocess.CompletedProcess(process.args, process.returncode, printed)


def descendants(pid: int) -> list[int]:
    """The processes that a process started, and those that they started."""
    # Each thread has a list of its own, and a board starts its runs from threads.
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    children = [child for found in lists for child in found.read_text(encoding="ascii").split()]
    return [found for child in children for found in (int(child), *descendants(int(child)))]
