"""Temperatures: fitted after training, on the validation split, and applied to predictions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import torch
from jsonargparse import Namespace

from datamodules.base import EmotionDataModule
from datamodules.conditions import CONDITIONS
from datamodules.errors import InputError
from datamodules.text import printable
from ifmmin.base import MissingModalityModule
from ifmmin.calibration import calibrated, fit_temperatures, store_temperatures
from ifmmin.calibration.temperatures import by_row, check_temperatures
from ifmmin.cli.collecting import AnswerCollector
from ifmmin.results.predictions import Predictions
from ifmmin.results.shares import with_shares
from ifmmin.sharing.folder import is_saved


def check_calibrates(
    model: MissingModalityModule, data: EmotionDataModule, checkpoint: Mapping[str, Any], source: str
) -> None:
    """Refuse temperatures of a regression, fitted on another corpus than the training's, or of a saved model.

    Raises:
        InputError: saying why.
    """
    if is_saved(Path(source)):
        raise InputError(
            f"--calibrate: {source} is a saved model, which is not changed; give the .ckpt file that it was saved from."
        )
    if not model.task.class_names:
        raise InputError(f"--calibrate: {source} answers with a value; only probabilities of classes are calibrated.")
    trained_on = checkpoint["ifmmin"]["data"]["name"]
    if trained_on != data.corpus_name:
        raise InputError(f"--calibrate: {source} was trained on {printable(trained_on)}; give that corpus.")


def as_asked(
    predictions: Predictions | None, model: MissingModalityModule, source: str, options: Namespace
) -> Predictions | None:
    """Predictions as ``--calibrated``, ``--abstain_below`` and ``--why`` want them.

    Raises:
        InputError: a condition of theirs has no temperature.
    """
    if predictions is None:
        return None
    if options.calibrated:
        condition = torch.as_tensor(predictions.conditions).long()
        check_temperatures(model.temperatures, [CONDITIONS[place] for place in condition.unique().tolist()], source)
        temperature = by_row(condition, model.temperatures)
        answers = calibrated(torch.as_tensor(predictions.answers), temperature).float()
        predictions = replace(predictions, answers=answers)
    if options.why:
        predictions = with_shares(predictions)
    return replace(predictions, abstain_below=options.abstain_below)


def fit_on_validation(
    trainer: L.Trainer, model: MissingModalityModule, data: EmotionDataModule, checkpoint: str | None
) -> dict[str, float]:
    """Fit a temperature per condition that model and data answer; they go into the model and the checkpoint.

    Args:
        trainer: of the training or validation.
        model: classes or none; a regression gets no temperatures.
        data: set up.
        checkpoint: whose weights answer; None: those of ``model``.

    Returns:
        what was fitted, by condition.

    Raises:
        OSError: the checkpoint cannot be written.
    """
    if not model.task.class_names:
        return {}
    # As a prediction, for nothing is logged and nothing else is scored.
    collector, asked = AnswerCollector(), data.predict_split
    data.predict_split = "val"
    trainer.callbacks.append(collector)  # type: ignore[attr-defined]
    try:
        trainer.predict(model, datamodule=data, ckpt_path=checkpoint, return_predictions=False, weights_only=True)
    finally:
        data.predict_split = asked
        trainer.callbacks.remove(collector)  # type: ignore[attr-defined]
    found = trainer.strategy.broadcast({} if collector.predictions is None else fit_temperatures(collector.predictions))
    # Those of conditions that were not asked now are of the same weights.
    model.temperatures = {**model.temperatures, **found}
    if checkpoint is not None and trainer.is_global_zero:
        store_temperatures(checkpoint, model.temperatures)
    trainer.strategy.barrier()
    return found
