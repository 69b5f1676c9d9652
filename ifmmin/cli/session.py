"""What a command that trains, scores or predicts works with."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
from jsonargparse import Namespace

from datamodules.base import EmotionDataModule
from ifmmin.base import MissingModalityModule
from ifmmin.checkpoints.keeping import resumed_after
from ifmmin.cli.counts import check_counts
from ifmmin.cli.reporting import check_units, print_header


@dataclass(frozen=True)
class Session:
    """One command, with what was made of its options.

    Attributes:
        command: ``fit``, ``validate``, ``test`` or ``predict``.
        options: of the command, parsed.
        plain_options: gives them in plain values.
        model: to train or to score.
        data: set up by :meth:`start`.
        trainer: of the command.
        run_dir: where files go.
        checkpoint: what ``--ckpt_path`` holds; None without one.
        began: when the command began, by ``time.monotonic``.
    """

    command: str
    options: Namespace
    plain_options: Callable[[], dict[str, Any]]
    model: MissingModalityModule
    data: EmotionDataModule
    trainer: L.Trainer
    run_dir: Path
    checkpoint: dict[str, Any] | None
    began: float

    def start(self) -> None:
        """Set up the data, refuse what does not fit them, and print what is used.

        Raises:
            InputError: naming the file or option.
        """
        self.data.setup(self.command)  # anything wrong with the corpus is said before files are written
        if self.command != "predict":
            check_units(self.data, self.options.intervals, "val" if self.command == "validate" else "test")
        check_counts(self.options, self.command, self.model, self.data, self.trainer.world_size)
        elsewhere = self.command == "predict" and self.options.output is not None
        print_header(self.data, None if elsewhere else self.run_dir)

    def record(self, checkpoint: str | None) -> dict[str, Any]:
        """What this command was asked and how long it took; ``checkpoint`` is whose weights answered."""
        return {
            "config": self.plain_options(),
            "checkpoint": checkpoint,
            "resumed_after_epochs": resumed_after(self.trainer),
            "wall_time_s": round(time.monotonic() - self.began, 3),
        }


def trained_on(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Corpus, fold and seed of a checkpoint's training."""
    data = checkpoint["ifmmin"]["data"]
    return {"corpus": data["name"], "fold": data["fold"], "seed": data["seed"]}
