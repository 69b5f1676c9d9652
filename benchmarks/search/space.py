"""What is searched: options with a range or choices, read from YAML and checked against the model."""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import numpy as np

from benchmarks.leaderboard.plan import Option
from datamodules.base import EmotionDataModule
from datamodules.errors import InputError
from datamodules.ranges import check_options, declared_options
from datamodules.text import printable
from ifmmin.base import MissingModalityModule
from ifmmin.checkpoints.compatibility import FOLLOWS_THE_DATA
from ifmmin.cli import configurations
from ifmmin.pretraining.stage2 import Stage2Module

SPACES = Path(__file__).parent / "spaces"
GENERAL = SPACES / "general.yaml"
"""The space of models that have none of their own; what a model lacks of it is left out."""

OF_DATA = (
    "batch_size",
    "train_mask",
    "permanent_mask",
    "audio_normalization",
    "visual_normalization",
    "text_normalization",
)
"""Options of the data that change training alone: under any other, validation scores would not compare."""

_STAGE1 = "pretraining."
_KEYS = ("low", "high", "log", "step", "choices")
_FORM = "write {low: 1e-4, high: 1e-2, log: true}, {low: 0.1, high: 0.9, step: 0.1} or {choices: [16, 32]}"
_ALMOST = 1e-9  # of a step: 0.9 is not eight times 0.1 above 0.1, to the last bit


@dataclass(frozen=True)
class Parameter:
    """One option that is searched.

    Attributes:
        name: as on the command line, without dashes: ``model.dropout``.
        low: the least value; None with ``choices``.
        high: the greatest.
        log: whether it is drawn on a logarithmic scale.
        step: between two values; None: any.
        whole: whether values are whole numbers.
        choices: the values, otherwise; empty with a range.
    """

    name: str
    low: float | None = None
    high: float | None = None
    log: bool = False
    step: float | None = None
    whole: bool = False
    choices: tuple[Any, ...] = ()

    @property
    def labels(self) -> list[Any]:
        """Choices as Optuna takes them: numbers, text and truth values as they are, lists as JSON."""
        return [json.dumps(each) if isinstance(each, (list, dict)) else each for each in self.choices]

    def suggest(self, trial: Any) -> Any:
        """Value of an Optuna trial; a choice by its label."""
        if self.choices:
            return trial.suggest_categorical(self.name, self.labels)
        kind = trial.suggest_int if self.whole else trial.suggest_float
        step = self.step or (1 if self.whole else None)
        return kind(self.name, self.low, self.high, step=step, log=self.log)

    def ends(self) -> tuple[Any, Any]:
        """The least and the greatest value, or the first and the last choice."""
        return (self.labels[0], self.labels[-1]) if self.choices else (self.low, self.high)

    def plain(self) -> dict[str, Any]:
        """What a file would hold of it, for records."""
        if self.choices:
            return {"choices": list(self.choices)}
        step = {} if self.step is None else {"step": self.step}
        return {"low": self.low, "high": self.high, "log": self.log, **step}


@dataclass(frozen=True)
class Space:
    """All that is searched.

    Attributes:
        source: file it was read from.
        parameters: at least one.
    """

    source: Path
    parameters: tuple[Parameter, ...]

    def plain(self) -> dict[str, Any]:
        """Plain values, for records."""
        return {parameter.name: parameter.plain() for parameter in self.parameters}

    def ends(self) -> Iterator[dict[str, Any]]:
        """All parameters at their least value, and all at their greatest."""
        for end in (0, 1):
            yield {parameter.name: parameter.ends()[end] for parameter in self.parameters}


def options_of(values: Mapping[str, Any]) -> tuple[Option, ...]:
    """Words of the command line that set these values.

    >>> options_of({"model.dropout": 0.5, "model.learning_rate": 1e-05, "model.hidden_dims": "[64, 64]"})
    (('--model.dropout', '0.5'), ('--model.learning_rate', '1e-05'), ('--model.hidden_dims', '[64, 64]'))
    """
    return tuple((f"--{name}", _word(value)) for name, value in values.items())


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value < 0:  # argparse takes -1e-05 for an option
        return np.format_float_positional(value, trim="-")
    return "null" if value is None else str(value)


def shipped_space(model: str) -> Path:
    """The space that comes with the program: the model's own, or the general one."""
    own = SPACES / f"{model}.yaml"
    return own if own.is_file() else GENERAL


def read_space(
    path: Path, model: type[MissingModalityModule], corpus: type[EmotionDataModule], fixed: Sequence[str] = ()
) -> Space:
    """Read a space and check every value in it against the options of model and corpus.

    Args:
        path: of the YAML file.
        model: whose options are searched.
        corpus: likewise.
        fixed: options that the command line sets, such as ``--model.dropout``.

    Raises:
        InputError: the file is damaged or empty, an option is unknown or given twice, or a value is one that it does
            not take.
    """
    written = configurations.read(str(path))
    shown = printable(path)
    known = _known(model, corpus)
    parameters = []
    for name, value in written.items():
        if not isinstance(name, str):
            raise InputError(f"{shown}: {printable(name)} is no name of an option.")
        if name not in known and path == GENERAL:
            continue
        if name not in known:
            raise InputError(f"{shown}: {_unknown(name, known, model)}")
        if f"--{name}" in fixed:
            if path == GENERAL:
                continue
            raise InputError(f"{shown}: {name} is searched, and --{name} fixes it; give one of them.")
        try:
            parameters.append(_parameter(name, value, *known[name]))
        except InputError as error:
            raise InputError(f"{shown}: {error}") from None
    if not parameters:
        raise InputError(f"{shown}: names no option to search; {_FORM} of an option, such as model.learning_rate.")
    return Space(path, tuple(parameters))


