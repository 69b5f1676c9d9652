"""Training a model in both stages: for the command line and for scripts."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import lightning as L
from lightning.pytorch.utilities import rank_zero_only

from datamodules.base import EmotionDataModule
from datamodules.errors import InputError
from ifmmin import runs
from ifmmin.base import MissingModalityModule
from ifmmin.checkpoints.keeping import best_epoch
from ifmmin.checkpoints.parts import read_stage1, split_parts
from ifmmin.checkpoints.training_state import usable_checkpoint
from ifmmin.pretraining.stage2 import Stage2Module

MakeTrainer = Callable[[MissingModalityModule, Path], L.Trainer]
"""Makes the trainer of a stage, which keeps its checkpoints in ``FOLDER/checkpoints``."""

Report = Callable[[str], None]

_print_rank_zero: Report = rank_zero_only(print)


@dataclass(frozen=True)
class Fitted:
    """What a fit leaves.

    Attributes:
        trainer: of the model.
        checkpoint: of the best epoch, None if none was kept.
    """

    trainer: L.Trainer
    checkpoint: str | None


def fit_two_stages(
    model: MissingModalityModule,
    data: EmotionDataModule,
    make_trainer: MakeTrainer,
    folder: str | Path,
    *,
    seed: int = 0,
    ckpt_path: str | None = None,
    report: Report = _print_rank_zero,
) -> Fitted:
    """Train stage 1 if the model has one, then the model; go on where an interrupted run stopped.

    Stage 1 may start from a stage 1 of its own, which is then trained before it.

    Args:
        model: to train; one with a stage 1 that was given neither weights nor a checkpoint is pretrained first.
        data: its corpus.
        make_trainer: called once for each stage.
        folder: of the run; stage 1 keeps its files in ``folder/stage1``.
        seed: of stage 1's weights.
        ckpt_path: a checkpoint to go on from; by default the last one in ``folder``.
        report: called with a line for people now and then.

    Raises:
        InputError: the data, a checkpoint or an option does not fit.

    Example::

        data = Synthetic(fold=1)
        model = IFMMIN(feature_dims=data.feature_dims, class_names=data.class_names, corpus=data.corpus_name)
        fitted = fit_two_stages(model, data, lambda model, folder: L.Trainer(default_root_dir=folder), "run")
    """
    folder = Path(folder)
    last = ckpt_path or usable_checkpoint(folder, model)
    if last is None:
        load_pretrained(model, data)
    if isinstance(model, Stage2Module) and not model.taught and last is None:
        _pretrain(model, data, make_trainer, folder, seed, report)
    trainer = make_trainer(model, folder)
    going_on = f", going on from {last}" if last else ""
    report(f"training {type(model).__name__}{going_on} ({trainable_parameters(model):,} parameters)")
    trainer.fit(model, datamodule=data, ckpt_path=last, weights_only=True)
    best = best_checkpoint(trainer)
    if best is None:
        report("no checkpoint was kept, so the weights of the last step are taken")
    else:
        report(f"best epoch by {model.monitor_key}: {best}")
    return Fitted(trainer, best)


def load_pretrained(model: MissingModalityModule, data: EmotionDataModule) -> None:
    """Load the stage 1 that a model was given as ``pretrained``, once.

    Raises:
        InputError: it cannot be read, does not fit, or was trained on another fold of this corpus.
    """
    if isinstance(model, Stage2Module) and model.pretrained and not model.taught:
        model.load_pretrained(data)


def _pretrain(
    model: Stage2Module,
    data: EmotionDataModule,
    make_trainer: MakeTrainer,
    run: Path,
    seed: int,
    report: Report,
) -> None:
    """Train stage 1, or load a finished one, into ``model``."""
    done = runs.finished_stage1(run)
    if done is not None:
        try:
            model.load_stage1(read_stage1(done, model.stage1_class).parts, str(done))
        except InputError as error:
            report(f"{str(error).rstrip('.')}; stage 1 is done again.")
        else:
            report(f"stage 1: done already, {done}")
            return
    L.seed_everything(seed, verbose=False)
    stage1 = model.stage1_module()
    fitted = fit_two_stages(
        stage1, data, make_trainer, run / runs.STAGE1, seed=seed, report=lambda line: report(f"stage 1: {line}")
    )
    if fitted.checkpoint is None:
        model.load_stage1(split_parts(stage1.state_dict()))
        return
    model.load_stage1(read_stage1(fitted.checkpoint, model.stage1_class).parts, fitted.checkpoint)
    rank_zero_only(runs.record_stage1)(run, Path(fitted.checkpoint))


def best_checkpoint(trainer: L.Trainer) -> str | None:
    """Path of the best epoch's checkpoint, None if none was kept."""
    callback = best_epoch(trainer)
    path = callback.best_model_path if callback is not None else ""
    return os.path.relpath(path) if path else None


def trainable_parameters(model: L.LightningModule) -> int:
    """Number of parameters that are trained."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
