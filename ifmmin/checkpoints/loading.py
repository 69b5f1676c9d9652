"""The one way to load a trained model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datamodules.errors import InputError
from datamodules.text import printable
from ifmmin.base import MissingModalityModule
from ifmmin.checkpoints.parts import load_part
from ifmmin.checkpoints.reading import read_checkpoint, trained_model
from ifmmin.checkpoints.shapes import check_fits
from ifmmin.discovery import find_model, model_names


def load_model(
    checkpoint: str | Path, model: type[MissingModalityModule] | None = None
) -> tuple[MissingModalityModule, dict[str, Any]]:
    """Load a trained model in eval mode on the CPU; nothing in the file is executed.

    Args:
        checkpoint: one that ``fit`` wrote.
        model: its class, for one that is not among the installed models.

    Returns:
        the model, and the checkpoint's record of its training data
        (:meth:`~datamodules.base.EmotionDataModule.checkpoint_record`).

    Raises:
        InputError: it cannot be read, something else wrote it, its model is not installed or another than ``model``,
            its weights do not fit or are no finite numbers, or ``model`` is no class of a model.
    """
    if model is not None:
        _check_class(model)
    path = Path(checkpoint)
    stored = read_checkpoint(path)
    name = trained_model(stored["ifmmin"])
    if model is not None:
        if model.__name__ != name:
            raise InputError(f"{printable(path)}: a checkpoint of {name}, not of {model.__name__}; give its class.")
    # By registry name, not by a path in the file: that would import whatever it names.
    elif name in model_names():
        model = find_model(name)
    else:
        raise InputError(
            f"{printable(path)}: a checkpoint of {name}, which is not among the installed models; "
            f"if you have the class, import it and give it: load(path, model={name})."
        )
    check_fits(model, stored, str(path))
    made = model(**stored["hyper_parameters"])
    load_part(made, stored["state_dict"], str(path))
    made.temperatures = dict(stored["ifmmin"].get("temperatures", {}))
    return made.eval(), stored["ifmmin"]["data"]


def _check_class(model: object) -> None:
    """Refuse what is no class of a model.

    Raises:
        InputError: it is none.
    """
    if not (isinstance(model, type) and issubclass(model, MissingModalityModule)):
        what = repr(model) if isinstance(model, str | type) else f"a {type(model).__name__}"
        raise InputError(f"model: {printable(what, 100)} is no class of a model; import the class and give it.")
