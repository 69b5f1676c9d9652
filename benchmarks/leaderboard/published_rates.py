"""Published figures by missing rate, and under whatever other protocol; never two protocols in one table or axis."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.leaderboard.published import belongs, fraction, marks_of, read_lines
from datamodules.conditions import MISSING_CONDITIONS
from datamodules.errors import InputError

RATES_FILE = Path(__file__).with_name("published_rates.csv")
"""One line per corpus, model, metric, protocol, source, and rate or condition; ``marks`` as in the other file."""

COLUMNS = ("corpus", "model", "metric", "protocol", "rate_or_condition", "value", "marks", "source", "note")

PLAIN_METRICS = ("MAE", "Corr")
"""Metrics that are no percentages."""

_OF_A_ROW = ("corpus", "model", "metric", "protocol", "source")

PROTOCOLS: Mapping[str, str] = {
    "modality dropping, rate": "its rate is the share of modalities that are dropped; every utterance keeps one",
    "batches losing modalities, rate": "its rate is the share of batches that lose modalities, a whole batch the same",
}
"""Protocols with a curve over the rate, and what their rate is."""

IN_THEIRS: Mapping[str, str] = {"modality dropping, rate": "share"}
"""Our curve in the same protocol; another one's rate is another thing, and never on its axis."""

AREA_PROTOCOL = "frame dropping, area under the curve over rates"
"""Published areas below the curve ``frames``: the same rates and rule, of a model trained at each rate."""

_SCORES: Mapping[str, str] = {
    "ACC": "WA",
    "WA": "WA",
    "UA": "UA",
    "F1": "F1",
    "MAE": "MAE",
    "Corr": "Corr",
    "Acc-7": "Acc7",
    "Acc-5": "Acc5",
    "Acc-2 (negative/non-negative)": "Acc2_has0",
    "Acc-2 (negative/positive)": "Acc2_non0",
    "F1 (negative/non-negative)": "F1_has0",
    "F1 (negative/positive)": "F1_non0",
}
"""Our name of a published metric, where it is defined as ours; accuracy over classes is WA."""


@dataclass(frozen=True)
class Figures:
    """Values of one model from one source under one protocol.

    Attributes:
        model: as its source names it.
        metric: as published.
        protocol: as the file names it.
        printed: values as published, by rate or condition, in the order of the file.
        marks: of :data:`~benchmarks.leaderboard.published.MARKS`.
        source: where they are published.
        note: what else to know of them, or empty.
    """

    model: str
    metric: str
    protocol: str
    printed: dict[str, str]
    marks: tuple[str, ...]
    source: str
    note: str

    @property
    def is_curve(self) -> bool:
        """Whether the values are over missing rates."""
        return self.protocol in PROTOCOLS

    @property
    def is_area(self) -> bool:
        """Whether it is an area below a curve, one value."""
        return self.protocol == AREA_PROTOCOL and len(self.printed) == 1

    @property
    def score(self) -> str | None:
        """Our name of the metric, None where ours is defined otherwise."""
        return _SCORES.get(self.metric)

    def points(self) -> list[tuple[float, float]]:
        """Rates and values of a curve, a percentage in [0, 1], by rate."""
        return sorted((float(rate), self._plain(value)) for rate, value in self.printed.items())

    def area(self) -> float:
        """Value of an area, a percentage in [0, 1]."""
        (value,) = self.printed.values()
        return self._plain(value)

    def _plain(self, value: str) -> float:
        return float(value) / (1.0 if self.metric in PLAIN_METRICS else 100.0)

    @property
    def reference(self) -> str:
        """Marks, source and note in one line."""
        remarks = "; ".join(part for part in (*self.marks, self.note) if part)
        return f"{self.source} ({remarks})" if remarks else self.source


