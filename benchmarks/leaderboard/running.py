"""One run, in a process of its own: ``fit``, the rate curves, and the record of both.

What is done already is not done again: a finished run gives its record, an interrupted one goes on.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datamodules.errors import InputError
from datamodules.files import sweep, write_text
from datamodules.text import printable
from ifmmin import runs
from ifmmin.cli import ranks, starting, stopping

if __name__ == "__main__":
    ranks.end_with(int(sys.argv[3]))
    starting.large_pages()
with starting.imports() if __name__ == "__main__" else nullcontext():  # a board starts hundreds of these
    from benchmarks.leaderboard.identity import differences, digest
    from benchmarks.leaderboard.plan import Job
    from benchmarks.leaderboard.records import Record

if TYPE_CHECKING:
    from datamodules.base import EmotionDataModule
    from ifmmin.base import MissingModalityModule

RECORD = "record.json"
LOG = "output.log"
_TAIL = 65_536  # bytes of a log, which hold its last lines


@dataclass(frozen=True)
class Outcome:
    """What became of a job.

    Attributes:
        job: which.
        record: of a finished run; None for a stage 1 and for a run that failed.
        error: one line that says why it failed; None where it did not.
        seconds: it took, without what an earlier, interrupted try took.
        lost: whether the machine failed it, not the run itself: the same job may succeed another time.
    """

    job: Job
    record: Record | None
    error: str | None
    seconds: float
    lost: bool = False


def execute(job: Job, board: Path, environment: dict[str, str]) -> Outcome:
    """Do ``job`` in a fresh process, whatever becomes of it, and wait for it.

    Args:
        job: the run.
        board: folder of the board.
        environment: variables on top of this process's own.
    """
    started = time.monotonic()
    folder = board / job.folder
    words = ["benchmarks.leaderboard.running", json.dumps(job.to_json()), str(board), str(os.getpid())]
    error = run_module(words, folder / LOG, job.identity["threads"], environment)
    seconds = time.monotonic() - started
    if error:
        return Outcome(job, None, error, seconds, lost=os.strerror(errno.ENOSPC) in error)
    if not job.recorded:
        return Outcome(job, None, None, seconds)
    try:
        return Outcome(job, read_record(folder / RECORD, job), None, seconds)
    except (InputError, OSError) as error:
        return Outcome(job, None, f"{error}", seconds)


def run_module(words: Sequence[str], log: Path, threads: int, environment: dict[str, str]) -> str | None:
    """Run a module in a fresh process, and wait for it.

    Args:
        words: its name, and the words of its command line.
        log: what it prints is appended to this file.
        threads: of PyTorch.
        environment: variables on top of this process's own.

    Returns:
        one line that says why it failed; None where it did not.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", *words]
    variables = os.environ | {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)} | environment
    with log.open("ab") as file:
        process = subprocess.Popen(command, env=variables, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
        stopping.at_stop.append(process.terminate)
        code = process.wait()
        stopping.at_stop.remove(process.terminate)
    return _last_words(log, code) if code else None


def read_record(path: Path, job: Job) -> Record:
    """Read the record that a run left in its folder.

    Raises:
        InputError: it was edited: it is no record, or that of another job.
        OSError: it cannot be read.
    """
    try:
        record = Record.from_line(path.read_bytes())
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    if record.key != job.key or differences(record.identity, job.identity):
        raise InputError(f"{path}: not the record of {job}")
    return record


def _last_words(log: Path, code: int) -> str:
    """Why a run failed, in one line: its error, or the last it printed, and what its exit code means."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _TAIL))
        lines = [line for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    last = next((line for line in reversed(lines) if line.startswith("error: ")), lines[-1] if lines else "no word")
    how = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
    return f"{printable(last.removeprefix('error: '), 600)} ({how}; all it printed: {printable(log)})"


# What follows runs in the job's own process.


def main() -> int:
    """Do the job that the command line describes; 0 where its result is there afterwards."""
    job, board = Job.from_json(json.loads(sys.argv[1])), Path(sys.argv[2])
    folder = board / job.folder
    sweep(folder)
    if (folder / RECORD).exists() or (not job.recorded and best_checkpoint(folder)):
        return 0
    if code := _fit(job, board):
        return code
    if best_checkpoint(folder) is None:
        raise InputError(f"{folder}: the run kept no checkpoint, which the board needs.")
    if job.recorded:
        write_text(folder / RECORD, json.dumps(make_record(job, board).to_json(), allow_nan=False) + "\n")
    for last in folder.rglob("last.ckpt"):  # only an interrupted run needs it, and it is as large as the best
        last.unlink()
    return 0


def _fit(job: Job, board: Path) -> int:
    from ifmmin.cli.main import main as command_line

    folder = board / job.folder
    if (folder / runs.METRICS).is_file():
        return 0
    if runs.last_checkpoint(folder):
        return command_line(["fit", "--resume", str(folder)])
    if (folder / runs.CONFIG).exists():  # it was killed before its first epoch was kept
        _clear(folder)
    words = ["fit", "--model", job.model, *job.words, "--data.fold", str(job.fold), "--seed_everything", str(job.seed)]
    if job.stage1:
        words += ["--model.pretrained", str(best_checkpoint(board / job.stage1.folder))]
    return command_line([*words, *job.logging, "--run_dir", str(folder)])


def _clear(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != LOG:
            path.unlink()


def best_checkpoint(folder: Path) -> Path | None:
    """The checkpoint of the best epoch of a finished run, None where it is not finished."""
    if not (folder / runs.METRICS).is_file():
        return None
    try:
        checkpoint = read_metrics(folder)["record"]["checkpoint"]
        return folder / "checkpoints" / Path(checkpoint).name if checkpoint else None
    except (InputError, KeyError, TypeError):
        return None


def read_metrics(folder: Path) -> dict[str, Any]:
    """What a finished run wrote.

    Raises:
        InputError: it was edited.
    """
    path = folder / runs.METRICS
    try:
        written = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not what a fit writes; delete {folder}, and the run is done again.") from error
    if not isinstance(written, dict):
        raise InputError(f"{path}: not what a fit writes; delete {folder}, and the run is done again.")
    return written


def make_record(job: Job, board: Path) -> Record:
    """Make the record that a finished run adds to the board.

    Raises:
        InputError: the data have changed meanwhile.
    """
    from datamodules.classes import ChosenClasses
    from ifmmin.curves import by_rate, curve_counts

    folder = board / job.folder
    result = read_metrics(folder)
    made = result.pop("record")
    checkpoint = best_checkpoint(folder)
    assert checkpoint is not None
    model, data = load_run(job, checkpoint)
    if data.fingerprint != job.identity["data"]:
        raise InputError(f"{data.root}: changed while the board ran; start the board again.")
    made["run"], made["stage1"] = job.folder, job.stage1.folder if job.stage1 else None
    made |= {"checkpoint": str(checkpoint.relative_to(board)), "monitor": data.monitor, "identity": job.identity}
    _, counts = curve_counts(model, data)
    curves = {
        name: {rate: total.tolist() for rate, total in by_rate(name, each.sum(dim=0)).items()}
        for name, each in counts.items()
    }
    made["sweep"] = curves.pop("modalities", {})
    made["curves"] = curves
    assert data.targets is not None
    train = sorted(data.targets["train"].utterances)
    made |= {"training": digest(name.encode() for name in train), "train_size": len(train)}
    made["independent_folds"] = data.corpus_layout.independent_folds
    labels = data.corpus_layout.labels
    made["made_of"] = labels.made_of if isinstance(labels, ChosenClasses) else None
    made["extraction"] = {modality: each["extractor"] for modality, each in data.extraction.items()}
    made |= {"selected": result.get("monitor"), "validation": result.get("validation")}
    return Record.from_json({**result, **made})


def load_run(job: Job, checkpoint: Path) -> tuple[MissingModalityModule, EmotionDataModule]:
    """Load the model of a checkpoint, and its data set up as it was trained on."""
    from benchmarks.leaderboard.plan import make_data
    from ifmmin.checkpoints import load_model
    from ifmmin.discovery import find_model

    data = make_data(job.data, job.fold, job.seed)
    data.setup("test")
    model, trained_on = load_model(checkpoint, find_model(job.model))
    data.adopt_preprocessing(trained_on)
    return model, data


if __name__ == "__main__":
    from ifmmin.cli.main import reported

    raise SystemExit(ranks.program(lambda: reported(main)))
