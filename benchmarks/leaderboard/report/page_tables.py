"""The result tables of the HTML page, cell by cell: what is shown and what it is sorted by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.leaderboard.report.lines import DASH, metric_notes, percent, points, probability, published_in, runs
from benchmarks.leaderboard.summary import METRICS, Cell, Entry, Metric, Published, Summary
from ifmmin.results.results import readable
from ifmmin.tasks import SUMMARY_ROWS


@dataclass(frozen=True)
class Column:
    """A head.

    Attributes:
        label: what it says.
        kind: ``number`` or ``text``, how it is sorted.
        first: ``ascending`` or ``descending``, the direction of the first click.
    """

    label: str
    kind: str = "number"
    first: str = "ascending"


@dataclass(frozen=True)
class Value:
    """A cell.

    Attributes:
        text: what is shown.
        value: what it is sorted by, in the unit of the summary; "" comes last.
        note: smaller, behind the text.
        mark: its class: ``best``, ``second``, ``runs`` or none.
        tag: ``th`` for the cell that heads the row, else ``td``.
    """

    text: str
    value: float | str = ""
    note: str = ""
    mark: str = ""
    tag: str = "td"


@dataclass(frozen=True)
class Row:
    """A row; ``model`` is what the filters go by."""

    model: str
    cells: tuple[Value, ...]


@dataclass(frozen=True)
class Body:
    """Rows of one ``kind``, ``measured``, ``limit`` or ``published``, which are sorted and filtered apart."""

    kind: str
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class ResultTable:
    """What is shown while ``metric`` is chosen."""

    metric: Metric
    caption: str
    columns: tuple[Column, ...]
    bodies: tuple[Body, ...]
    notes: list[str]


def result_tables(summary: Summary) -> list[ResultTable]:
    """One table per metric, the one that the corpus selects by first."""
    return [_table(summary, metric) for metric in sorted(METRICS, key=lambda metric: metric != summary.monitor)]


def _table(summary: Summary, metric: Metric) -> ResultTable:
    with_limit = metric == "WA" and summary.bayes is not None
    # In the same order for all metrics, the gap last: the chosen order is kept when the metric is switched.
    columns = (
        Column("rank"),
        Column("model", kind="text"),
        *(Column(readable(row), first="descending") for row in SUMMARY_ROWS),
        Column("n", first="descending"),
        Column("difference", first="descending"),
        Column("p (Holm)"),
        Column("parameters"),
        Column("wall time"),
        *[Column("gap")] * with_limit,
    )
    blank = (Value(""),) * (len(columns) - len(SUMMARY_ROWS) - 2)
    leaders = {row: summary.leaders(metric, row) for row in SUMMARY_ROWS}
    ranked = sorted(summary.entries, key=lambda entry: entry.rank[metric] or len(summary.entries) + 1)
    bodies = [Body("measured", tuple(_measured(summary, metric, entry, leaders, with_limit) for entry in ranked))]
    if summary.bayes is not None and with_limit:
        limits = (_percent(summary.bayes[row]) for row in SUMMARY_ROWS)
        bodies.append(Body("limit", (Row("", (Value(""), _name("Bayes limit"), *limits, *blank)),)))
    published = tuple(
        Row(row.model, (Value(""), _name(row.model, f"published [{number}]"), *_published(row), *blank))
        for number, row in enumerate(published_in(summary, metric), start=1)
    )
    if published:
        bodies.append(Body("published", published))
    notes = metric_notes(summary, metric)
    if any(row.difference for row in published_in(summary, metric)):
        notes.append("In brackets below a published value: our mean minus it, in points.")
    against = f"; difference and p against {summary.reference}" if any(entry.test[metric] for entry in ranked) else ""
    caption = f"{metric} in %, mean ± standard deviation over n runs{against}"
    return ResultTable(metric, caption, columns, tuple(bodies), notes)


def _measured(
    summary: Summary,
    metric: Metric,
    entry: Entry,
    leaders: Mapping[str, tuple[frozenset[str], frozenset[str]]],
    with_gap: bool,
) -> Row:
    """The row of a measured model."""
    rank, test = entry.rank[metric], entry.test[metric]
    marks = {
        row: "best" if entry.model in best else "second" if entry.model in second else ""
        for row, (best, second) in leaders.items()
    }
    compared = [Value("reference" if entry.model == summary.reference else DASH), Value(DASH)]
    if test:
        compared = [Value(points(test.difference), test.difference), Value(probability(test.p_holm), test.p_holm)]
    return Row(
        entry.model,
        (
            Value(str(rank), rank) if rank else Value(DASH),
            _name(entry.model),
            *(_cell(entry.cells[metric][row], marks[row]) for row in SUMMARY_ROWS),
            Value(runs(summary, entry), entry.n, mark="runs"),
            *compared,
            Value(f"{entry.parameters:,}", entry.parameters),
            Value(f"{entry.wall_time_s:,.0f} s", entry.wall_time_s),
            *[_percent(entry.gap["mean"])] * with_gap,
        ),
    )


def _published(row: Published) -> list[Value]:
    """Their values, each with ours minus theirs where we measured the same model."""
    ours = row.difference or {}
    return [_percent(row.values.get(name), f"({points(ours[name])})" if name in ours else "") for name in SUMMARY_ROWS]


def _name(model: str, note: str = "") -> Value:
    """The cell that heads a row."""
    return Value(model, model, note, tag="th")


def _cell(cell: Cell | None, mark: str) -> Value:
    """Mean ± standard deviation."""
    if cell is None:
        return Value(DASH)
    return Value(percent(cell.mean), cell.mean, "" if cell.std is None else f"± {percent(cell.std)}", mark)


def _percent(value: float | None, note: str = "") -> Value:
    return Value(DASH) if value is None else Value(percent(value), value, note)
