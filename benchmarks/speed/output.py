"""What the measuring programs share: checked options, and a CSV and a picture, each written whole or not at all."""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from datamodules.files import atomic_path
from ifmmin.cli.failures import reported

FEWEST_UTTERANCES = 10
"""Of a random corpus, so that each of its splits has one."""


def at_least(least: int) -> Callable[[str], int]:
    """What ``argparse`` reads an integer with that may not be below ``least``."""

    def read(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if number < least:
            raise argparse.ArgumentTypeError(f"{text}: give a whole number of at least {least}.")
        return number

    return read


def in_one_line(program: Callable[[], None]) -> int:
    """Run a program whose errors are one line each; its exit code."""

    def command() -> int:
        program()
        return 0

    return reported(command)


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--csv`` and ``--plot``."""
    parser.add_argument("--csv", type=Path, help="also write every measurement to this file")
    parser.add_argument("--plot", type=Path, help="also draw the table to this file (.png, .pdf, .svg)")


def write_rows(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write ``rows``, which have the same keys, as CSV."""
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def write_picture(figure: Figure, path: Path) -> None:
    """Write ``figure`` in the format of the suffix of ``path``."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary)
