"""Options of the trainer that do not fit the number of batches and epochs, refused before anything is written."""

from __future__ import annotations

from typing import Any

from jsonargparse import Namespace

from datamodules.base import EmotionDataModule
from ifmmin.base import MissingModalityModule
from ifmmin.cli.trainer_options import check_trainer_options
from ifmmin.pretraining.stage2 import Stage2Module

_READ = {"fit": ("val",), "validate": ("val",), "test": ("test",), "predict": ("predict",)}


def check_counts(
    options: Namespace, command: str, model: MissingModalityModule, data: EmotionDataModule, devices: int
) -> None:
    """Refuse limits that leave no batch, and intervals beyond the end, of any stage.

    Args:
        options: of the command, parsed.
        command: ``fit``, ``validate``, ``test`` or ``predict``.
        model: of the command.
        data: set up.
        devices: that share each batch.

    Raises:
        InputError: naming the option, its value and what to give.
    """
    data.serve(model.needs, model.settings.batch_size)  # the order of batches depends on what a model reads
    splits = (*_READ[command], "test") if options.get("test") else _READ[command]
    counts: dict[str, Any] = {
        f"{split}_batches": data.count_batches(data.predict_split if split == "predict" else split, devices=devices)
        for split in splits
    }
    trainer = {**vars(options.trainer), **counts}
    if command != "fit":
        check_trainer_options(trainer, command)
        return
    stages = [model]
    if not options.get("ckpt_path"):
        while isinstance(first := stages[0], Stage2Module) and not first.taught:
            stages.insert(0, first.stage1_for_a_look())
    limit = trainer.get("limit_train_batches")
    for stage in stages:
        data.serve(stage.needs, stage.settings.batch_size)
        train = data.count_batches("train", stage.settings.batch_size, devices)
        epoch = int(train * limit) if isinstance(limit, float) else min(train, limit or train)
        epochs = stage.scheduled(data, devices).epochs
        counted = {"train_batches": train, "epoch_batches": epoch, "scheduled_epochs": epochs}
        check_trainer_options({**trainer, **counted}, command)
