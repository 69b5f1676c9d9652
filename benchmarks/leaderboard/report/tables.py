"""A summary as tables: for the terminal, and as CSV, Markdown and LaTeX files.

Percentages have two decimals, differences and gaps of them are in points. The best measured model of a column is bold
and the second underlined (Markdown: bold only); published rows take no part.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Literal

from rich.box import HORIZONTALS
from rich.table import Table
from rich.text import Text

from benchmarks.leaderboard.published import Published
from benchmarks.leaderboard.published_rates import AREA_PROTOCOL, Figures, curves, published_areas
from benchmarks.leaderboard.report import escapes
from benchmarks.leaderboard.report.areas import area_table
from benchmarks.leaderboard.report.rows import EMPTY, BoardCell, BoardRow, BoardTable, board_notes, board_table
from benchmarks.leaderboard.summary import Cell, Entry, Summary
from datamodules.files import write_text
from ifmmin.results.calibration import measure_of
from ifmmin.tasks import SUMMARY_ROWS, Score

COLUMNS = (
    *("corpus", "kind", "model", "metric", "condition", "mean", "std", "low", "high", "n", "of", "rank"),
    *("difference", "p", "p_holm", "p_t", "p_t_holm", "bayes", "gap", "source", "note"),
)
"""The columns of the CSV."""


def write_tables(summary: Summary, folder: str | Path, name: str = "leaderboard") -> list[Path]:
    """Write ``NAME.csv``, ``NAME.md`` and ``NAME.tex``, each whole or not at all.

    Returns:
        the three paths.

    Raises:
        OSError: the folder cannot be written or the disk is full.
    """
    texts = {"csv": csv_text(summary), "md": markdown_text(summary), "tex": latex_text(summary)}
    paths = [Path(folder) / f"{name}.{ending}" for ending in texts]
    for path, text in zip(paths, texts.values(), strict=True):
        write_text(path, text)
    return paths


def terminal_tables(summary: Summary) -> list[Table]:
    """Make one table per score, readable at 180 columns, and one of the areas below the rate curves.

    The caption of the last table of scores has the notes on all; areas are in the score that selects epochs.
    """
    tables = []
    boards = _score_tables(summary)
    areas = area_table(summary, summary.task.score(summary.monitor))
    for board in [*boards, areas] if areas else boards:
        below = [*board.notes]
        if board is boards[-1]:
            below += board_notes(summary)
        # No lines or padding between columns: fourteen of them would not fit.
        table = Table(
            title=Text("\n".join(map(escapes.plain, [*summary.title().splitlines(), board.heading]))),
            title_justify="left",
            caption=Text("\n".join(map(escapes.plain, below))) if below else None,
            caption_justify="left",
            box=HORIZONTALS,
            padding=0,
            pad_edge=False,
        )
        columns = board.text_columns()
        table.padding = (0, 2, 0, 0) if board.subject else table.padding
        for column in columns:
            is_text = column.kind == "text"
            justify: Literal["left", "right"] = "left" if is_text else "right"
            table.add_column(Text(column.label), justify=justify, no_wrap=not is_text, overflow="fold")
        for _, block in groupby(_lines(board), key=lambda line: line.kind):
            for line in block:
                table.add_row(*(_rich(line.cells.get(column.key, EMPTY)) for column in columns))
            table.add_section()
        tables.append(table)
    return tables


def _score_tables(summary: Summary) -> list[BoardTable]:
    return [board_table(summary, score) for score in summary.scores]


def _area_tables(summary: Summary) -> list[BoardTable]:
    return [table for score in summary.scores if (table := area_table(summary, score)) is not None]


def _lines(board: BoardTable) -> Iterator[BoardRow]:
    """Rows as text tables have them: differences in a line of their own."""
    for row in board.rows:
        model = row.cells["model"]
        if not model.note:
            yield row
            continue
        named = BoardCell(f"{model.text}, {model.note}")
        yield BoardRow(row.kind, row.model, {**row.cells, "model": named})
        if row.differences:
            yield BoardRow(row.kind, row.model, row.differences)


def _rich(cell: BoardCell) -> Text:
    return Text(escapes.plain(_plain(cell)), style=("", "bold", "underline")[cell.place])


def _plain(cell: BoardCell) -> str:
    return f"{cell.text} ± {cell.spread}" if cell.spread else cell.text


def markdown_text(summary: Summary) -> str:
    """One section per score, the notes on all below, and one section per score of areas below the rate curves."""
    first, *others = summary.title().splitlines()
    parts = [f"# {escapes.markdown(first)}", *map(escapes.markdown, others)]
    for board in _score_tables(summary):
        parts += _markdown_table(board)
    parts += ["## Notes", *map(escapes.markdown, board_notes(summary))]
    for board in _area_tables(summary):
        parts += _markdown_table(board)
    return "\n\n".join(parts) + "\n"


def _markdown_table(board: BoardTable) -> list[str]:
    """Heading, table and notes."""
    columns = board.text_columns()
    rows = [
        [column.label for column in columns],
        [":---" if column.kind == "text" else "---:" for column in columns],
        *([_markdown_cell(line.cells.get(column.key, EMPTY)) for column in columns] for line in _lines(board)),
    ]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return [f"## {board.heading}", table, *map(escapes.markdown, board.notes)]


def _markdown_cell(cell: BoardCell) -> str:
    text = escapes.markdown(_plain(cell))
    return f"**{text}**" if cell.place == 1 else text


def latex_text(summary: Summary) -> str:
    r"""One ``table*`` per score and one of its areas, to \input into a paper that loads booktabs and graphicx."""
    tables = [_latex_table(summary, board) for board in (*_score_tables(summary), *_area_tables(summary))]
    return "\n".join([r"% Needs \usepackage{booktabs,graphicx}.", *tables])


def _latex_table(summary: Summary, board: BoardTable) -> str:
    """A table with its caption above and its notes below."""
    columns = board.text_columns()
    form = "".join("l" if column.kind == "text" else "r" for column in columns)
    caption = "; ".join([*summary.title().splitlines(), board.heading])
    rows = [" & ".join(escapes.latex(column.label) for column in columns) + r" \\"]
    for _, block in groupby(_lines(board), key=lambda line: line.kind):
        rows.append(r"\midrule")
        for line in block:
            rows.append(" & ".join(_latex_cell(line.cells.get(column.key, EMPTY)) for column in columns) + r" \\")
    return "\n".join(
        [
            r"\begin{table*}[t]",
            r"\centering",
            rf"\caption{{{escapes.latex(caption)}.}}",
            rf"\label{{tab:leaderboard-{board.score.name.lower()}{'-areas' if board.subject else ''}}}",
            r"\resizebox{\textwidth}{!}{%",
            rf"\begin{{tabular}}{{@{{}}{form}@{{}}}}",
            r"\toprule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}}",
            "",
            r"\smallskip",
            r"\parbox{\textwidth}{\scriptsize",
            *(
                escapes.latex(note) + r"\par"
                for note in [*([] if board.subject else board_notes(summary)), *board.notes]
            ),
            "}",
            r"\end{table*}",
            "",
        ]
    )


def _latex_cell(cell: BoardCell) -> str:
    r"""``$\mathbf{64.68}_{\pm 0.12}$``: a small deviation leaves room for all columns."""
    if not cell.spread and not cell.place:
        # A signed number gets a true minus sign.
        return f"${cell.text}$" if re.fullmatch(r"[+-][0-9.]+", cell.text) else escapes.latex(cell.text)
    mean = (cell.text, rf"\mathbf{{{cell.text}}}", rf"\underline{{{cell.text}}}")[cell.place]
    return f"${mean}_{{\\pm {cell.spread}}}$" if cell.spread else f"${mean}$"


def csv_text(summary: Summary) -> str:
    """Long form, for other programs: one line per model, metric and row, and per rate.

    Missing rates of modalities are ``rate 0.3``, other curves have their name, ``frames 0.3``; ``area frames`` is the
    area below one, with its interval in ``low`` and ``high``.

    ``condition`` is a row of :data:`~ifmmin.tasks.base.SUMMARY_ROWS`; ``kind`` is ``measured`` (on the test split),
    ``validation`` (the same epochs on the validation split) or ``published``; ``of`` is the number of runs of a
    complete model. Rank, difference to the reference and p are in the ``mean`` rows; the difference of a published row
    is ours minus theirs. Further metrics are those of calibration, ``calibrated_ECE`` after the ``temperature`` of a
    condition. A published rate names its protocol (``modality dropping, rate 0.3``), for it is not ours.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    corpus = escapes.csv(summary.corpus_title)
    for entry in summary.entries:
        shared = {"corpus": corpus, "kind": "measured", "model": escapes.csv(entry.model), "of": summary.runs_per_model}
        shared |= {"note": escapes.csv(", ".join(entry.remarks))}
        for score in summary.scores:
            for row in SUMMARY_ROWS:
                cells = {
                    "metric": score.name,
                    "condition": row,
                    **_csv_cell(entry, score, row, score == summary.limited),
                }
                writer.writerow({**shared, **cells})
                if validated := _csv_mean(entry.validation[score.name][row], score):
                    place = {"kind": "validation", "metric": score.name, "condition": row}
                    writer.writerow({**shared, **place, **validated})
            for name, values in _csv_curves(entry, score):
                writer.writerow({**shared, "metric": score.name, "condition": name, **values})
        for column, by_row in entry.calibration.items():
            for row, measure in by_row.items():
                if measured := _csv_mean(measure, measure_of(column)):
                    writer.writerow({**shared, "metric": column, "condition": row, **measured})
    for published in summary.published:
        score = summary.task.score(published.metric)
        writer.writerows({"corpus": corpus, **row} for row in _csv_published(published, score))
    for score in summary.scores:
        for figures in published_areas(summary.figures, score.name):
            area = {"condition": AREA_PROTOCOL, "mean": score.format(figures.area())}
            writer.writerow({"corpus": corpus, **_csv_figures(figures, score), **area})
    for by_score in curves(summary.figures, summary.score_names).values():
        for score in summary.scores:
            for figures in by_score.get(score.name, []):
                writer.writerows({"corpus": corpus, **row} for row in _csv_curve(figures, score))
    return text.getvalue()