_Owner = tuple[type, str, Any]
"""Class, name and annotation of an option."""


def _known(model: type[MissingModalityModule], corpus: type[EmotionDataModule]) -> dict[str, _Owner]:
    """All options that can be searched, by their name on the command line."""
    not_ours = {*FOLLOWS_THE_DATA, "pretrained", "pretraining", "args", "kwargs", "return", "self"}
    found: dict[str, _Owner] = {}
    stages: list[tuple[str, type]] = [("model.", model)]
    if issubclass(model, Stage2Module) and hasattr(model, "stage1"):
        stages.append((f"model.{_STAGE1}", model.stage1))
    for prefix, owner in stages:
        for name, hint in declared_options(owner).items():
            if name not in not_ours:
                found[prefix + name] = (owner, name, hint)
    of_data = declared_options(corpus)
    return found | {f"data.{name}": (corpus, name, of_data[name]) for name in OF_DATA if name in of_data}


def _unknown(name: str, known: Mapping[str, _Owner], model: type) -> str:
    """Why a name cannot be searched, with the nearest that can."""
    shown = printable(name, 80)
    if name.startswith("--"):
        return f"{shown}: write {printable(name.lstrip('-'), 80)}, without dashes."
    if name in ("model", "data", "trainer"):
        return f"{shown}: name each option in full, such as model.learning_rate."
    if name.startswith("trainer."):
        return f"{shown}: the trainer is the same in all trials; give --{shown} on the command line."
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5) or [
        each for each in known if each.rpartition(".")[2] == name
    ]
    hint = f" Did you mean {near[0]}?" if near else ""
    if name.startswith("data."):
        return f"{shown} cannot be searched.{hint} Of the data there are: {', '.join(OF_DATA)}."
    return f"{shown} is no option of {model.__name__}.{hint} See: fit --model.help {model.__name__}."


def _parameter(name: str, value: Any, owner: type, option: str, hint: Any) -> Parameter:
    """Check what a file says of one option.

    Raises:
        InputError: it is no range and no choice, or holds a value that the option does not take.
    """
    if not isinstance(value, dict):
        shown = "nothing" if value is None else printable(json.dumps(value, default=str), 40)
        raise InputError(f"{name} is {shown}; {_FORM}, or give a fixed value on the command line.")
    if unknown := [key for key in value if key not in _KEYS]:
        near = difflib.get_close_matches(str(unknown[0]), _KEYS, n=1)
        known = f" Did you mean {near[0]}?" if near else f" There are: {', '.join(_KEYS)}."
        raise InputError(f"{name}: {printable(unknown[0], 40)} is not known.{known}")
    found = _choices(name, value) if "choices" in value else _range(name, value, hint)
    for each in found.choices or (found.low, found.high):
        check_options(owner, {option: each}, name.removesuffix(option))
    return found


def _choices(name: str, value: Mapping[str, Any]) -> Parameter:
    choices = value["choices"]
    if len(value) > 1:
        raise InputError(f"{name}: has choices and {next(key for key in value if key != 'choices')}; give one of them.")
    if not isinstance(choices, list) or len(choices) < 2:
        raise InputError(f"{name}: choices are a list of at least two values.")
    found = Parameter(name, choices=tuple(map(_plain, choices)))
    if len({json.dumps(each) for each in found.choices}) < len(choices):
        raise InputError(f"{name}: choices hold one value twice.")
    if any(each is None for each in found.choices):
        raise InputError(f"{name}: choices hold nothing (null); give values.")
    return found


def _range(name: str, value: Mapping[str, Any], hint: Any) -> Parameter:
    if lacking := [key for key in ("low", "high") if value.get(key) is None]:
        raise InputError(f"{name}: {lacking[0]} is missing; {_FORM}.")
    kinds = _kinds(hint)
    if not {int, float} & kinds:
        raise InputError(f"{name}: takes no numbers, so it has no range; give choices.")
    whole, log = float not in kinds, value.get("log", False)
    if not isinstance(log, bool):
        raise InputError(f"{name}: log is {printable(log, 40)}; it must be true or false.")
    numbers = {
        key: _number(name, key, value[key], whole) for key in ("low", "high", "step") if value.get(key) is not None
    }
    low, high, step = numbers["low"], numbers["high"], numbers.get("step")
    if not low < high:
        raise InputError(f"{name}: low {low:g} is not below high {high:g}.")
    if log and step is not None:
        raise InputError(f"{name}: has log and step; give one of them, or choices.")
    if log and low <= 0:
        raise InputError(f"{name}: low is {low:g}; on a logarithmic scale it must be above 0.")
    if step is not None:
        count = (high - low) / step if step > 0 else 0.0
        if count < 1 or abs(count - round(count)) > _ALMOST * count:
            raise InputError(f"{name}: no steps of {step:g} lead from {low:g} to {high:g}.")
    return Parameter(name, low, high, log, step, whole)


def _number(name: str, key: str, value: Any, whole: bool) -> float:
    value = _plain(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise InputError(f"{name}: {key} is {printable(value, 40)}; it must be a number.")
    if whole and value != int(value):
        raise InputError(f"{name}: {key} is {value:g}; the option takes whole numbers.")
    return int(value) if whole else float(value)


def _plain(value: Any) -> Any:
    """A value of a YAML file; 1e-3 is a number, which YAML 1.1 takes for text for want of a dot."""
    if isinstance(value, str) and re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)[eE][+-]?\d+", value):
        return float(value)
    return value


def _kinds(hint: Any) -> set[Any]:
    """The plain types in an annotation."""
    origin = get_origin(hint)
    if origin is Annotated:
        return _kinds(get_args(hint)[0])
    if origin in (Union, UnionType):
        return {kind for part in get_args(hint) for kind in _kinds(part)}
    return {hint} if origin is None else {origin}
