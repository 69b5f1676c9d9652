"""Ranges are declared where an option is, and checked by one function."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest

from datamodules.errors import InputError
from datamodules.ranges import AT_LEAST_1, BELOW_ONE, NOT_EMPTY, POSITIVE, WIDTH, check_options


class Parent:
    def __init__(self, rate: Annotated[float, POSITIVE] = 1.0, width: Annotated[int, WIDTH] | None = None) -> None:
        pass


class Child(Parent):
    def __init__(
        self,
        dims: Annotated[list[int], AT_LEAST_1, NOT_EMPTY],
        drop: Annotated[float, BELOW_ONE],
        kind: Literal["first", "second"] = "first",
        named: dict[str, Any] | None = None,
        on: bool = False,
        other: object = None,
    ) -> None:
        pass


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("rate", 0, "rate 0: it must be above 0"),
        ("rate", float("nan"), "rate nan: it must be above 0"),
        ("rate", float("inf"), "rate inf: it must be above 0"),
        ("rate", "x", "rate 'x': it must be above 0"),
        ("width", 0, "width 0: it must be at least 1"),
        ("dims", [], r"dims \[\]: it must not be empty"),
        ("dims", [3, 0], r"dims \[3, 0\]: it must be at least 1"),
        ("dims", 3, "dims 3: it must be a list"),
        ("dims", [3, 0.5], r"dims \[3, 0.5\]: it must be at least 1"),
        ("width", 2.5, "width 2.5: it must be a whole number"),
        ("width", True, "width True: it must be at least 1"),
        ("width", 10**400, "width 1000.*: it must be at least 1 and at most 10000"),
        ("kind", "third", "kind 'third': choose one of first, second"),
        ("named", ["x"], r"named \['x'\]: it must be a mapping"),
        ("on", "yes", "on 'yes': it must be true or false"),
        ("drop", 1.0, "drop 1.0: it must be at least 0 and below 1"),
    ],
)
def test_a_value_outside_is_refused(option: str, value: object, expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        check_options(Child, {option: value})


def test_values_within_and_none_are_taken() -> None:
    check_options(Child, {"rate": 1e-9, "width": None, "dims": [1, 2], "drop": 0, "unknown": -1, "other": {1}})
