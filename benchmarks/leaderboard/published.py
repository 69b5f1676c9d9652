"""Six-condition rows that others published, kept with their sources; never mixed with measured ones.

They come from other seeds, perhaps other features and folds: they have rows of their own, and only on boards of the
corpus and classes whose name they bear. Curves over the missing rate are in :mod:`.published_rates`.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from datamodules.conditions import MISSING_CONDITIONS
from datamodules.errors import InputError

Metric = Literal["WA", "UA", "F1"]
METRICS: tuple[Metric, ...] = get_args(Metric)

PUBLISHED = Path(__file__).with_name("published_conditions.csv")
"""The figures: one line per corpus, model, metric and source, in percent; an empty cell where nothing was published.

``avg`` is of the kind ``avg_kind``: ``mean`` of the six conditions, or ``pooled``, all six as one set. ``marks`` are
some of :data:`MARKS`, separated by ``"; "``.
"""

AVERAGES = ("mean", "pooled")
"""What ``avg_kind`` may be: rows of our tables."""

COLUMNS: tuple[str, ...] = (
    *("corpus", "model", "metric", *MISSING_CONDITIONS),
    *("avg", "avg_kind", "marks", "source", "note"),
)

MARKS: Mapping[str, str] = {
    "selected on test": "the model's public code chooses the epoch by test scores",
    "scored on validation": "its public code reports scores of the split that chose the epoch",
    "one model per condition": "each condition has a model of its own, trained for it alone",
    "other features": "not the features of the public packs",
    "contradicts its source": "the reprint differs from the figures it reprints",
}
"""What parts a published row from ours, and what it means."""

_INCOMPARABLE = {"one model per condition", "other features", "contradicts its source"}


_FOUR = ({"angry"}, {"happy", "excited"}, {"neutral"}, {"sad"})
_SIX = ({"angry"}, {"happy"}, {"neutral"}, {"sad"}, {"excited"}, {"frustrated"})

CLASSES: Mapping[str, Mapping[tuple[str, ...], Sequence[set[str]]]] = {
    "iemocap": {
        ("angry", "happy", "neutral", "sad"): _FOUR,
        ("angry", "excited", "frustrated", "happy", "neutral", "sad"): _SIX,
    },
}
"""Classes that were published, by corpus and their sorted names: of each, the classes of the recordings in it."""


@dataclass(frozen=True)
class Published:
    """One published row.

    Attributes:
        model: as its authors name it.
        metric: which of the three the values are.
        values: in [0, 1] by the six missing conditions, ``"mean"`` and ``"pooled"``, None where nothing was published.
        difference: our mean minus theirs, in [-1, 1], by the rows that both have; None where the model
            was not measured, or a mark says that the two do not compare.
        marks: of :data:`MARKS`.
        source: where the values are published.
        note: what else to know of them, or empty.
    """

    model: str
    metric: Metric
    values: dict[str, float | None]
    difference: dict[str, float] | None
    marks: tuple[str, ...]
    source: str
    note: str


def read_published(corpus: str, classes: int, path: str | Path = PUBLISHED) -> tuple[Published, ...]:
    """Read the published rows on a corpus, in the order of the file, without differences.

    Args:
        corpus: its name; case and punctuation do not matter (``MSPIMPROV`` is ``MSP-IMPROV``).
        classes: the number of classes that are told apart.
        path: a file in the form of :data:`PUBLISHED`.

    Raises:
        InputError: the columns are others, or a line lacks a value.
    """
    rows = [(line["corpus"], _row(line, place)) for line, place in read_lines(Path(path), COLUMNS)]
    return tuple(row for label, row in rows if belongs(label, corpus, classes))


def published_beside(
    corpus: str, classes: int, measured: Mapping[str, Mapping[str, Mapping[str, float | None]]]
) -> tuple[Published, ...]:
    """Read the published rows on a corpus, with our difference where the same model was measured.

    Args:
        corpus: see :func:`read_published`.
        classes: likewise.
        measured: our means by model, metric and row.
    """
    known = {plain_name(model): means for model, means in measured.items()}  # CIFMMIN is published as CIF-MMIN
    rows = []
    for row in read_published(corpus, classes):
        model = plain_name(row.model)
        if model in known and not _INCOMPARABLE & {*row.marks}:
            ours = known[model][row.metric]
            difference = {
                name: mine - theirs
                for name, theirs in row.values.items()
                if theirs is not None and (mine := ours.get(name)) is not None
            }
            row = replace(row, difference=difference)
        rows.append(row)
    return tuple(rows)


def published_classes(corpus: str, names: Sequence[str], made_of: Mapping[str, Sequence[str]] | None = None) -> int:
    """Number of classes of the published figures that tell the same classes apart; -1 if none do.

    Args:
        corpus: see :func:`read_published`.
        names: of the classes; none of a regression, whose figures have no number of classes.
        made_of: the classes of the label files in each, where some were merged, renamed or left out.

    >>> published_classes("IEMOCAP", ["angry", "happy", "neutral", "sad"])
    4
    >>> six = {"angry": ["angry"], "happy": ["happy"], "neutral": ["neutral"], "sad": ["sad"]}
    >>> published_classes("IEMOCAP", list(six), six), published_classes("IEMOCAP", ["angry", "sad"])
    (-1, -1)
    """
    known = CLASSES.get(plain_name(corpus))
    if known is None or not names:
        return len(names) if made_of is None else -1
    if made_of is None:
        return len(names) if tuple(sorted(name.casefold() for name in names)) in known else -1
    ours = {frozenset(part.casefold() for part in parts) for parts in made_of.values()}
    return len(names) if any(ours == set(map(frozenset, theirs)) for theirs in known.values()) else -1


def read_lines(path: Path, columns: Sequence[str]) -> list[tuple[dict[str, str], str]]:
    """Read the lines of a published file, each with its place, which errors name.

    Raises:
        InputError: the columns are others, a line has another number of cells, or lacks its corpus, model or source,
            or has a mark that is none.
    """
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != tuple(columns):
            raise InputError(f"{path}: its columns must be {','.join(columns)}.")
        lines = [(line, f"{path}, line {reader.line_num}") for line in reader]
    for line, place in lines:
        if None in line or None in line.values():
            raise InputError(f"{place}: {len(columns)} cells are needed; quote a cell with a comma.")
        if not (line["corpus"] and line["model"] and line["source"]):
            raise InputError(f"{place}: give its corpus, model and source.")
        if wrong := [mark for mark in marks_of(line) if mark not in MARKS]:
            raise InputError(f"{place}: the mark {wrong[0]!r} is none of {', '.join(MARKS)}.")
    return lines


def marks_of(line: Mapping[str, str]) -> tuple[str, ...]:
    """Marks of a line."""
    return tuple(line["marks"].split("; ")) if line["marks"] else ()


def belongs(label: str, corpus: str, classes: int) -> bool:
    """Whether a published corpus, with its number of classes if it has some, is this one.

    >>> belongs("MSP-IMPROV (4 classes)", "MSPIMPROV", 4), belongs("IEMOCAP (6 classes)", "IEMOCAP", 4)
    (True, False)
    """
    found = re.fullmatch(r"(.*?)(?: \((\d+) classes\))?", label)
    assert found is not None
    return plain_name(found[1]) == plain_name(corpus) and int(found[2] or classes) == classes


def _row(line: dict[str, str], place: str) -> Published:
    """One line of the file; ``place`` names it in errors."""
    metric = next((each for each in METRICS if each == line["metric"]), None)
    if metric is None:
        raise InputError(f"{place}: the metric {line['metric']!r} is none of {', '.join(METRICS)}.")
    kind = line["avg_kind"]
    if kind not in AVERAGES if line["avg"] else kind:
        raise InputError(f"{place}: avg_kind must be {' or '.join(AVERAGES)} where avg is given, and empty otherwise.")
    averages = {name: line["avg"] if name == kind else "" for name in AVERAGES}
    cells = {condition: line[condition] for condition in MISSING_CONDITIONS} | averages
    values = {name: fraction(cell, place) if cell else None for name, cell in cells.items()}
    return Published(line["model"], metric, values, None, marks_of(line), line["source"], line["note"])


def fraction(cell: str, place: str) -> float:
    """Percent as a fraction.

    Raises:
        InputError: it is no percentage.
    """
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