def _csv_cell(entry: Entry, score: Score, row: str, limited: bool) -> dict[str, str]:
    """Values of one row of a measured model; ``limited``: whether the Bayes limit is of this score."""
    name = score.name
    cell, gap, test, rank = entry.cells[name][row], entry.gap[row], entry.test[name], entry.rank[name]
    values = _csv_mean(cell, score)
    if limited and cell and gap is not None:
        # The limit over the runs of this model, which may not be all.
        limit = cell.mean + gap if score.higher_is_better else cell.mean - gap
        values |= {"bayes": score.format(limit), "gap": score.format(gap)}
    if row == "mean" and rank:
        values["rank"] = str(rank)
    if row == "mean" and test:
        values |= {"difference": score.format(test.difference), "p": f"{test.p:.6g}", "p_holm": f"{test.p_holm:.6g}"}
        if test.p_t is not None and test.p_t_holm is not None:
            values |= {"p_t": f"{test.p_t:.6g}", "p_t_holm": f"{test.p_t_holm:.6g}"}
    return values


def _csv_mean(cell: Cell | None, score: Score) -> dict[str, str]:
    """Mean, deviation and number of runs; empty if not answered."""
    if cell is None:
        return {}
    return {
        "mean": score.format(cell.mean),
        "std": "" if cell.std is None else score.format(cell.std),
        "n": str(cell.n),
    }


