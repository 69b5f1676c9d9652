"""Lightning callbacks of the command line."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Literal

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, RichProgressBar
from lightning.pytorch.utilities import rank_zero_only

from datamodules.errors import InputError
from ifmmin.base import MissingModalityModule
from ifmmin.checkpoints.keeping import BestEpoch, LastEpoch
from ifmmin.cli import stopping

_note = rank_zero_only(logging.getLogger("ifmmin").warning)

_LINES = 10  # per stage, without a terminal


class ProgressLines(Callback):
    """Prints some ten lines a stage, for log files, which cannot redraw a progress bar."""

    def __init__(self) -> None:
        self._started = 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Note the time."""
        self._started = time.monotonic()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Print a line now and then, and for the last epoch."""
        epoch, epochs = trainer.current_epoch + 1, trainer.max_epochs or 0
        if not trainer.is_global_zero or not isinstance(pl_module, MissingModalityModule):
            return
        if epoch == epochs or trainer.should_stop or epoch % max(1, epochs // _LINES) == 0:
            elapsed = time.monotonic() - self._started
            values = "  ".join(f"{name} {value}" for name, value in seen_so_far(trainer, pl_module).items())
            print(f"  epoch {epoch:>3}/{epochs}  {values}  {elapsed:.0f} s", flush=True)


class ProgressBar(RichProgressBar):
    """Lightning's bar, with epochs counted from 1 and the values of the progress lines."""

    def get_metrics(
        self, trainer: L.Trainer, pl_module: L.LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """Loss and monitored score of the last epoch that has them, and what the model logs for the bar."""
        seen = seen_so_far(trainer, pl_module) if isinstance(pl_module, MissingModalityModule) else {}
        known = {name: value for name, value in seen.items() if not value.startswith("nan")}
        return {**known, **trainer.progress_bar_metrics}

    def _get_train_description(self, current_epoch: int) -> str:
        of = "" if self.trainer.max_epochs is None else f"/{self.trainer.max_epochs}"
        return f"Epoch {current_epoch + 1}{of}".ljust(len(self.validation_description))  # or the bar would flicker


def seen_so_far(trainer: L.Trainer, model: MissingModalityModule) -> dict[str, str]:
    """Training loss and monitored score by name, as shown while training."""
    seen = trainer.callback_metrics
    loss = float(seen.get(f"{model.log_prefix}train/loss", torch.nan))
    score = model.task.score(model.monitor)
    value = score.format(float(seen.get(model.monitor_key, torch.nan)))
    name = model.monitor_key.removeprefix(model.log_prefix)
    return {"loss": f"{loss:.4f}", name: f"{value} %" if score.percent else value}


def progress_callback() -> Callback:
    """A bar on a terminal, lines anywhere else."""
    return ProgressBar() if sys.stdout.isatty() else ProgressLines()


class Stopping(Callback):
    """Finishes a trainer whose program is stopped by a signal: the other callbacks, and the loggers."""

    def __init__(self) -> None:
        self._finish: Callable[[], None] | None = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Note what is to be finished."""
        self._forget()

        def finish() -> None:
            for callback in trainer.callbacks:  # type: ignore[attr-defined]
                with suppress(Exception):
                    callback.on_exception(trainer, pl_module, KeyboardInterrupt())
            for logger in trainer.loggers:
                with suppress(Exception):
                    logger.finalize("failed")

        self._finish = finish
        stopping.at_stop.append(finish)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Forget the trainer."""
        self._forget()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take back the signals, which Lightning has taken by now."""
        stopping.take_back()

    on_validation_start = on_test_start = on_predict_start = on_train_start

    def _forget(self) -> None:
        if self._finish in stopping.at_stop:
            stopping.at_stop.remove(self._finish)


class SameStart(Callback):
    """Refuses to train where a device's process goes on from another checkpoint than the first one's.

    Each finds its own, since they cannot speak to each other before; a file system may show one what it does not show
    another.
    """

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Compare; before that, Lightning does not say from where.

        Raises:
            InputError: naming the process.
        """
        mine = (type(pl_module).__name__, Path(trainer.ckpt_path).name if trainer.ckpt_path else "no checkpoint")
        first = trainer.strategy.broadcast(mine)
        if mine != first:
            raise InputError(
                f"rank {trainer.global_rank} would train {' from '.join(mine)}, rank 0 {' from '.join(first)}; see "
                "that every machine sees the same run folder, and start the same command again."
            )


class ScheduleNote(Callback):
    """Says where the trainer's epochs and the recipe's schedule differ.

    Args:
        max_epochs: as given.
        min_epochs: as given.
    """

    def __init__(self, max_epochs: int | None, min_epochs: int | None) -> None:
        self.given = {"max_epochs": max_epochs, "min_epochs": min_epochs}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Print a note."""
        epochs, name = trainer.max_epochs or 0, type(pl_module).__name__
        if epochs < 1 or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        for option, value in self.given.items():
            if value is not None and value > epochs:
                _note(
                    f"--trainer.{option} {value}: {name}'s schedule ends after {epochs} epoch(s), where its learning "
                    "rate is 0; lengthen it by --model.constant_epochs or --model.decay_epochs."
                )


def checkpoint_callbacks(folder: Path, monitor: str, mode: Literal["min", "max"]) -> list[Callback]:
    """Keep the best epoch by ``monitor``, whose direction is ``mode``, and the last."""
    return [BestEpoch(folder, monitor, mode), LastEpoch(folder)]
