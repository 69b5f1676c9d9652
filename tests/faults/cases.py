"""A case of a fault table, and how its outcome is judged."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ifmmin.cli.main import main

Make = Callable[[Path], Any]


@dataclass(frozen=True)
class Case:
    """One fault.

    Attributes:
        name: what is wrong, in a few words.
        make: makes the fault in an empty folder, or in a copy of what the table is about.
        expected: part of the one line that is printed; empty where the input is to be accepted.
        options: further words of the command line.
    """

    name: str
    make: Make
    expected: str
    options: tuple[str, ...] = ()


def table(cases: Iterable[Case]) -> list[Any]:
    """Parameters of a test, named by what is wrong; two cases of one name would hide each other."""
    cases = list(cases)
    names = [case.name for case in cases]
    assert len(names) == len(set(names)), sorted(name for name in names if names.count(name) > 1)
    return [pytest.param(case, id=case.name) for case in cases]


def words_table(cases: Iterable[tuple[str, str]]) -> list[Any]:
    """Parameters of a test from command lines (one string each) and the expected part of the line."""
    return [pytest.param(words, expected, id=words or "no words") for words, expected in cases]


def one_line(capsys: pytest.CaptureFixture[str], words: Iterable[str], codes: tuple[int, ...] = (1, 2)) -> str:
    """Run a command in this process; the one line on standard error, without ``error: ``.

    Notes are let through; a traceback, control characters, or no failure are not.
    """
    capsys.readouterr()
    code = main(list(words))
    shown = capsys.readouterr()
    assert code in codes, (code, shown.out[-2000:], shown.err[-2000:])
    return judged(shown.err)


def judged(err: str) -> str:
    """The one line of what a failed command wrote on standard error."""
    assert "Traceback" not in err, err[-3000:]
    lines = [line for line in err.strip().splitlines() if line and not line.startswith("note: ")]
    assert len(lines) == 1, err[-3000:]
    assert lines[0].startswith("error: "), lines[0]
    assert lines[0].isprintable(), lines[0]
    assert len(lines[0]) < 1200, len(lines[0])
    return lines[0].removeprefix("error: ")
