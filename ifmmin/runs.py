"""A run's own folder: its place, its files, and how it resumes after a kill.

RUN/config.yaml                 the configuration, complete
RUN/stage1/checkpoints/         stage 1, where the model has one; stage1/best.json when it is done
RUN/checkpoints/                the best epoch and the last
RUN/logs/, RUN/tensorboard/     curves
RUN/metrics.json, .csv, .png    the result; metrics.json is written last of all by a finished run
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from datamodules.errors import InputError
from datamodules.files import write_text

_SHARED = "IFMMIN_RUN_DIR"  # how the first process tells the other devices' processes which folder it made

CONFIG = "config.yaml"
METRICS = "metrics.json"
_STAGE1_RECORD = "stage1/best.json"


def _started_from_outside() -> tuple[int, int]:
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
    if _started_from_outside()[1] > 1:
        raise InputError("several processes were started from outside: give --run_dir, the folder they all use.")
    parent.mkdir(parents=True, exist_ok=True)
    number = 1 + max((int(path.name[4:]) for path in parent.glob("run-*") if path.name[4:].isdigit()), default=0)
    while True:
        folder = parent / f"run-{number}"
        try:
            folder.mkdir()
        except FileExistsError:
            number += 1
            continue
        return folder


def claim_run_dir(folder: Path) -> Path:
    """Make the folder that the user named.

    Raises:
        InputError: it contains a run already.
    """
    if not os.environ.get(_SHARED) and _started_from_outside()[0] == 0:
        if (folder / CONFIG).exists():
            raise InputError(
                f"{folder}: holds a run already; go on with it by --resume {folder}, or name another folder."
            )
        folder.mkdir(parents=True, exist_ok=True)
    return folder


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


def drop_if_empty() -> None:
    """Remove this run's folder where nothing came of the run."""
    shared = os.environ.get(_SHARED)
    if shared and Path(shared).is_dir() and not any(Path(shared).iterdir()):
        Path(shared).rmdir()


def resumable(folder: Path) -> Path:
    """The configuration of a run that is to go on.

    Raises:
        InputError: there is no run, or it is finished.
    """
    config = folder / CONFIG
    if not config.is_file():
        raise InputError(f"{folder}: no {CONFIG} there, so no run to go on with; name the folder a fit printed.")
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
    """The best checkpoint of a stage 1 that is done, or None."""
    record = run / _STAGE1_RECORD
    if not record.is_file():
        return None
    checkpoint = run / json.loads(record.read_text(encoding="utf-8"))["checkpoint"]
    return checkpoint if checkpoint.is_file() else None
