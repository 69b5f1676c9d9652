"""Rows of a board's tables, laid out once: terminal, Markdown, LaTeX and HTML format the same cells.

To add a column, add it to :func:`_columns` and its cell to :func:`_measured`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from benchmarks.leaderboard.published import MARKS, Published
from benchmarks.leaderboard.summary import Cell, Entry, Summary
from datamodules.conditions import CONDITIONS
from datamodules.needs import EARLIER_TURNS
from ifmmin.results.results import readable
from ifmmin.tasks import SUMMARY_ROWS, Score

DASH = "–"
"""Shown without a value."""

Place = Literal[0, 1, 2]


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        key: of its cells.
        label: its heading.
        kind: ``number`` or ``text``, how the page sorts it.
        first: direction of the page's first sort.
        page_only: whether tables for paper and terminal, which have no room, leave it out.
    """

    key: str
    label: str
    kind: Literal["number", "text"] = "number"
    first: Literal["ascending", "descending"] = "ascending"
    page_only: bool = False


@dataclass(frozen=True)
class BoardCell:
    """One cell.

    Attributes:
        text: what is shown.
        value: what it is sorted by, in the unit of the summary; "" comes last.
        spread: standard deviation, shown after ±.
        note: a remark on the text.
        place: 1 for the best value of a column, 2 for the second best.
    """

    text: str
    value: float | str = ""
    spread: str = ""
    note: str = ""
    place: Place = 0


EMPTY = BoardCell("")
NO_VALUE = BoardCell(DASH)


@dataclass(frozen=True)
class BoardRow:
    """One row.

    Attributes:
        kind: rows of a kind form a block, sorted and filtered apart.
        model: what filters go by.
        cells: by column key; a missing one is empty.
        differences: of a published row, ours minus theirs by column key.
    """

    kind: Literal["measured", "limit", "published"]
    model: str
    cells: Mapping[str, BoardCell]
    differences: Mapping[str, BoardCell] = field(default_factory=dict)


@dataclass(frozen=True)
class BoardTable:
    """Table of one score.

    Attributes:
        score: its metric.
        columns: in order.
        rows: measured models, best first; then the Bayes limits (of one score); then published rows.
        notes: remarks below, a sentence or two each.
        subject: what the numbers are, if they are not the scores themselves.
    """

    score: Score
    columns: tuple[Column, ...]
    rows: tuple[BoardRow, ...]
    notes: tuple[str, ...]
    subject: str = ""

    @property
    def unit(self) -> str:
        """``WA in %``, or the name of a score that is no percentage."""
        return f"{self.score.name} in %" if self.score.percent else self.score.name

    @property
    def heading(self) -> str:
        """What the numbers are."""
        if self.subject:
            return f"{self.unit}: {self.subject}"
        spread = any(cell.spread for row in self.rows for cell in row.cells.values())
        return f"{self.unit}: " + ("mean ± sample standard deviation over n runs" if spread else "one run a model")

    def text_columns(self) -> list[Column]:
        """Columns of tables for paper and terminal."""
        return [column for column in self.columns if not column.page_only]


def board_table(summary: Summary, score: Score) -> BoardTable:
    """Lay out the table of one score."""
    name = score.name
    limits = _limits(summary) if score == summary.limited else {}
    entries = summary.by_rank(name)
    rows = [_measured(summary, entry, score) for entry in entries]
    for title, limit in limits.items():
        cells = {row: BoardCell(score.format(limit[row]), limit[row]) for row in SUMMARY_ROWS}
        rows.append(BoardRow("limit", "", {"model": BoardCell(title, title), **cells}))
    published = [row for row in summary.published if row.metric == name]
    rows += [_published(row, number, score) for number, row in enumerate(published, start=1)]
    tests = [test for entry in entries for test in entry.test.values() if test]
    left_out = {
        "gap": not limits,
        "p_t": all(test.p_t is None for test in tests),
        "validation": not any(
            cell for entry in entries for cells in entry.validation.values() for cell in cells.values()
        ),
    }
    columns = tuple(column for column in _columns(score) if not left_out.get(column.key))
    return BoardTable(score, columns, tuple(rows), tuple(_notes(published, bool(limits))))


def _limits(summary: Summary) -> dict[str, dict[str, float]]:
    """Scores of the Bayes rules by title and row; one rule where earlier turns tell nothing."""
    known = {"Bayes limit": summary.bayes}
    if summary.bayes_turns != summary.bayes:
        known[f"Bayes limit, {EARLIER_TURNS}"] = summary.bayes_turns
    return {title: limit for title, limit in known.items() if limit is not None}


def _columns(score: Score) -> tuple[Column, ...]:
    best: Literal["ascending", "descending"] = "descending" if score.higher_is_better else "ascending"
    # In the same order for all scores, the gap last: the page keeps the sorted column when the score is switched.
    return (
        Column("rank", "rank"),
        Column("model", "model", kind="text"),
        *(Column(row, readable(row), first=best) for row in SUMMARY_ROWS),
        Column("n", "n", first="descending"),
        Column("difference", "difference", first=best),
        Column("p", "p (Holm)"),
        Column("p_t", "p t (Holm)"),
        Column("validation", "validation", first=best, page_only=True),
        Column("parameters", "parameters", page_only=True),
        Column("wall_time_s", "wall time", page_only=True),
        Column("gap", "gap"),
    )


