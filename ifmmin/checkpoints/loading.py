"""The one way to load a trained model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datamodules.errors import InputError
from datamodules.files import expanded
from datamodules.text import printable
from ifmmin.base import MissingModalityModule
from ifmmin.checkpoints.parts import load_part
from ifmmin.checkpoints.reading import read_checkpoint, trained_model
from ifmmin.checkpoints.shapes import check_fits
from ifmmin.discovery import find_model, model_names
from ifmmin.sharing.folder import is_saved, read_folder


def load_model(
    checkpoint: str | Path, model: type[MissingModalityModule] | None = None
) -> tuple[MissingModalityModule, dict[str, Any]]:
    """Load a trained model in eval mode on the CPU; nothing in the file is executed.

    Args:
        checkpoint: one that ``fit`` wrote, or a folder that ``save_pretrained`` wrote.
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
    path = expanded(checkpoint)
    stored = read_trained(path)
    give = f"give it: load(path, model={trained_model(stored['ifmmin'])})"
    return _made(stored, path, model, f"if you have the class, import it and {give}"), stored["ifmmin"]["data"]


def read_trained(path: Path) -> dict[str, Any]:
    """Read a checkpoint, or a folder that ``save_pretrained`` wrote in the form of one, everything in it checked.

    Raises:
        InputError: it cannot be read, or something else wrote it.
    """
    return read_folder(path) if is_saved(path) else read_checkpoint(path)


def load_saved(folder: Path, model: type[MissingModalityModule] | None = None) -> MissingModalityModule:
    """Load a model that ``save_pretrained`` wrote, with a record of its training data or without.

    Args:
        folder: its.
        model: the class that it must be of; None takes any that is installed.

    Raises:
        InputError: as of :func:`load_model`.
    """
    if model is not None:
        _check_class(model)
    stored = read_folder(folder, needs_data=False)
    where = f" ({printable(stored['class_path'], 100)})" if stored["class_path"] else ""
    call = f"call {trained_model(stored['ifmmin'])}.from_pretrained"
    return _made(stored, folder, model, f"if you have the class{where}, import it and {call}")


def _made(
    stored: Mapping[str, Any], path: Path, model: type[MissingModalityModule] | None, remedy: str
) -> MissingModalityModule:
    """The model of a checkpoint that was read.

    Args:
        stored: from :func:`~ifmmin.checkpoints.reading.read_checkpoint`, or as it.
        path: where it was, for messages.
        model: its class, or None.
        remedy: for a model that is not installed.
    """
    name = trained_model(stored["ifmmin"])
    if model is not None:
        if model.__name__ != name:
            raise InputError(f"{printable(path)}: a checkpoint of {name}, not of {model.__name__}; give its class.")
    # By registry name, not by a path in the file: that would import whatever it names.
    elif name in model_names():
        model = find_model(name)
    else:
        raise InputError(
            f"{printable(path)}: a checkpoint of {name}, which is not among the installed models; {remedy}."
        )
    check_fits(model, stored, str(path))
    made = model(**stored["hyper_parameters"])
    load_part(made, stored["state_dict"], str(path))
    made.on_load_checkpoint(dict(stored))
    made.trained_on, made.loaded_from = stored["ifmmin"].get("data"), path
    return made.eval()


def _check_class(model: object) -> None:
    """Refuse what is no class of a model.

    Raises:
        InputError: it is none.
    """
    if not (isinstance(model, type) and issubclass(model, MissingModalityModule)):
        what = repr(model) if isinstance(model, str | type) else f"a {type(model).__name__}"
        raise InputError(f"model: {printable(what, 100)} is no class of a model; import the class and give it.")