def read_figures(corpus: str, classes: int, path: str | Path = RATES_FILE) -> tuple[Figures, ...]:
    """Read the published figures on a corpus, in the order of the file.

    Args:
        corpus: see :func:`~benchmarks.leaderboard.published.read_published`.
        classes: the number of classes that are told apart.
        path: a file in the form of :data:`RATES_FILE`.

    Raises:
        InputError: the columns are others, or a line has no number, or one twice.
    """
    rows: dict[tuple[str, ...], list[dict[str, str]]] = {}
    for line, place in read_lines(Path(path), COLUMNS):
        at = line["rate_or_condition"]
        _check_number(line, place)
        if line["protocol"] in PROTOCOLS and not _is_rate(at):
            raise InputError(f"{place}: {at!r} is no rate in [0, 1].")
        row = rows.setdefault(tuple(line[name] for name in _OF_A_ROW), [])
        if any(other["rate_or_condition"] == at for other in row):
            raise InputError(f"{place}: {line['model']} has {at!r} twice.")
        row.append(line)
    return tuple(_figures(row) for row in rows.values() if belongs(row[0]["corpus"], corpus, classes))


def _figures(lines: list[dict[str, str]]) -> Figures:
    """Lines of one row; a source may remark on single values."""
    first = lines[0]
    return Figures(
        first["model"],
        first["metric"],
        first["protocol"],
        {line["rate_or_condition"]: line["value"] for line in lines},
        tuple(dict.fromkeys(mark for line in lines for mark in marks_of(line))),
        first["source"],
        "; ".join(dict.fromkeys(line["note"] for line in lines if line["note"])),
    )


def curves(figures: Collection[Figures], scores: Collection[str]) -> dict[str, dict[str, list[Figures]]]:
    """Curves by protocol and our score; each protocol is for an axis of its own.

    Args:
        figures: of one corpus.
        scores: of the board.
    """
    found: dict[str, dict[str, list[Figures]]] = {}
    for each in figures:
        if each.is_curve and each.score is not None and each.score in scores:
            found.setdefault(each.protocol, {}).setdefault(each.score, []).append(each)
    return found


def published_areas(figures: Collection[Figures], score: str) -> list[Figures]:
    """Areas below the curve of lost frames, in one of our scores."""
    return [each for each in figures if each.is_area and each.score == score]


def source_notes(group: Sequence[Figures]) -> dict[str, str]:
    """Marks and notes of curves by source, in the order of the sources; a mark of some models names them."""
    notes = {}
    for source in dict.fromkeys(figures.source for figures in group):
        own = [figures for figures in group if figures.source == source]
        remarks: list[str] = []
        for mark in dict.fromkeys(mark for figures in own for mark in figures.marks):
            marked = {figures.model: None for figures in own if mark in figures.marks}
            everybody = all(mark in figures.marks for figures in own)
            remarks.append(mark if everybody else f"{mark}: {', '.join(marked)}")
        remarks += dict.fromkeys(figures.note for figures in own if figures.note)
        notes[source] = "; ".join(remarks)
    return notes


def other_tables(figures: Collection[Figures], scores: Collection[str]) -> dict[tuple[str, str], list[Figures]]:
    """What is neither curve nor area of a board's score, by protocol and metric: each for a table of its own."""
    found: dict[tuple[str, str], list[Figures]] = {}
    for each in figures:
        if not ((each.is_curve or each.is_area) and each.score in scores):
            found.setdefault((each.protocol, each.metric), []).append(each)
    return found


def columns_of(table: Collection[Figures]) -> list[str]:
    """Rates or conditions that occur: conditions in our order, others as they come."""
    names = list(dict.fromkeys(name for figures in table for name in figures.printed))
    return sorted(names, key=lambda name: (*MISSING_CONDITIONS, name).index(name))


def _is_rate(text: str) -> bool:
    try:
        return 0 <= float(text) <= 1
    except ValueError:
        return False


def _check_number(line: Mapping[str, str], place: str) -> None:
    """Refuse a value that is no percentage, or of a mean absolute error or a correlation no number."""
    if line["metric"] not in PLAIN_METRICS:
        fraction(line["value"], place)
        return
    try:
        value = float(line["value"])
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{place}: {line['value']!r} is no number.")