def _csv_curves(entry: Entry, score: Score) -> Iterator[tuple[str, dict[str, str]]]:
    """Conditions and values of the rate curves of a measured model."""
    for name, curve in entry.curves.items():
        for rate, cell in curve.cells.get(score.name, {}).items():
            yield f"{'rate' if name == 'modalities' else name} {rate}", _csv_mean(cell, score)
        area = curve.areas.get(score.name)
        if area is not None:
            ends = {"low": area.low, "high": area.high}
            known = {end: score.format(value) for end, value in ends.items() if value is not None}
            yield f"area {name}", {**_csv_mean(area.cell, score), **known}


def _csv_published(row: Published, score: Score) -> list[dict[str, str]]:
    """Lines of a published row, one per value."""
    note = "; ".join(part for part in (*row.marks, row.note) if part)
    shared = {"kind": "published", "metric": row.metric, "note": escapes.csv(note)}
    shared |= {name: escapes.csv(getattr(row, name)) for name in ("model", "source")}
    known = {name: value for name, value in row.values.items() if value is not None}
    differences = {name: score.format(value) for name, value in (row.difference or {}).items()}
    return [
        {**shared, "condition": name, "mean": score.format(value), "difference": differences.get(name, "")}
        for name, value in known.items()
    ]


def _csv_curve(figures: Figures, score: Score) -> list[dict[str, str]]:
    """Lines of a published curve; the condition names its protocol, which is not ours."""
    shared = _csv_figures(figures, score)
    return [
        {**shared, "condition": f"{figures.protocol} {rate:.1f}", "mean": score.format(value)}
        for rate, value in figures.points()
    ]


def _csv_figures(figures: Figures, score: Score) -> dict[str, str]:
    """What lines of published figures share."""
    remarks = "; ".join(part for part in (*figures.marks, figures.note) if part)
    named = {name: escapes.csv(getattr(figures, name)) for name in ("model", "source")}
    return {"kind": "published", "metric": score.name, "note": escapes.csv(remarks), **named}
