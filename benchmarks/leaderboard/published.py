"""Figures that others published, kept with their sources in ``published.csv``; never mixed with measured ones.

They come from other seeds, perhaps other features and folds: they have rows of their own, and only on the
corpus whose name they bear.

The public training loop of MMIN, from which those of IF-MMIN, CIF-MMIN and RedCore descend, selects the best epoch on
test: rows of these models have "selected on test" in their note.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from datamodules.conditions import MISSING_CONDITIONS
from datamodules.errors import InputError

Metric = Literal["WA", "UA", "F1"]
METRICS: tuple[Metric, ...] = get_args(Metric)

PUBLISHED = Path(__file__).with_name("published.csv")
"""The figures: one line per corpus, model, metric and source, in percent; an empty cell where nothing was published.

``avg`` is of the kind ``avg_kind``: ``mean`` of the six conditions, or ``pooled``, all six as one set.
"""

AVERAGES = ("mean", "pooled")
"""What ``avg_kind`` may be: rows of our tables."""

COLUMNS: tuple[str, ...] = ("corpus", "model", "metric", *MISSING_CONDITIONS, "avg", "avg_kind", "source", "note")


@dataclass(frozen=True)
class Published:
    """One published row.

    Attributes:
        model: as its authors name it.
        metric: which of the three the values are.
        values: in [0, 1] by the six missing conditions, ``"mean"`` and ``"pooled"``, None where nothing was published.
        difference: our mean minus theirs, in [-1, 1], by the rows that both have; None where the model
            was not measured.
        source: where the values are published.
        note: what to know of them, or empty.
    """

    model: str
    metric: Metric
    values: dict[str, float | None]
    difference: dict[str, float] | None
    source: str
    note: str


def read_published(corpus: str, path: str | Path = PUBLISHED) -> tuple[Published, ...]:
    """The published rows on a corpus, in the order of the file, without differences.

    Args:
        corpus: its name; case and punctuation do not matter (``MSPIMPROV`` is ``MSP-IMPROV``).
        path: a file in the form of :data:`PUBLISHED`.

    Raises:
        InputError: the columns are others, or a line lacks a value.
    """
    path = Path(path)
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise InputError(f"{path}: its columns must be {','.join(COLUMNS)}.")
        rows = [(line["corpus"], _row(line, f"{path}, line {reader.line_num}")) for line in reader]
    return tuple(row for name, row in rows if plain_name(name) == plain_name(corpus))


def _row(line: dict[str, str], place: str) -> Published:
    """One line of the file; ``place`` names it in errors."""
    if None in line or None in line.values():
        raise InputError(f"{place}: {len(COLUMNS)} cells are needed; quote a cell with a comma.")
    if not (line["corpus"] and line["model"] and line["source"]):
        raise InputError(f"{place}: give its corpus, model and source.")
    if line["metric"] not in METRICS:
        raise InputError(f"{place}: the metric {line['metric']!r} is none of {', '.join(METRICS)}.")
    kind = line["avg_kind"]
    if kind not in AVERAGES if line["avg"] else kind:
        raise InputError(f"{place}: avg_kind must be {' or '.join(AVERAGES)} where avg is given, and empty otherwise.")
    averages = {name: line["avg"] if name == kind else "" for name in AVERAGES}
    cells = {condition: line[condition] for condition in MISSING_CONDITIONS} | averages
    values = {name: _fraction(cell, place) for name, cell in cells.items()}
    return Published(line["model"], line["metric"], values, None, line["source"], line["note"])


def _fraction(cell: str, place: str) -> float | None:
    """Percent as a fraction, None for an empty cell."""
    if not cell:
        return None
    try:
        value = float(cell)
    except ValueError:
        value = float("nan")
    if not 0 <= value <= 100:
        raise InputError(f"{place}: {cell!r} is not a percentage.")
    return value / 100


def plain_name(name: str) -> str:
    """The letters and digits of a name, in lower case.

    >>> plain_name("MSP-IMPROV") == plain_name("MSPIMPROV")
    True
    """
    return "".join(letter for letter in name.casefold() if letter.isalnum())
