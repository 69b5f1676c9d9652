"""A trial's word to Optuna: the validation score of each epoch, and whether it is worth going on."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import lightning as L
import optuna
from lightning.pytorch.callbacks import Callback

from benchmarks.search.trials import frozen, open_study
from datamodules.files import write_text
from ifmmin.base import MissingModalityModule
from ifmmin.checkpoints.keeping import best_epoch

PRUNED = "pruned.json"
"""File in a run's folder that says when it was stopped."""

STRIDE = 100_000
"""Steps of a trial that its first run takes: epoch e of run k is step k * STRIDE + e."""

PATIENCE = 0.25
"""Share of a run's epochs before it may be stopped."""


class Pruning(Callback):
    """Reports the best validation score so far after each epoch, and stops a run that is below the others' median.

    Of a trial with several runs it reports the mean over those that are done and this one.

    Args:
        folder: of the search.
        run: folder of this run.
        trial: its trial's number.
        earlier: scores of the trial's runs that are done; None: there are none.
    """

    def __init__(self, folder: str, run: str, trial: int, earlier: list[float] | None = None) -> None:
        self.folder, self.run, self.number, self.earlier = Path(folder), Path(run), trial, list(earlier or [])
        self._trial: Any = None

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Find the trial in the journal."""
        study = open_study(self.folder)
        study.sampler = optuna.samplers.RandomSampler()
        self._trial = optuna.trial.Trial(study, frozen(study.get_trials(deepcopy=False), self.number)._trial_id)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Report, and stop where it is not worth going on."""
        assert isinstance(pl_module, MissingModalityModule)
        score = float(trainer.callback_metrics.get(pl_module.monitor_key, math.nan))
        if trainer.sanity_checking or not trainer.is_global_zero or not math.isfinite(score):
            return
        # Its score is that of the epochs before: callbacks that keep checkpoints are called last.
        keeper = best_epoch(trainer)
        before = None if keeper is None or keeper.best_model_score is None else float(keeper.best_model_score)
        best = score if before is None else (max if pl_module.monitor_mode == "max" else min)(score, before)
        value = (sum(self.earlier) + best) / (len(self.earlier) + 1)
        epoch = trainer.current_epoch + 1
        step = len(self.earlier) * STRIDE + epoch
        # A run that goes on after a kill does an epoch again.
        if step not in frozen(self._trial.study.get_trials(deepcopy=False), self.number).intermediate_values:
            self._trial.report(value, step)
        epochs = trainer.max_epochs or 0
        if PATIENCE * epochs <= epoch < epochs and self._trial.should_prune():
            write_text(self.run / PRUNED, json.dumps({"epoch": epoch, "value": value}) + "\n")
            trainer.should_stop = True
