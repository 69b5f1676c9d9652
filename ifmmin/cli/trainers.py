"""Trainers of the command line: checkpoints, loggers and callbacks around the options of ``--trainer``."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
from jsonargparse import Namespace
from lightning.pytorch.callbacks import Checkpoint, ProgressBar
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from ifmmin import runs
from ifmmin.base import MissingModalityModule
from ifmmin.checkpoints.keeping import OwnCheckpoints
from ifmmin.checkpoints.writing import with_atomic_checkpoints
from ifmmin.cli import ranks
from ifmmin.cli.callbacks import SameStart, ScheduleNote, Stopping, checkpoint_callbacks, progress_callback
from ifmmin.cli.memory import MemoryCap
from ifmmin.cli.trainer_options import check_monitors


class Trainers:
    """Makes the trainer of a command, and of each further stage of a fit, the same way.

    Args:
        settings: of ``--trainer``, its objects made.
        options: of the command, parsed.
        command: ``fit``, ``validate``, ``test`` or ``predict``.
        run_dir: of the run.
    """

    def __init__(self, settings: Namespace, options: Namespace, command: str, run_dir: Path) -> None:
        self._settings, self._options, self._run_dir = settings, options.trainer, run_dir
        self._fits = command == "fit"
        self._config = copy.deepcopy({**settings, "logger": None})

    def own(self, model: MissingModalityModule) -> L.Trainer:
        """The trainer of the command, with its loggers and the user's callbacks.

        Raises:
            InputError: a callback watches what the model does not log, or other processes of this run train alone.
        """
        logger = self._settings.get("logger")
        if not self._fits and logger in (None, True):
            logger = False
        elif logger in (None, True):
            logger = [
                CSVLogger(self._run_dir, name=runs.free_name(self._run_dir, "logs"), version=""),
                TensorBoardLogger(self._run_dir, name="tensorboard", version=""),
            ]
        given = self._settings.get("callbacks") or []
        given = given if isinstance(given, list) else [given]
        check_monitors(given, model)
        trainer = self._made(model, self._run_dir, logger, given)
        ranks.check_alone(trainer)
        return trainer

    def of_stage(self, stage: MissingModalityModule, folder: Path, own: L.Trainer) -> L.Trainer:
        """The trainer of a further stage: the loggers of the command's ``own``, checkpoints in ``folder``."""
        return self._made(stage, folder, own.loggers or False, [])

    def _made(
        self, model: MissingModalityModule, folder: Path, logger: Any, callbacks: Sequence[L.Callback]
    ) -> L.Trainer:
        config = copy.deepcopy(self._config)
        if not self._fits:  # a fit's configuration may be given to another command
            callbacks = [callback for callback in callbacks if not isinstance(callback, Checkpoint)]
        plugins = with_atomic_checkpoints(config.get("plugins"), config.get("strategy"), self._run_dir, self._fits)
        config["plugins"] = ranks.without_requeue(plugins)
        placed = OwnCheckpoints(self._run_dir / "logs" / "checkpoints", callbacks)
        extra: list[L.Callback] = [placed, *callbacks, MemoryCap(), Stopping()]
        if self._fits:
            extra += [SameStart(), ScheduleNote(self._options.max_epochs, self._options.min_epochs)]
        if any(isinstance(callback, ProgressBar) for callback in callbacks):
            config["enable_progress_bar"] = True
        elif config.get("enable_progress_bar") is not False:
            extra.append(bar := progress_callback())
            config["enable_progress_bar"] = hasattr(bar, "refresh_rate")
        if self._fits and config.get("enable_checkpointing") is not False:
            extra += checkpoint_callbacks(folder, model.monitor_key, model.monitor_mode)
        else:
            config["enable_checkpointing"] = False
        config |= {"logger": logger, "callbacks": extra, "default_root_dir": str(self._run_dir)}
        return L.Trainer(**config)
