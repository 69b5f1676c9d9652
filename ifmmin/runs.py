"""A run's own folder: its place, its files, and how it resumes after a kill.

Its files::

    RUN/config.yaml                 the configuration, complete
    RUN/stage1/checkpoints/         stage 1, where the model has one; stage1/best.json when it is done. Its own
                                    stage 1, where it has one, is in RUN/stage1/stage1/
    RUN/checkpoints/                the best epoch and the last
    RUN/logs/, RUN/tensorboard/     curves
    RUN/predictions.csv             every answer of the test
    RUN/*.csv, *.png                its tables, by class and by speaker, its confusion matrices and calibration
    RUN/metrics.json                the result, written last of all by a finished run
"""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import IO, TYPE_CHECKING

from datamodules.errors import InputError
from datamodules.files import lock, sweep, unlock, write_text

if TYPE_CHECKING:
    from datamodules.storage.layouts import Layout

_SHARED = "IFMMIN_RUN_DIR"  # how the first process tells the other devices' processes which folder it made

CONFIG = "config.yaml"
METRICS = "metrics.json"
STAGE1 = "stage1"
_STAGE1_RECORD = "stage1/best.json"

_locks: dict[Path, IO[str] | None] = {}
"""Folders that this process holds."""

_made: list[Path] = []
"""Folders that this command has made, deepest first."""


