"""A summary as tables: for the terminal, and as CSV, Markdown and LaTeX files.

All values are in percent with two decimals, differences and gaps in percentage points. The best measured
model of a column is bold and the second underlined (Markdown: bold only); published rows take no part.
"""

from __future__ import annotations

import csv
import io
import re
from itertools import groupby
from pathlib import Path

from rich.box import HORIZONTALS
from rich.table import Table
from rich.text import Text

from benchmarks.leaderboard.report.lines import Line, Value, heading, headings, lines, metric_notes, notes, percent
from benchmarks.leaderboard.summary import METRICS, Cell, Entry, Metric, Published, Summary
from datamodules.files import write_text
from ifmmin.results.results import SYNTHETIC
from ifmmin.tasks import SUMMARY_ROWS

COLUMNS = (
    *("corpus", "kind", "model", "metric", "condition", "mean", "std", "n", "of", "rank"),
    *("difference", "p", "p_holm", "bayes", "gap", "source", "note"),
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
    """One table per metric, readable at 180 columns; the last one's caption holds what is said of all."""
    tables = []
    for metric in METRICS:
        below = metric_notes(summary, metric) + notes(summary) * (metric == METRICS[-1])
        # No lines or padding between columns: fourteen of them would not fit.
        table = Table(
            title=Text(f"{summary.title()}\n{heading(metric)}"),
            title_justify="left",
            caption=Text("\n".join(below)) if below else None,
            caption_justify="left",
            box=HORIZONTALS,
            padding=0,
            pad_edge=False,
        )
        for title in headings(summary, metric):
            is_model = title == "model"
            table.add_column(
                Text(title), justify="left" if is_model else "right", no_wrap=not is_model, overflow="fold"
            )
        for _, block in groupby(lines(summary, metric), key=lambda line: line.block):
            for line in block:
                table.add_row(line.rank, Text(line.model), *map(_rich_value, line.values), *line.rest)
            table.add_section()
        tables.append(table)
    return tables


def _rich_value(value: Value) -> Text:
    return Text(_plain_value(value), style=("", "bold", "underline")[value.place])


def _plain_value(value: Value) -> str:
    return f"{value.mean} ± {value.std}" if value.std else value.mean


def markdown_text(summary: Summary) -> str:
    """One section per metric, and the notes below."""
    first, *others = summary.title().splitlines()
    parts = [f"# {_markdown(first)}", *map(_markdown, others)]
    for metric in METRICS:
        heads = headings(summary, metric)
        rows = [heads, [":---" if title == "model" else "---:" for title in heads]]
        rows += [_markdown_row(line) for line in lines(summary, metric)]
        parts += [f"## {heading(metric)}", "\n".join(f"| {' | '.join(row)} |" for row in rows)]
        parts += map(_markdown, metric_notes(summary, metric))
    parts += ["## Notes", *map(_markdown, notes(summary))]
    return "\n\n".join(parts) + "\n"


def _markdown_row(line: Line) -> list[str]:
    values = [f"**{_plain_value(value)}**" if value.place == 1 else _plain_value(value) for value in line.values]
    return [line.rank, _markdown(line.model), *values, *map(_markdown, line.rest)]


def _markdown(text: str) -> str:
    """``text`` that means itself in Markdown."""
    return re.sub(r"([\\`*_\[\]<>|~&#])", r"\\\1", " ".join(text.split()))


LATEX_CHARACTERS = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "|": "$|$",
    "±": r"$\pm$",
    "–": "--",
    "·": r"$\cdot$",
    **{character: "\\" + character for character in "&%$#_{}"},
}
"""What stands in LaTeX for a character that would mean something else there, or that its fonts lack."""


def latex_text(summary: Summary) -> str:
    r"""One ``table*`` per metric, to \input into a paper that loads booktabs and graphicx."""
    tables = [_latex_table(summary, metric) for metric in METRICS]
    return "\n".join([r"% Needs \usepackage{booktabs,graphicx}.", *tables])


