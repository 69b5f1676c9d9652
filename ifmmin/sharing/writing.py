"""Writing a trained model as a folder: whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datamodules.errors import InputError
from datamodules.files import expanded
from datamodules.text import printable
from ifmmin.checkpoints.contents import ContentError, check_contents
from ifmmin.discovery import path_of
from ifmmin.results.provenance import environment_record
from ifmmin.sharing.card import model_card
from ifmmin.sharing.folder import (
    CARD,
    CONFIG,
    FILES,
    FORMAT,
    LIBRARY,
    PREPROCESSING,
    RESULTS,
    WEIGHTS,
    digest,
    read_config,
)
from ifmmin.sharing.scores import scores_of

if TYPE_CHECKING:
    from ifmmin.base import MissingModalityModule

_PLACES = ("pretrained",)
"""Options that are paths on the machine of the training: nobody else has them, and nothing is read of them again."""


def save_folder(
    model: MissingModalityModule,
    folder: str | Path,
    *,
    data: Mapping[str, Any] | None = None,
    run: str | Path | None = None,
    licence: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a model as a folder that appears at once, or not at all.

    Args:
        model: trained.
        folder: that is made.
        data: the record of its training data, where the model does not have it.
        run: see :func:`~ifmmin.sharing.scores.scores_of`.
        licence: of the weights, instead of that of the corpus.
        overwrite: replace a folder that this function wrote before.

    Returns:
        the folder.

    Raises:
        InputError: there is something in its place; or the model or its run cannot be saved.
        OSError: the disk is full, or may not be written.
    """
    place = expanded(folder)
    _check_place(place, overwrite)
    files = files_of(model, data=data, run=run, licence=licence)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=place.parent, prefix=f".ifmmin-{place.name}."))
        try:
            write_files(temporary / "new", files)
            if place.exists():
                place.rename(temporary / "old")
            try:
                (temporary / "new").rename(place)
            except OSError:
                if (temporary / "old").exists():
                    (temporary / "old").rename(place)
                raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(place)) from error
    return place


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files into a new folder, and have the disk hold them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        with (folder / name).open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())


def files_of(
    model: MissingModalityModule,
    *,
    data: Mapping[str, Any] | None = None,
    run: str | Path | None = None,
    licence: str | None = None,
) -> dict[str, bytes]:
    """Contents of the folder's files by name; arguments and errors are those of :func:`save_folder`."""
    import safetensors.torch as safe

    record = _record(model, data)
    options = {name: None if name in _PLACES else value for name, value in model.hparams.items()}
    # A copy of each: safetensors refuses tensors that share their memory.
    weights = {name: value.detach().cpu().clone().contiguous() for name, value in model.state_dict().items()}
    try:
        size = sum(value.numel() * value.element_size() for value in weights.values())
        check_contents({"hyper_parameters": options, "state_dict": weights, "ifmmin": record}, size, needs_data=False)
    except ContentError as error:
        raise InputError(f"{type(model).__name__}: cannot be saved: {error}.") from error
    scores = scores_of(model, record.get("data"), run)
    trained_on = dict(record.pop("data", {}))
    statistics = {
        f"{modality}.{name}": value.detach().cpu().clone().contiguous()
        for modality, values in trained_on.pop("statistics", {}).items()
        for name, value in values.items()
    }
    tensors = {
        WEIGHTS: safe.save(weights, metadata={"format": "pt"}),
        PREPROCESSING: safe.save(statistics, metadata={"format": "pt"}),
    }
    made = environment_record()
    environment = {name: made[name] for name in ("versions", "commit", "dirty")}
    config = {
        "library_name": LIBRARY,
        "format": FORMAT,
        "class_path": path_of(type(model)),
        "ifmmin": record | ({"data": trained_on} if trained_on else {}),
        "hyper_parameters": options,
        "files": {name: digest(content) for name, content in tensors.items()},
        "environment": environment,
    }
    files = {CONFIG: _json(config), **tensors}
    if scores is not None:
        files[RESULTS] = _json(scores)
    files[CARD] = model_card(model, trained_on or None, scores, environment, licence).encode("utf-8")
    return files


def _record(model: MissingModalityModule, data: Mapping[str, Any] | None) -> dict[str, Any]:
    """What a checkpoint of the model records, with the data it was trained on."""
    known = model.trained_on if data is None else data
    checkpoint: dict[str, Any] = {}
    model.on_save_checkpoint(checkpoint)
    record: dict[str, Any] = dict(checkpoint["ifmmin"])
    record.pop("validation", None)
    if known is not None:
        # A trainer that only tested it may have other data.
        record["data"] = known
        model.trained_on = known
    return record


def _check_place(place: Path, overwrite: bool) -> None:
    """Refuse a place where something is that would be lost.

    Raises:
        InputError: saying what is there.
    """
    shown = printable(place)
    if not place.name:
        raise InputError(f"{shown}: no name of a folder; give the folder that is to be made.")
    if not (place.exists() or place.is_symlink()):
        return
    if place.is_symlink() or not place.is_dir():
        raise InputError(f"{shown}: exists already and is no folder; name another.")
    others = sorted({each.name for each in place.iterdir()} - {*FILES})
    if others:
        found = printable(others[0], 60)
        raise InputError(f"{shown}: has {found}, which save_pretrained does not write; name another folder.")
    if not any(place.iterdir()):
        return
    try:
        read_config(place)
    except InputError as error:
        raise InputError(f"{shown}: exists already and holds no saved model; name another folder.") from error
    if not overwrite:
        raise InputError(
            f"{shown}: holds a saved model already; name another folder, or overwrite it (--overwrite, overwrite=True)."
        )


def _json(values: Mapping[str, Any]) -> bytes:
    return (json.dumps(values, indent=2) + "\n").encode("utf-8")
