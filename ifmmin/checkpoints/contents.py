"""What a checkpoint must contain to be scored: kinds, sizes, and numbers that are numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, get_args

import torch
from torch import Tensor

from datamodules.batches.loading import Normalization
from datamodules.conditions import CONDITIONS, MODALITIES
from datamodules.errors import InputError
from datamodules.extraction.provenance import checked
from datamodules.text import has_control, printable
from ifmmin.calibration.temperatures import HIGHEST, LOWEST
from ifmmin.tasks import task_of

_DEEPEST, _MOST_VALUES, _LONGEST_NAME = 20, 100_000, 200
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_TIMES_SHARED = 4  # tensors that share their storage may declare more than the file has


class ContentError(Exception):
    """What is wrong inside a file, without its name."""


def check_contents(checkpoint: object, size: int, needs_data: bool = True) -> None:
    """Check everything of a checkpoint that building, scoring and predicting read.

    Args:
        checkpoint: what the file contains.
        size: the file's, in bytes.
        needs_data: whether a record of the training data must be there.

    Raises:
        ContentError: naming the entry, and what it is instead.
    """
    entries = _named(checkpoint, "the file")
    record = _named(entries.get("ifmmin"), "ifmmin")
    model = _text(record.get("model"), "ifmmin.model")
    if not model.rpartition(".")[2].isidentifier():
        raise ContentError(f"ifmmin.model is {printable(model)}, no name of a class")
    settings = _named(entries.get("hyper_parameters"), "hyper_parameters")
    _check_plain(settings, "hyper_parameters")
    weights = _named(entries.get("state_dict"), "state_dict")
    check_tensors(weights, "weight", size)
    if not weights:
        raise ContentError("state_dict has no weights")
    for name, value in weights.items():
        if not _is_finite(value):
            raise ContentError(f"weight {printable(name)} is NaN or infinite, so its training diverged")
    _check_temperatures(_named(record.get("temperatures", {}), "ifmmin.temperatures"))
    if "data" in record or needs_data:
        _check_data(_named(record.get("data"), "ifmmin.data"), settings, size)


def _check_temperatures(temperatures: Mapping[str, Any]) -> None:
    for condition, value in temperatures.items():
        if condition not in CONDITIONS:
            raise ContentError(f"ifmmin.temperatures has {printable(condition, 40)}, no condition")
        if not isinstance(value, float) or not LOWEST <= value <= HIGHEST:
            shown = printable(value, 40) if isinstance(value, (int, float)) else _kind(value)
            raise ContentError(f"ifmmin.temperatures.{condition} is {shown}, not from {LOWEST:g} to {HIGHEST:g}")


def check_settings(model: str, settings: Mapping[str, Any]) -> None:
    """Refuse options of a model that no checkpoint can hold, before it is trained.

    Raises:
        InputError: naming the model and the option.
    """
    try:
        _check_plain(dict(settings), model)
    except ContentError as error:
        raise InputError(
            f"{error}; options of a model are text, numbers, truth values, and lists and dictionaries of these, as a "
            "checkpoint holds no other."
        ) from error


def _check_data(data: Mapping[str, Any], settings: Mapping[str, Any], size: int) -> None:
    """Check the record of the training data, and that it is of the same data as the model's settings."""
    _text(data.get("name"), "ifmmin.data.name")
    _whole(data.get("fold"), "ifmmin.data.fold", 1)
    _whole(data.get("seed"), "ifmmin.data.seed", 0)
    _text(data.get("fingerprint"), "ifmmin.data.fingerprint")
    for name in _list(data.get("feature_names") or MODALITIES, "ifmmin.data.feature_names", len(MODALITIES)):
        _text(name, "ifmmin.data.feature_names")
    dims = _list(data.get("feature_dims"), "ifmmin.data.feature_dims", len(MODALITIES))
    for dim in dims:
        _whole(dim, "ifmmin.data.feature_dims", 1)
    classes = _list(data.get("class_names"), "ifmmin.data.class_names")
    for name in classes:
        _text(name, "ifmmin.data.class_names")
    if len(set(classes)) < len(classes):
        raise ContentError("ifmmin.data.class_names has a class twice")
    for name, of_data in {"feature_dims": dims, "class_names": classes}.items():
        if name in settings and (not isinstance(settings[name], (list, tuple)) or list(settings[name]) != of_data):
            raise ContentError(f"hyper_parameters.{name} is not ifmmin.data.{name}")
    task = data.get("task")
    if task is not None:
        _check_plain(_named(task, "ifmmin.data.task"), "ifmmin.data.task")
    try:
        task_of(task, classes)
    except (InputError, LookupError, TypeError, ValueError) as error:
        raise ContentError(f"ifmmin.data.task is no task ({printable(error)})") from error
    normalization = _list(data.get("normalization"), "ifmmin.data.normalization", len(MODALITIES))
    known = get_args(Normalization)
    for how in normalization:
        if how not in known:
            raise ContentError(f"ifmmin.data.normalization has {printable(how, 40)}; there are {', '.join(known)}")
    masking = _named(data.get("masking", {}), "ifmmin.data.masking")
    _check_plain(masking, "ifmmin.data.masking")
    extraction = data.get("extraction", {})
    _check_plain(_named(extraction, "ifmmin.data.extraction"), "ifmmin.data.extraction")
    for modality, made in extraction.items():
        if modality not in MODALITIES:
            raise ContentError(f"ifmmin.data.extraction has {printable(modality, 40)}, no modality")
        try:
            checked(made)
        except ValueError as error:
            why = printable(error, 100)
            raise ContentError(f"ifmmin.data.extraction.{modality} is not how features were made ({why})") from error
    _check_statistics(_named(data.get("statistics"), "ifmmin.data.statistics"), normalization, dims, size)


