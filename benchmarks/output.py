"""What the measuring programs share: the options for a CSV and a picture, and writing both whole or not at all."""

from __future__ import annotations

import argparse
import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from datamodules.files import atomic_path


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--csv`` and ``--plot``."""
    parser.add_argument("--csv", type=Path, help="also write every measurement to this file")
    parser.add_argument("--plot", type=Path, help="also draw the table to this file (.png, .pdf, .svg)")


def write_rows(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write ``rows``, which have the same keys, as CSV."""
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def empty_picture(width: float, height: float) -> Figure:
    """A white figure of ``width`` x ``height`` inches."""
    # Not pyplot: it would choose a backend and keep every figure for the whole process.
    figure = Figure(figsize=(width, height), dpi=120, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def write_picture(figure: Figure, path: Path) -> None:
    """Write ``figure`` in the format that the name of ``path`` says."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary)
