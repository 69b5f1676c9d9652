"""Ranges of options, declared where an option is: ``learning_rate: Annotated[float, POSITIVE] = 1e-4``."""

from __future__ import annotations

import math
import os
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from types import UnionType
from typing import Any

from datamodules.errors import InputError
from datamodules.text import printable


@dataclass(frozen=True)
class Range:
    """Numbers that an option takes; for a list, each of its numbers.

    Attributes:
        low: the smallest value, allowed itself unless ``above``.
        high: the largest value, allowed itself unless ``below``.
        above: the value must be above ``low``.
        below: the value must be below ``high``.

    >>> print(Range(0, 1, below=True))
    at least 0 and below 1
    """

    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    below: bool = False

    def holds(self, value: float) -> bool:
        """Whether ``value`` is finite and within."""
        low = value > self.low if self.above else value >= self.low
        high = value < self.high if self.below else value <= self.high
        # A whole number of any size is finite; math.isfinite would overflow.
        return (isinstance(value, int) or math.isfinite(value)) and low and high

    def __str__(self) -> str:
        """In words, after "it must be"."""
        words = []
        if self.low > -math.inf:
            words.append(f"{'above' if self.above else 'at least'} {self.low:g}")
        if self.high < math.inf:
            words.append(f"{'below' if self.below else 'at most'} {self.high:g}")
        return " and ".join(words) or "a finite number"


AT_LEAST_1 = Range(1)
"""Counts of what takes no memory by itself, and widths that the data give."""
WIDTH = Range(1, 10_000)
"""Widths of layers and lengths of sequences that an option sets; more would only run out of memory."""
COUNT = Range(1, 1_000)
"""Numbers of layers."""
NOT_NEGATIVE = Range(0)
POSITIVE = Range(0, above=True)
FRACTION = Range(0, 1)
BELOW_ONE = Range(0, 1, below=True)
"""Dropout rates, and Adam's betas."""
FINITE = Range()


class NotEmpty:
    """A list option that needs an element."""


NOT_EMPTY = NotEmpty()


def check_options(owner: type, given: Mapping[str, Any], prefix: str = "") -> None:
    """Refuse options of another type, or outside the ranges, than ``owner`` and the classes above it declare.

    Args:
        owner: a class whose ``__init__`` annotates its options, by ``Annotated[type, Range(...)]`` where they have a
            range. Of other types than numbers, text, lists, mappings, ``Literal`` and unions every value is taken.
        given: options by name; None and names that are not declared are let through.
        prefix: of the option's name in the message, such as ``"--model."``.

    Raises:
        InputError: naming the option, its value and what it must be.
    """
    for name, hint in declared_options(owner).items():
        value = given.get(name)
        if value is not None and (problem := _problem(value, hint)):
            raise InputError(f"{prefix}{name} {printable(repr(value), 60)}: {problem}.")


def declared_options(owner: type) -> dict[str, Any]:
    """Annotations by option, of a class and those above it; those that cannot be resolved are left out."""
    found: dict[str, Any] = {}
    for parent in owner.__mro__:
        init = vars(parent).get("__init__")
        if init is None:
            continue
        try:
            hints = typing.get_type_hints(init, include_extras=True)
        except (NameError, TypeError):  # a plug-in's own annotation that cannot be resolved here
            continue
        for name, hint in hints.items():
            found.setdefault(name, hint)
    return found


def _problem(value: Any, hint: Any) -> str | None:
    """What ``value`` must be to fit ``hint``, None if it fits."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        values = list(value) if isinstance(value, (list, tuple)) else [value]
        for marker in parts[1:]:
            if isinstance(marker, NotEmpty) and not values:
                return "it must not be empty"
            if isinstance(marker, Range) and not all(_is_number(each) and marker.holds(each) for each in values):
                return f"it must be {marker}"
        return _problem(value, parts[0])
    if origin in (typing.Union, UnionType):
        problems = [_problem(value, part) for part in parts if part is not type(None)]
        return None if None in problems else next(iter(problems), None)
    if origin is typing.Literal:
        return None if value in parts else f"choose one of {', '.join(map(str, parts))}"
    if origin in (list, Sequence):
        if not isinstance(value, (list, tuple)):
            return "it must be a list"
        return next(filter(None, (_problem(each, parts[0]) for each in value)), None)
    if origin in (dict, Mapping):
        return None if isinstance(value, Mapping) else "it must be a mapping of names to values"
    return None if _fits(value, hint) else f"it must be {_KINDS[hint]}"


_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def _fits(value: Any, kind: Any) -> bool:
    if kind is bool:
        return isinstance(value, bool)
    if kind is int:
        return _is_number(value) and isinstance(value, Integral)
    if kind is float:
        return _is_number(value)
    return kind is not str or isinstance(value, (str, os.PathLike))


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