def _latex_table(summary: Summary, metric: Metric) -> str:
    """A table with its caption above and its notes below."""
    heads = headings(summary, metric)
    columns = "".join("l" if title == "model" else "r" for title in heads)
    caption = "; ".join([*summary.title().splitlines(), heading(metric)])
    rows = [" & ".join(map(_latex, heads)) + r" \\"]
    for _, block in groupby(lines(summary, metric), key=lambda line: line.block):
        rows += [r"\midrule", *map(_latex_row, block)]
    return "\n".join(
        [
            r"\begin{table*}[t]",
            r"\centering",
            rf"\caption{{{_latex(caption)}.}}",
            rf"\label{{tab:leaderboard-{metric.lower()}}}",
            r"\resizebox{\textwidth}{!}{%",
            rf"\begin{{tabular}}{{@{{}}{columns}@{{}}}}",
            r"\toprule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}}",
            "",
            r"\smallskip",
            r"\parbox{\textwidth}{\scriptsize",
            *(_latex(note) + r"\par" for note in notes(summary) + metric_notes(summary, metric)),
            "}",
            r"\end{table*}",
            "",
        ]
    )


def _latex_row(line: Line) -> str:
    cells = [_latex(line.rank), _latex(line.model), *map(_latex_value, line.values), *map(_latex_number, line.rest)]
    return " & ".join(cells) + r" \\"


def _latex_value(value: Value) -> str:
    r"""``$\mathbf{64.68}_{\pm 0.12}$``: a small deviation leaves room for all columns."""
    if not value.std and not value.place:
        return _latex_number(value.mean)
    mean = (value.mean, rf"\mathbf{{{value.mean}}}", rf"\underline{{{value.mean}}}")[value.place]
    return f"${mean}_{{\\pm {value.std}}}$" if value.std else f"${mean}$"


def _latex_number(text: str) -> str:
    """A signed number with a true minus sign; any other text as it is."""
    return f"${text}$" if text[:1] in {"+", "-"} else _latex(text)


def _latex(text: str) -> str:
    """``text`` that means itself in LaTeX."""
    return "".join(LATEX_CHARACTERS.get(character, character) for character in " ".join(text.split()))


def csv_text(summary: Summary) -> str:
    """Long form, for other programs: one line per model, metric and row, and per missing rate (``rate 0.3``).

    ``condition`` is a row of :data:`~ifmmin.tasks.base.SUMMARY_ROWS`; ``kind`` is ``measured`` or
    ``published``; ``of`` is how many runs a complete model has. Rank, difference to the reference and p stand on the
    ``mean`` rows, which they are about; the difference of a published row is ours minus theirs.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    corpus = SYNTHETIC if summary.is_synthetic else summary.corpus
    for entry in summary.entries:
        shared = {"corpus": corpus, "kind": "measured", "model": entry.model, "of": summary.runs_per_model}
        for metric in METRICS:
            for row in SUMMARY_ROWS:
                writer.writerow({**shared, "metric": metric, "condition": row, **_csv_cell(entry, metric, row)})
            for rate, cell in entry.sweep.get(metric, {}).items():
                writer.writerow({**shared, "metric": metric, "condition": f"rate {rate}", **_csv_mean(cell)})
    for published in summary.published:
        writer.writerows({"corpus": corpus, **row} for row in _csv_published(published))
    return text.getvalue()


def _csv_cell(entry: Entry, metric: Metric, row: str) -> dict[str, str]:
    """What is known of one row of a measured model."""
    cell, gap, test, rank = entry.cells[metric][row], entry.gap[row], entry.test[metric], entry.rank[metric]
    values = _csv_mean(cell)
    if metric == "WA" and cell and gap is not None:
        # The limit over the runs of this model, which may not be all.
        values |= {"bayes": percent(cell.mean + gap), "gap": percent(gap)}
    if row == "mean" and rank:
        values["rank"] = str(rank)
    if row == "mean" and test:
        values |= {"difference": percent(test.difference), "p": f"{test.p:.6g}", "p_holm": f"{test.p_holm:.6g}"}
    return values


def _csv_mean(cell: Cell | None) -> dict[str, str]:
    """Mean, deviation and number of runs; empty where not answered."""
    if cell is None:
        return {}
    return {"mean": percent(cell.mean), "std": "" if cell.std is None else percent(cell.std), "n": str(cell.n)}


def _csv_published(row: Published) -> list[dict[str, str]]:
    """The lines of a published row, one per value."""
    shared = {"kind": "published", "model": row.model, "metric": row.metric, "source": row.source, "note": row.note}
    known = {name: value for name, value in row.values.items() if value is not None}
    differences = {name: percent(value) for name, value in (row.difference or {}).items()}
    return [
        {**shared, "condition": name, "mean": percent(value), "difference": differences.get(name, "")}
        for name, value in known.items()
    ]
