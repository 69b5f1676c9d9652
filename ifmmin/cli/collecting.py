"""The answers of a test, a validation or a prediction, gathered from all devices."""

from __future__ import annotations

from typing import Any

import lightning as L
import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch.callbacks import Callback

from ifmmin.base import MissingModalityModule
from ifmmin.results.predictions import Predictions

Columns = dict[str, npt.NDArray[Any]]


class AnswerCollector(Callback):
    """Keeps what a model answers, so that nothing is encoded twice.

    Attributes:
        predictions: after the run, on the first device, every answer once, in corpus order; otherwise None.
    """

    def __init__(self) -> None:
        self.predictions: Predictions | None = None
        self._parts: list[Columns] = []

    def on_test_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the answers of a batch, which the model's step returned."""
        # bfloat16, which NumPy lacks, comes of no task: answers are float32.
        self._parts.append({name: value.detach().cpu().numpy() for name, value in outputs.items()})

    on_validation_batch_end = on_predict_batch_end = on_test_batch_end

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Gather the answers of all batches and devices."""
        self._gather(trainer, pl_module)

    on_validation_end = on_predict_end = on_test_end

    def _gather(self, trainer: L.Trainer, model: L.LightningModule) -> None:
        assert isinstance(model, MissingModalityModule)
        parts, self._parts = self._parts, []
        if trainer.world_size > 1:
            everyone: list[Any] = [None] * trainer.world_size
            torch.distributed.all_gather_object(everyone, parts)
            parts = [part for device in everyone for part in device]
        if not trainer.is_global_zero or not parts:
            return
        data = model.datamodule
        assert data is not None
        # A batch without rows has no further values.
        parts = [part for part in parts if len(part["index"])] or parts[:1]
        columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        order = np.lexsort((columns["condition"], columns["index"]))
        names = data.corpus.utterances
        self.predictions = Predictions(
            model.task,
            [names[position] for position in columns["index"][order]],
            columns["condition"][order],
            columns["answer"][order],
            columns["label"][order],
            {name.removeprefix("value/"): found[order] for name, found in columns.items() if name.startswith("value/")},
        )
