"""The one way to load a trained model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datamodules.errors import InputError
from ifmmin.base import MissingModalityModule
from ifmmin.checkpoints.parts import load_part
from ifmmin.checkpoints.reading import read_checkpoint, trained_model
from ifmmin.discovery import find_model, model_names


def load_model(checkpoint: str | Path) -> tuple[MissingModalityModule, dict[str, Any]]:
    """Load a trained model in eval mode on the CPU; nothing in the file is executed.

    Args:
        checkpoint: one that ``fit`` wrote.

    Returns:
        the model, and the checkpoint's record of its training data
        (:meth:`~datamodules.base.EmotionDataModule.checkpoint_record`).

    Raises:
        InputError: it cannot be read, something else wrote it, or its model is not installed.
    """
    stored = read_checkpoint(str(checkpoint))
    name = trained_model(stored["ifmmin"])
    # By registry name, not by a path in the file: that would import whatever it names.
    if name not in model_names():
        raise InputError(f"{checkpoint}: a checkpoint of {name}, which is not among the installed models.")
    model = find_model(name)(**stored["hyper_parameters"])
    load_part(model, stored["state_dict"], str(checkpoint))
    return model.eval(), stored["ifmmin"]["data"]