def started_from_outside() -> tuple[int, int]:
    """This process's rank and the number of processes, where srun or torchrun started them all."""
    for rank, size in (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS")):
        if rank in os.environ and int(os.environ.get(size, "1")) > 1:
            return int(os.environ[rank]), int(os.environ[size])
    return 0, 1


def new_run_dir(parent: Path) -> Path:
    """Make ``parent/run-N`` with the first free N; two processes never get the same.

    Processes that Lightning starts for further devices get the folder of the process that started
    them.

    Raises:
        InputError: srun or torchrun started several processes, which cannot agree on a folder.
    """
    if shared := os.environ.get(_SHARED):
        return Path(shared)
    if started_from_outside()[1] > 1:
        raise InputError("several processes were started from outside: give --run_dir, the folder they all use.")
    _make(parent)
    number = 1 + max((int(path.name[4:]) for path in parent.glob("run-*") if path.name[4:].isdigit()), default=0)
    while True:
        folder = parent / f"run-{number}"
        try:
            folder.mkdir()
        except FileExistsError:
            number += 1
            continue
        _made.insert(0, folder)
        hold(folder)
        return folder


def corpus_folder(corpus: type, layout: Layout) -> str:
    """Name of the folder of runs on a corpus: its class's, or its own where its class reads any corpus."""
    return corpus.__name__ if layout.description is None else folder_name(layout.name)


def folder_name(text: str) -> str:
    """``text`` as a part of a folder's name."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", text)


def claim_run_dir(folder: Path, fits: bool = True, prefix: str = "") -> Path:
    """Make the folder that the user named, and hold it.

    Args:
        folder: it.
        fits: whether a run is to be trained in it, or only results are to go there.
        prefix: of the results' names.

    Raises:
        InputError: it contains a run or such results already, or another process is using it.
    """
    if not os.environ.get(_SHARED) and started_from_outside()[0] == 0:
        _make(folder)
        hold(folder)
        if (folder / CONFIG).exists():
            go_on = f"go on with it by --resume {folder}, or " if fits else ""
            raise InputError(f"{folder}: holds a run already; {go_on}name another folder.")
        for name in (METRICS, "predictions.csv"):
            if (folder / (prefix + name)).exists():
                raise InputError(f"{folder / (prefix + name)}: exists already; name another folder, or move it away.")
    return folder


def _make(folder: Path) -> None:
    """Make a folder and those above it, remembering which were not there.

    Raises:
        InputError: it is an address on a network.
    """
    if folder.parts and re.fullmatch("[A-Za-z][A-Za-z0-9+.-]+:", folder.parts[0]):  # of s3://bucket/run
        raise InputError(f"{folder}: an address, not a folder of this machine; give a path.")
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    _made.extend(missing)


def is_first_process() -> bool:
    """Whether this process is not one that Lightning, torchrun or SLURM started for a further device or node."""
    ranks = [os.environ.get(name, "0") for name in ("LOCAL_RANK", "NODE_RANK", "GROUP_RANK")]
    return all(rank in ("", "0") for rank in ranks) and started_from_outside()[0] == 0


def hold(folder: Path) -> None:
    """Keep other processes from using a run's folder until :func:`leave`, and sweep what a killed one left.

    Raises:
        InputError: one is using it; it is named.
    """
    place = folder.resolve()
    if place in _locks or not is_first_process():
        return
    try:
        _locks[place] = lock(folder, "run")
    except PermissionError:  # a read-only folder; what is written there later says so
        return
    for stage in (folder, folder / STAGE1, folder / STAGE1 / STAGE1):
        sweep(stage)
        sweep(stage / "checkpoints")


def leave(failed: bool = False) -> None:
    """Let go of this command's folders, and remove those it made where nothing came of the run.

    Args:
        failed: the command ended by an error, so a configuration without a finished epoch is nothing either.
    """
    for held in _locks.values():
        if held is not None:
            unlock(held)
    _locks.clear()
    for folder in _made:
        if not folder.is_dir():
            continue
        if failed and (folder / CONFIG).is_file() and not any(_has_work(path) for path in folder.rglob("*")):
            shutil.rmtree(folder, ignore_errors=True)
        elif not any(folder.iterdir()):
            folder.rmdir()
    _made.clear()


def _has_work(path: Path) -> bool:
    """Whether a file is of a run that has finished an epoch, or is not ours."""
    ours = path.is_dir() or path.name in (CONFIG, "hparams.yaml") or path.name.startswith("events.out.tfevents")
    return not ours


def share_run_dir(folder: Path | None) -> None:
    """Tell the processes of further devices, which are started later, where this run's folder is."""
    if folder is None:
        os.environ.pop(_SHARED, None)
    else:
        os.environ[_SHARED] = str(folder)


def shared_run_dir() -> Path | None:
    """This process's run folder, None before there is one."""
    shared = os.environ.get(_SHARED)
    return Path(shared) if shared else None


def free_name(folder: Path, name: str) -> str:
    """``name``, or ``name-2`` and so on: a resumed run keeps the curves it drew before."""
    number, free = 1, name
    while (folder / free).exists():
        number += 1
        free = f"{name}-{number}"
    return free


def resumable(folder: Path) -> Path:
    """The configuration of a run that is to go on; the folder is held from here on.

    Raises:
        InputError: there is no run, it is finished, or another process is using it.
    """
    config = folder / CONFIG
    if not config.is_file():
        raise InputError(f"{folder}: no {CONFIG} there, so no run to go on with; name the folder a fit printed.")
    hold(folder)
    if (folder / METRICS).is_file():
        raise InputError(f"{folder}: this run is finished; its result is in {folder / METRICS}.")
    return config


def last_checkpoint(folder: Path) -> Path | None:
    """The last complete checkpoint of a stage, or None."""
    path = folder / "checkpoints" / "last.ckpt"
    return path if path.is_file() else None


def record_stage1(run: Path, checkpoint: Path) -> None:
    """Note that stage 1 is done, and which checkpoint is its best."""
    write_text(run / _STAGE1_RECORD, json.dumps({"checkpoint": os.path.relpath(checkpoint, run)}) + "\n")


def finished_stage1(run: Path) -> Path | None:
    """The best checkpoint of a stage 1 that is done; None if it is not, or its record is torn or names no file."""
    try:
        named = json.loads((run / _STAGE1_RECORD).read_text(encoding="utf-8"))["checkpoint"]
        checkpoint = run / STAGE1 / "checkpoints" / Path(named).name  # in this folder, wherever it was moved from
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return checkpoint if checkpoint.is_file() else None
