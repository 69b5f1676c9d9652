"""Options of an extractor or a face detector: the keywords of its class, with types and defaults."""

from __future__ import annotations

import difflib
import inspect
import math
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from datamodules.errors import InputError
from datamodules.text import printable

Plain = str | int | float | bool | None
"""What a value of an option may be."""

OF_THE_RUN = ("device", "batch", "download", "modality")
"""Keywords that :func:`~datamodules.extraction.extractors.registry.build` gives: how a value is computed, not which."""


@dataclass(frozen=True)
class Option:
    """One keyword of a class.

    Attributes:
        name: the keyword.
        hint: its type; ``Any`` where none is written.
        default: ``inspect.Parameter.empty`` where one has to be given.
    """

    name: str
    hint: Any
    default: Any

    def __str__(self) -> str:
        """``layers: str = -1:``, or ``model: str`` where it has to be given."""
        default = "" if self.default is inspect.Parameter.empty else f" = {self.default}"
        return f"{self.name}: {_hint_name(self.hint)}{default}"


@dataclass(frozen=True)
class Options:
    """The options of a class.

    Attributes:
        known: by name.
        of_the_run: which of :data:`OF_THE_RUN` it takes.
        any_other: whether it takes every keyword.
    """

    known: Mapping[str, Option]
    of_the_run: frozenset[str]
    any_other: bool

    def __str__(self) -> str:
        """All of them in one line."""
        return ", ".join(map(str, self.known.values())) or "none"

    def converted(self, given: Mapping[str, Any], who: str) -> dict[str, Plain]:
        """Convert values, of a command line or a file, to the types of their options.

        Args:
            given: by name; texts are read as what the option is.
            who: has these options, for the messages.

        Raises:
            InputError: an option is unknown, of another type, or missing. One line, with all options.
        """
        values: dict[str, Plain] = {}
        for name, value in given.items():
            option = self.known.get(name)
            if option is None and not self.any_other:
                raise InputError(f"{who} has no option {printable(name, 60)!r}.{near(name, self.known)} {self._all()}")
            hint = Any if option is None else option.hint
            try:
                values[name] = convert(value, hint)
            except ValueError:
                shown = repr(printable(value, 60))
                raise InputError(
                    f"{who}: option {name} must be {_hint_name(hint)}, not {shown}. {self._all()}"
                ) from None
        for name, option in self.known.items():
            if option.default is inspect.Parameter.empty and name not in values:
                raise InputError(f"{who} needs the option {name}. {self._all()}")
        return values

    def _all(self) -> str:
        return f"Its options: {self}."


def options_of(owner: type[Any]) -> Options:
    """Read the options of a class from its ``__init__``."""
    signature = inspect.signature(owner)
    try:
        hints = typing.get_type_hints(owner.__init__)
    except Exception:  # somebody else's annotations may name what only a type checker imports
        hints = {}
    keywords = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    taken = [parameter for parameter in signature.parameters.values() if parameter.kind in keywords]
    known = {
        parameter.name: Option(parameter.name, hints.get(parameter.name, Any), parameter.default)
        for parameter in taken
        if parameter.name not in OF_THE_RUN
    }
    of_the_run = frozenset(parameter.name for parameter in taken) & {*OF_THE_RUN}
    any_other = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in signature.parameters.values())
    return Options(known, of_the_run, any_other)


def convert(value: Any, hint: Any) -> Plain:
    """Convert ``value`` to the type ``hint``, reading a text as the command line gives it.

    Raises:
        ValueError: it is not of this type, or not plain.

    >>> convert("3", int), convert("0.5", float | None), convert("none", float | None), convert("-4:", str)
    (3, 0.5, None, '-4:')
    """
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError
    if not isinstance(value, Plain):
        raise ValueError
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return _one_of(value, typing.get_args(hint))
    if typing.get_origin(hint) is Literal:
        for choice in typing.get_args(hint):
            if value == choice or value == str(choice):
                return typing.cast(Plain, choice)
        raise ValueError
    if hint in (None, type(None)):
        if value is None or value in ("none", "null"):
            return None
        raise ValueError
    if hint is bool:
        return _truth(value)
    if hint in (int, float):
        return _number(value, hint)
    if hint in (str, Path) and not isinstance(value, str):
        raise ValueError
    return value


def near(given: str, known: Iterable[str]) -> str:
    """``" Did you mean …?"`` with the nearest known name, blank where none is near."""
    names = list(known)
    found = difflib.get_close_matches(given, names, n=1, cutoff=0.5)
    found = found or [name for name in names if name.lower() == given.lower()]
    return f" Did you mean {found[0]}?" if found else ""


def _one_of(value: Plain, hints: tuple[Any, ...]) -> Plain:
    """Convert to the first type that takes it, None before all others."""
    for hint in sorted(hints, key=lambda hint: hint is not type(None)):
        try:
            return convert(value, hint)
        except ValueError:
            continue
    raise ValueError


def _truth(value: Plain) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    raise ValueError


def _number(value: Plain, kind: type[int] | type[float]) -> int | float:
    if value is None or isinstance(value, bool) or (kind is int and isinstance(value, float)):
        raise ValueError
    number = kind(value)
    if not math.isfinite(number):
        raise ValueError
    return number


def _hint_name(hint: Any) -> str:
    """How a type is written, for a user: ``int``, ``float or none``, ``mean or sum``."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " or ".join(map(_hint_name, typing.get_args(hint)))
    if typing.get_origin(hint) is Literal:
        return " or ".join(map(str, typing.get_args(hint)))
    if hint is type(None):
        return "none"
    return {Any: "any", Path: "str"}.get(hint, getattr(hint, "__name__", str(hint)))
