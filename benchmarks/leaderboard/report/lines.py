"""The rows of a metric's table as text, in percent: the same for terminal, Markdown and LaTeX."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from benchmarks.leaderboard.summary import Entry, Metric, Published, Summary
from ifmmin.results.results import readable
from ifmmin.tasks import SUMMARY_ROWS

DASH = "–"
"""Stands where there is no value."""


@dataclass(frozen=True)
class Value:
    """What stands in one cell: a mean, perhaps its standard deviation, and 1 or 2 for the best and the second."""

    mean: str
    std: str = ""
    place: Literal[0, 1, 2] = 0


@dataclass(frozen=True)
class Line:
    """One row of a table.

    Attributes:
        block: the rows of a block stand together, with a rule between blocks.
        rank: in the mean of six, or empty.
        model: its name, and what kind of row it is where the model was not measured here.
        values: by :data:`~ifmmin.tasks.base.SUMMARY_ROWS`.
        rest: the other columns, see :func:`headings`.
    """

    block: Literal["measured", "limit", "published"]
    rank: str
    model: str
    values: tuple[Value, ...]
    rest: tuple[str, ...]


def headings(summary: Summary, metric: Metric) -> list[str]:
    """The heads of all columns, in the order of a line's fields."""
    gap = ["gap"] * _has_gap(summary, metric)
    return ["rank", "model", *map(readable, SUMMARY_ROWS), "n", "difference", "p (Holm)", *gap]


def lines(summary: Summary, metric: Metric) -> list[Line]:
    """Measured models, best first; then the Bayes limit (WA); then published rows, each with our difference."""
    with_gap = _has_gap(summary, metric)
    blank = ("",) * (3 + with_gap)
    rows = [_measured(summary, entry, metric) for entry in sorted(summary.entries, key=lambda e: _order(e, metric))]
    if with_gap and summary.bayes is not None:
        limit = tuple(Value(percent(summary.bayes[row])) for row in SUMMARY_ROWS)
        rows.append(Line("limit", "", "Bayes limit", limit, blank))
    for number, row in enumerate(published_in(summary, metric), start=1):
        theirs = tuple(Value(percent(row.values.get(name))) for name in SUMMARY_ROWS)
        rows.append(Line("published", "", f"{row.model}, published [{number}]", theirs, blank))
        if row.difference is not None:
            ours = tuple(Value(points(row.difference.get(name))) for name in SUMMARY_ROWS)
            rows.append(Line("published", "", f"ours minus [{number}]", ours, blank))
    return rows


def heading(metric: Metric) -> str:
    """What the numbers of a table are."""
    return f"{metric} in %: mean ± sample standard deviation over n runs"


def notes(summary: Summary) -> list[str]:
    """What must be said below every table, a sentence or two each."""
    texts = [f"Rank: by the mean of six. {summary.test_note()}"]
    if not all(entry.complete for entry in summary.entries):
        texts.append(
            f"Where n is x of {summary.runs_per_model}, runs are missing: the values are over those there are."
        )
    return texts


def metric_notes(summary: Summary, metric: Metric) -> list[str]:
    """What must be said below the table of one metric: its Bayes limit, and where its published rows come from."""
    texts = []
    if _has_gap(summary, metric):
        texts.append(
            "Bayes limit: the Bayes rule on the same utterances, mean over folds; gap: to it in the mean of six."
        )
    published = published_in(summary, metric)
    if published:
        texts.append("Published rows are not our runs: other seeds, perhaps other features and folds.")
    for number, row in enumerate(published, start=1):
        texts.append(f"[{number}] {row.source}" + f" ({row.note})" * bool(row.note))
    return texts


def published_in(summary: Summary, metric: Metric) -> list[Published]:
    """The published rows of a metric."""
    return [row for row in summary.published if row.metric == metric]


def runs(summary: Summary, entry: Entry) -> str:
    """The number of runs, and of how many where some are missing."""
    return str(entry.n) if entry.complete else f"{entry.n} of {summary.runs_per_model}"


def percent(value: float | None) -> str:
    """Two decimals, or a dash where there is no value.

    Example:
        >>> percent(0.64678), percent(-0.00001), percent(None)
        ('64.68', '0.00', '–')
    """
    return DASH if value is None else f"{100 * value:.2f}".replace("-0.00", "0.00")


def points(value: float | None) -> str:
    """A difference in percentage points, with its sign.

    Example:
        >>> points(0.0123), points(-0.0123), points(0.0), points(None)
        ('+1.23', '-1.23', '0.00', '–')
    """
    text = percent(value)
    return text if text in (DASH, "0.00") or text.startswith("-") else f"+{text}"


def probability(value: float) -> str:
    """A p value, four decimals.

    Example:
        >>> probability(0.0625), probability(0.00001)
        ('0.0625', '<0.0001')
    """
    return f"{value:.4f}" if value >= 0.0001 else "<0.0001"


def _has_gap(summary: Summary, metric: Metric) -> bool:
    """Whether the limit of this metric is known."""
    return metric == "WA" and summary.bayes is not None


def _order(entry: Entry, metric: Metric) -> tuple[bool, int, str]:
    """Best first, unranked last."""
    rank = entry.rank[metric]
    return rank is None, rank or 0, entry.model


def _measured(summary: Summary, entry: Entry, metric: Metric) -> Line:
    """The row of a measured model."""
    test, rank = entry.test[metric], entry.rank[metric]
    values = []
    for row in SUMMARY_ROWS:
        cell = entry.cells[metric][row]
        best, second = summary.leaders(metric, row)
        place: Literal[0, 1, 2] = 1 if entry.model in best else 2 if entry.model in second else 0
        values.append(
            Value(percent(cell.mean), "" if cell.std is None else percent(cell.std), place) if cell else Value(DASH)
        )
    compared = ["reference", ""] if entry.model == summary.reference else [DASH, DASH]
    if test:
        compared = [points(test.difference), probability(test.p_holm)]
    gap = [percent(entry.gap["mean"])] * _has_gap(summary, metric)
    return Line("measured", str(rank or DASH), entry.model, tuple(values), (runs(summary, entry), *compared, *gap))
