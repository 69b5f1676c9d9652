"""Reading a folder that ``save_pretrained`` wrote, in the form of a checkpoint.

Its files::

    FOLDER/model.safetensors          the weights
    FOLDER/preprocessing.safetensors  mean and std of the training frames, by modality
    FOLDER/config.json                model, options, training data, versions, and the SHA-256 of the two files above
    FOLDER/results.json               the scores of its run, if they are known
    FOLDER/README.md                  the model card
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from datamodules.errors import InputError
from datamodules.text import printable
from ifmmin.checkpoints.contents import ContentError, check_contents
from ifmmin.checkpoints.reading import LARGEST_STRUCTURE

CONFIG, RESULTS, CARD = "config.json", "results.json", "README.md"
WEIGHTS, PREPROCESSING = "model.safetensors", "preprocessing.safetensors"
FILES = (CONFIG, WEIGHTS, PREPROCESSING, RESULTS, CARD)
"""All files of a folder; no other is read or fetched."""

LIBRARY, FORMAT = "ifmmin", 1

_AGAIN = "take another copy, or save the model again"


def is_saved(path: Path) -> bool:
    """Whether ``path`` is a folder with a ``config.json``, as ``save_pretrained`` writes."""
    return (path / CONFIG).is_file()


def read_folder(folder: Path, needs_data: bool = True) -> dict[str, Any]:
    """Read a saved model in the form of a checkpoint, every part of it checked.

    Args:
        folder: of the model.
        needs_data: refuse one without a record of its training data.

    Returns:
        ``hyper_parameters``, ``state_dict`` and ``ifmmin``, as of
        :func:`~ifmmin.checkpoints.reading.read_checkpoint`; and ``class_path``, for messages.

    Raises:
        InputError: a file is missing, damaged, or of something else; or this version does not know its format.
    """
    config = read_config(folder)
    sizes = [(folder / name).stat().st_size for name in (WEIGHTS, PREPROCESSING) if (folder / name).is_file()]
    record = dict(_part(folder, config, "ifmmin"))
    stored = {
        "hyper_parameters": _part(folder, config, "hyper_parameters"),
        "state_dict": _tensors(folder, WEIGHTS, config),
        "ifmmin": record,
        "class_path": config.get("class_path"),
    }
    frames = _tensors(folder, PREPROCESSING, config)
    if "data" in record:
        record["data"] = {**_part(folder, record, "data"), "statistics": _by_modality(frames)}
    try:
        check_contents(stored, sum(sizes), needs_data)
    except ContentError as error:
        raise InputError(f"{printable(folder)}: not a model that this library saved: {error}; {_AGAIN}.") from error
    return stored


def read_config(folder: Path) -> dict[str, Any]:
    """Read ``config.json``.

    Raises:
        InputError: it is missing, damaged, or of another library or format.
    """
    path = folder / CONFIG
    shown = printable(path)
    if not path.is_file():
        raise InputError(f"{shown}: not there, so no model that save_pretrained wrote; name the folder of one.")
    try:
        if path.stat().st_size > LARGEST_STRUCTURE:
            raise ValueError(f"larger than {LARGEST_STRUCTURE} bytes")
        config = json.loads(path.read_bytes().decode("utf-8"))
    except (ValueError, RecursionError) as error:
        why = "nested too deep" if isinstance(error, RecursionError) else printable(error, 100)
        raise InputError(f"{shown}: not readable as JSON ({why}); {_AGAIN}.") from error
    if not isinstance(config, dict) or config.get("library_name") != LIBRARY:
        raise InputError(f"{shown}: of a model of another library; name the folder of one that ifmmin saved.")
    if type(config.get("format")) is not int or not 1 <= config["format"] <= FORMAT:
        given = printable(config.get("format"), 40)
        raise InputError(f"{shown}: format {given}, but this version of ifmmin knows up to {FORMAT}; update ifmmin.")
    return config


def digest(content: bytes) -> dict[str, Any]:
    """What ``config.json`` records of a file: its size and SHA-256."""
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _part(folder: Path, entries: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = entries.get(name)
    if not isinstance(found, dict):
        raise InputError(f"{printable(folder / CONFIG)}: has no {name}; {_AGAIN}.")
    return found


def _tensors(folder: Path, name: str, config: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of one file, which is the one that ``config.json`` records."""
    import safetensors.torch as safe

    path = folder / name
    shown = printable(path)
    if not path.is_file():
        pickled = sorted(each.name for each in folder.iterdir() if each.suffix in (".bin", ".pt", ".pth", ".ckpt"))
        why = f"; {printable(pickled[0], 60)} is a pickle, which is never read" if pickled else ""
        raise InputError(f"{shown}: not there{why}; {_AGAIN}.")
    recorded = _part(folder, config, "files").get(name)
    wanted = recorded if isinstance(recorded, dict) else {}
    size = path.stat().st_size
    if size != wanted.get("bytes"):
        raise InputError(f"{shown}: {size} bytes, but {CONFIG} says {printable(wanted.get('bytes'), 40)}; {_AGAIN}.")
    content = path.read_bytes()
    if digest(content) != wanted:
        raise InputError(f"{shown}: not the file that {CONFIG} was written with (its SHA-256 differs); {_AGAIN}.")
    try:
        return dict(safe.load(content))
    except Exception as error:  # safetensors raises errors of its own, and KeyError for a kind it does not know
        why = printable(str(error) or type(error).__name__, 100)
        raise InputError(f"{shown}: not readable as safetensors ({why}); {_AGAIN}.") from error


def _by_modality(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """``audio.mean`` as ``{"audio": {"mean": ...}}``."""
    found: dict[str, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        modality, _, which = name.partition(".")
        found.setdefault(modality, {})[which] = value
    return found