def _check_statistics(statistics: Mapping[str, Any], normalization: list[Any], dims: list[Any], size: int) -> None:
    if unknown := sorted(statistics.keys() - set(MODALITIES)):
        raise ContentError(f"ifmmin.data.statistics has {printable(unknown[0])}, no modality")
    for modality, how, dim in zip(MODALITIES, normalization, dims, strict=True):
        place = f"ifmmin.data.statistics.{modality}"
        if modality not in statistics:
            if how == "train":
                raise ContentError(f"{place} is missing, but {modality} is normalised by it")
            continue
        values = _named(statistics[modality], place)
        if values.keys() != {"mean", "std"}:
            raise ContentError(f"{place} is not mean and std")
        check_tensors(values, place, size)
        for name, value in values.items():
            if list(value.shape) != [dim] or not value.is_floating_point():
                raise ContentError(f"{place}.{name} is {value.dtype} {list(value.shape)}, not floats [{dim}]")
            if not _is_finite(value):
                raise ContentError(f"{place}.{name} is NaN or infinite")
        if not bool((values["std"] > 0).all()):
            raise ContentError(f"{place}.std is 0 or negative")


def check_tensors(tensors: Mapping[str, Any], what: str, size: int) -> None:
    """Refuse what is no plain tensor, and tensors that would take more memory than the file has bytes.

    Raises:
        ContentError: naming the tensor.
    """
    total = 0
    for name, value in tensors.items():
        shown = f"{what} {printable(name)}"
        if not isinstance(value, Tensor):
            raise ContentError(f"{shown} is {_kind(value)}, not a tensor")
        if value.layout != torch.strided or value.device.type != "cpu" or value.is_quantized:
            raise ContentError(f"{shown} is not a dense tensor of numbers")
        if value.is_floating_point() and value.dtype not in _FLOATS:
            raise ContentError(f"{shown} is {value.dtype}, which no model has")
        total += value.numel() * value.element_size()
        if total > _TIMES_SHARED * size:
            raise ContentError(f"{shown} {list(value.shape)} is larger than the file, {size} bytes")


def _is_finite(value: Tensor) -> bool:
    return bool(value.isfinite().all()) if value.is_floating_point() or value.is_complex() else True


def _check_plain(value: object, place: str) -> None:
    """Refuse what is not str, number, bool, None, or lists and dicts of them; bounded in depth and number."""
    seen, waiting = 0, [(value, place, 0)]
    while waiting:
        current, name, depth = waiting.pop()
        seen += 1
        if depth > _DEEPEST or seen > _MOST_VALUES:
            raise ContentError(f"{place} is nested too deep or too large")
        if isinstance(current, Mapping):
            for key, item in current.items():
                waiting.append((item, f"{name}.{_text(key, f'a name in {name}')}", depth + 1))
        elif isinstance(current, (list, tuple)):
            waiting += [(item, name, depth + 1) for item in current]
        elif isinstance(current, bool) or current is None:
            continue
        elif isinstance(current, str):
            if len(current) > 10_000 or "\0" in current:
                raise ContentError(f"{name} is {printable(current, 40)}, no text of an option")
        elif isinstance(current, int):
            if abs(current) >= 2**63:
                raise ContentError(f"{name} is a number out of range")
        elif not isinstance(current, float):
            raise ContentError(f"{name} is {_kind(current)}, no plain value")
        elif math.isnan(current):
            raise ContentError(f"{name} is NaN")


def _named(value: object, place: str) -> Mapping[str, Any]:
    if value is None:
        raise ContentError(f"{place} is missing")
    if not isinstance(value, Mapping):
        raise ContentError(f"{place} is {_kind(value)}, not values by name")
    for name in value:
        _text(name, f"a name in {place}")
    return value


def _list(value: object, place: str, length: int | None = None) -> list[Any]:
    if not isinstance(value, (list, tuple)):
        raise ContentError(f"{place} is {_kind(value)}, not a list")
    if length is not None and len(value) != length:
        raise ContentError(f"{place} has {len(value)} values, not {length}")
    return list(value)


def _text(value: object, place: str) -> str:
    if not isinstance(value, str):
        raise ContentError(f"{place} is {_kind(value)}, not text")
    if not value or len(value) > _LONGEST_NAME or has_control(value):
        raise ContentError(f"{place} is {printable(value, 40) or 'empty'}, no readable name")
    return value


def _whole(value: object, place: str, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value < 2**63:
        shown = printable(value, 40) if isinstance(value, (int, float)) else _kind(value)
        raise ContentError(f"{place} is {shown}, not a whole number from {least}")


def _kind(value: object) -> str:
    """What a value is, in a word or two."""
    words = {dict: "a dict", list: "a list", tuple: "a tuple", str: "text", int: "a number", float: "a number"}
    return "missing" if value is None else words.get(type(value), f"a {type(value).__name__}")
