"""Ranges of options, declared where an option is: ``learning_rate: Annotated[float, POSITIVE] = 1e-4``."""

from __future__ import annotations

import math
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
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
        return math.isfinite(value) and low and high

    def __str__(self) -> str:
        """In words, after "it must be"."""
        words = []
        if self.low > -math.inf:
            words.append(f"{'above' if self.above else 'at least'} {self.low:g}")
        if self.high < math.inf:
            words.append(f"{'below' if self.below else 'at most'} {self.high:g}")
        return " and ".join(words) or "a finite number"


AT_LEAST_1 = Range(1)
"""Counts and widths."""
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
    """Refuse options that are outside the ranges with which ``owner`` and the classes above it declare them.

    Args:
        owner: a class whose ``__init__`` annotates options by ``Annotated[type, Range(...)]``.
        given: options by name; None and names without a range are let through.
        prefix: of the option's name in the message, such as ``"--model."``.

    Raises:
        InputError: naming the option, its value and its range.
    """
    for name, markers in declared_ranges(owner).items():
        value = given.get(name)
        if value is None:
            continue
        values = list(value) if isinstance(value, (list, tuple)) else [value]
        for marker in markers:
            if isinstance(marker, NotEmpty) and not values:
                raise InputError(f"{prefix}{name} {value}: it must not be empty.")
            if isinstance(marker, Range):
                for each in values:
                    if isinstance(each, bool) or not isinstance(each, Real) or not marker.holds(float(each)):
                        shown = printable(repr(value) if isinstance(value, (list, tuple)) else value, 60)
                        raise InputError(f"{prefix}{name} {shown}: it must be {marker}.")


def declared_ranges(owner: type) -> dict[str, list[Range | NotEmpty]]:
    """Ranges by option, of a class and those above it."""
    found: dict[str, list[Range | NotEmpty]] = {}
    for parent in owner.__mro__:
        init = vars(parent).get("__init__")
        if init is None:
            continue
        try:
            hints = typing.get_type_hints(init, include_extras=True)
        except (NameError, TypeError):  # a plug-in's own annotation that cannot be resolved here
            continue
        for name, hint in hints.items():
            markers = [*_markers(hint)]
            if markers:
                found.setdefault(name, markers)
    return found


def _markers(hint: Any) -> list[Range | NotEmpty]:
    """Ranges in an annotation, also within ``X | None``."""
    own = [marker for marker in getattr(hint, "__metadata__", ()) if isinstance(marker, (Range, NotEmpty))]
    inner = [marker for part in typing.get_args(hint) for marker in _markers(part)] if not own else []
    return own + inner
