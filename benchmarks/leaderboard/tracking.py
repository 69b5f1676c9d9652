"""A board in Weights & Biases: each run in the board's group, and the finished table as an artifact."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.leaderboard.plan import Job, Words
from benchmarks.leaderboard.summary import Summary
from datamodules.errors import InputError
from datamodules.text import has_control, printable
from ifmmin.tasks import SUMMARY_ROWS


def check_project(name: str) -> None:
    """Refuse a project that Weights & Biases would refuse after the first run, and a missing library.

    Raises:
        InputError: saying what a name may be.
    """
    shown = f"--wandb {printable(name, 60) or repr(name)}"
    if not 0 < len(name) <= 128 or has_control(name) or set(name) & set("/\\#?%:") or not name.strip():
        raise InputError(f"{shown}: a project's name has 1 to 128 letters, none of / \\ # ? % : and no line breaks.")
    if importlib.util.find_spec("wandb") is None:
        raise InputError(f"{shown}: Weights & Biases is not installed; pip install wandb.")


@dataclass(frozen=True)
class Tracking:
    """Where a board is logged.

    Attributes:
        project: of Weights & Biases.
        group: the board's name, which all its runs share.
    """

    project: str
    group: str

    def follow(self, job: Job) -> Job:
        """The same job, its ``fit`` logging to Weights & Biases besides its own files."""
        return replace(job, logging=self._words(job), stage1=job.stage1 and self.follow(job.stage1))

    def _words(self, job: Job) -> Words:
        config = {"board": self.group, "model": job.name, "fold": job.fold, "seed": job.seed}
        own = {"project": self.project, "group": self.group, "config": json.dumps(config)}
        kept = {"save_dir": ".", "name": "logs"}
        return (
            "--trainer.logger=CSVLogger",
            *(f"--trainer.logger.{name}={value}" for name, value in kept.items()),
            "--trainer.logger+=WandbLogger",
            *(f"--trainer.logger.{name}={value}" for name, value in own.items()),
        )

    def log_board(self, summary: Summary, paths: Iterable[Path], folder: Path) -> None:
        """Log the table, and an artifact with all files of the board.

        Args:
            summary: of the board.
            paths: the written tables and the page.
            folder: where Weights & Biases keeps its files.
        """
        import wandb

        run = wandb.init(
            project=self.project,
            group=self.group,
            name=f"{self.group}-leaderboard",
            job_type="leaderboard",
            dir=str(folder),
            config={"board": self.group, "folds": list(summary.folds), "seeds": list(summary.seeds)},
        )
        run.log({f"leaderboard/{metric}": _table(summary, metric) for metric in summary.score_names})
        plain = re.sub(r"[^\w.-]", "-", self.group, flags=re.ASCII)  # the only characters an artifact's name may have
        artifact = wandb.Artifact(f"{plain}-leaderboard", type="leaderboard")
        for path in paths:
            artifact.add_file(str(path))
        run.log_artifact(artifact)
        run.finish()


def _table(summary: Summary, metric: str) -> object:
    import wandb

    columns: list[str | int] = ["model", "n", *SUMMARY_ROWS, *(f"{row} std" for row in SUMMARY_ROWS)]
    rows: list[Sequence[object]] = []
    for entry in summary.entries:
        cells = [entry.cells[metric][row] for row in SUMMARY_ROWS]
        rows.append([entry.model, entry.n, *(c and c.mean for c in cells), *(c and c.std for c in cells)])
    return wandb.Table(columns=columns, data=rows)