def _measured(summary: Summary, entry: Entry, score: Score) -> BoardRow:
    """Lay out a measured model."""
    name = score.name
    rank, test, gap = entry.rank[name], entry.test[name], entry.gap["mean"]
    cells = {
        "rank": BoardCell(str(rank), rank) if rank else NO_VALUE,
        "model": BoardCell(entry.model, entry.model, note=", ".join(entry.remarks)),
        **{row: _score_cell(summary, entry, score, row) for row in SUMMARY_ROWS},
        "n": BoardCell(
            str(entry.n) if entry.complete else f"{entry.n} of {summary.runs_per_model}",
            entry.n,
        ),
        "difference": BoardCell("reference") if entry.model == summary.reference else NO_VALUE,
        **dict.fromkeys(("p", "p_t"), EMPTY if entry.model == summary.reference else NO_VALUE),
        "validation": _validation_cell(entry, score),
        "parameters": BoardCell(f"{entry.parameters:,}", entry.parameters),
        "wall_time_s": BoardCell(f"{entry.wall_time_s:,.0f} s", entry.wall_time_s),
        "gap": NO_VALUE if gap is None else BoardCell(score.format(gap), gap),
    }
    if test:
        cells["difference"] = BoardCell(signed(score, test.difference), test.difference)
        cells["p"] = BoardCell(probability(test.p_holm), test.p_holm)
        if test.p_t_holm is not None:
            cells["p_t"] = BoardCell(probability(test.p_t_holm), test.p_t_holm)
    return BoardRow("measured", entry.model, cells)


def _validation_cell(entry: Entry, score: Score) -> BoardCell:
    """The mean of six on validation, which takes no part in ranks and tests."""
    cell = entry.validation[score.name]["mean"]
    if cell is None:
        return NO_VALUE
    return BoardCell(score.format(cell.mean), cell.mean, "" if cell.std is None else score.format(cell.std))


def _score_cell(summary: Summary, entry: Entry, score: Score, row: str) -> BoardCell:
    """Mean ± standard deviation, with its place in the column."""
    cell: Cell | None = entry.cells[score.name][row]
    if cell is None:
        return NO_VALUE
    best, second = summary.leaders(score.name, row)
    place: Place = 1 if entry.model in best else 2 if entry.model in second else 0
    spread = "" if cell.std is None else score.format(cell.std)
    return BoardCell(score.format(cell.mean), cell.mean, spread, place=place)


def _published(row: Published, number: int, score: Score) -> BoardRow:
    """Lay out a published row, with ours minus theirs where we measured the same model."""
    ours = row.difference or {}
    marks = "".join(f", {mark}" for mark in row.marks)
    cells = {"model": BoardCell(row.model, row.model, note=f"published [{number}]{marks}")}
    for name in SUMMARY_ROWS:
        value = row.values.get(name)
        note = f"({signed(score, ours[name])})" if name in ours else ""
        cells[name] = NO_VALUE if value is None else BoardCell(score.format(value), value, note=note)
    differences = {}
    if row.difference is not None:
        differences = {name: BoardCell(signed(score, ours.get(name))) for name in SUMMARY_ROWS}
        differences["model"] = BoardCell(f"ours minus [{number}]")
    return BoardRow("published", row.model, cells, differences)


def _notes(published: list[Published], with_gap: bool) -> list[str]:
    """Remarks on the table of one score: its Bayes limit, and the sources of its published rows."""
    texts = []
    if with_gap:
        texts.append(
            "Bayes limit: the Bayes rule on the same utterances, mean over folds; gap: to that of what a model reads, "
            "in the mean of six."
        )
    if published:
        texts.append("Published rows are not our runs: other seeds, perhaps other features and folds.")
        marks = [mark for mark in MARKS if any(mark in row.marks for row in published)]
        if marks:
            texts.append("; ".join(f"{mark}: {MARKS[mark]}" for mark in marks) + ".")
    for number, row in enumerate(published, start=1):
        texts.append(f"[{number}] {row.source} ({row.note})" if row.note else f"[{number}] {row.source}")
    return texts


def board_notes(summary: Summary) -> list[str]:
    """Remarks on all tables, a sentence or two each."""
    texts = [f"Rank: by the mean of six. {summary.test_note()}"]
    if any(record.validation for record in summary.records):
        texts.append(
            "Validation (on the page and in the CSV): the same epochs on the validation split that selected them; it "
            "takes no part in ranks and tests."
        )
    if summary.features_note():
        texts.append(summary.features_note())
    if summary.training_note():
        texts.append(summary.training_note())
    texts += _numbers_note(summary)
    if not all(entry.complete for entry in summary.entries):
        texts.append(
            f"Where n is x of {summary.runs_per_model}, runs are missing: the values are over those there are."
        )
    return texts


def _numbers_note(summary: Summary) -> list[str]:
    """A sentence on conditions that count different numbers of utterances, as of a corpus with gaps; otherwise none."""
    largest = dict.fromkeys(CONDITIONS, 0)
    unequal = False
    for record in summary.records:
        counts = record.numbers()
        unequal |= len(set(counts.values()) - {0}) > 1
        largest = {name: max(number, counts[name]) for name, number in largest.items()}
    if not unequal:
        return []
    numbers = ", ".join(f"{readable(name)} {number}" for name, number in largest.items())
    return [
        "Some utterances lack a modality: a condition counts those that have all of its own, and pooled weighs the "
        f"conditions by their numbers (the largest of a run: {numbers})."
    ]


def signed(score: Score, value: float | None) -> str:
    """Write a difference with its sign, of percentages in points.

    >>> signed(Score("WA"), 0.0123), signed(Score("WA"), -0.0123), signed(Score("WA"), 0.0), signed(Score("WA"), None)
    ('+1.23', '-1.23', '0.00', '–')
    """
    text = score.format(value)
    return text if value is None or text.startswith("-") or float(text) == 0 else f"+{text}"


def probability(value: float) -> str:
    """Write a p value with four decimals.

    >>> probability(0.0625), probability(0.00001)
    ('0.0625', '<0.0001')
    """
    return f"{value:.4f}" if value >= 0.0001 else "<0.0001"
