"""The leaderboard as one HTML file: sortable tables, filters and charts, readable without a network.

The result tables are rendered here, so that they can be read without JavaScript; ``page.js`` sorts and filters
them, draws the charts (``charts.js``) and lists the single runs, from the same summary embedded as JSON. Names
and notes are text for both: Jinja escapes them, and the scripts build nodes, never markup. The content policy of
the page forbids every request.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from benchmarks.leaderboard.looks import MARKERS, STYLES, look_of
from benchmarks.leaderboard.published_rates import (
    IN_THEIRS,
    PLAIN_METRICS,
    PROTOCOLS,
    columns_of,
    curves,
    other_tables,
    published_areas,
    source_notes,
)
from benchmarks.leaderboard.records import Record
from benchmarks.leaderboard.report.areas import area_table
from benchmarks.leaderboard.report.rows import DASH, EMPTY, BoardTable, board_notes, board_table
from benchmarks.leaderboard.summary import Cell, Entry, Summary
from datamodules.conditions import COMPLETE, CONDITIONS
from datamodules.files import write_text
from ifmmin.calibration import MEASURES
from ifmmin.curves import CURVES
from ifmmin.results.calibration import AFTER
from ifmmin.results.results import readable
from ifmmin.tasks import SUMMARY_ROWS, Score

_FOLDER = Path(__file__).parent


def write_page(summary: Summary, path: str | Path) -> Path:
    """Write the page to ``path``, whole or not at all.

    Raises:
        OSError: the folder cannot be written or the disk is full.
    """
    write_text(path, page_html(summary))
    return Path(path)


def page_html(summary: Summary) -> str:
    """The whole page; equal summaries give equal bytes."""
    style = (_FOLDER / "page.css").read_text(encoding="utf-8")
    script = "".join((_FOLDER / name).read_text(encoding="utf-8") for name in ("charts.js", "page.js"))
    policy = (
        f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
    jinja = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return jinja.get_template("page.html").render(
        corpus=summary.corpus_title,
        is_synthetic=summary.is_synthetic,
        spread=any(entry.n > 1 for entry in summary.entries),
        facts=_facts(summary),
        tables=_tables(summary),
        row_labels=[readable(row) for row in SUMMARY_ROWS],
        notes=_notes(summary),
        with_published=bool(summary.published or _curves(summary) or _published_areas(summary)),
        protocol=CURVES["modalities"].meaning,
        limited=bool(summary.bayes_over_rates()),
        calibration=_calibration(summary),
        curves=_curves(summary),
        areas=_areas(summary),
        further=_further(summary),
        elsewhere=_elsewhere(summary),
        provenance=_provenance(summary.records),
        policy=Markup(policy),
        style=Markup(style),
        script=Markup(script),
        # No "<" at all: neither "</script>" nor "<!--" can end or change the data element.
        data=Markup(json.dumps(_data(summary), allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")),
    )


def _tables(summary: Summary) -> list[dict[str, Any]]:
    """One table per score for the template, the one that the corpus selects by first."""
    boards = [board_table(summary, score) for score in summary.scores]
    boards.sort(key=lambda board: board.score.name != summary.monitor)
    return [_table(summary, board) for board in boards]


def _areas(summary: Summary) -> list[dict[str, Any]]:
    """One table of areas per score, in the order of the others."""
    boards = [board for score in summary.scores if (board := area_table(summary, score)) is not None]
    boards.sort(key=lambda board: board.score.name != summary.monitor)
    return [_table(summary, board) | {"caption": board.heading, "notes": [*board.notes]} for board in boards]


def _published_areas(summary: Summary) -> bool:
    return any(published_areas(summary.figures, name) for name in summary.score_names)


def _further(summary: Summary) -> list[dict[str, str]]:
    """The curves that some model has, beside that of modalities."""
    names = [name for name in CURVES if name != "modalities"]
    return [
        {"name": name, "heading": CURVES[name].title.capitalize(), "meaning": CURVES[name].meaning}
        for name in names
        if any(name in entry.curves for entry in summary.entries)
    ]


def _table(summary: Summary, board: BoardTable) -> dict[str, Any]:
    bodies: dict[str, list[dict[str, Any]]] = {}
    for row in board.rows:
        cells = []
        for column in board.columns:
            cell = row.cells.get(column.key, EMPTY)
            marks = ("runs" if column.key == "n" and row.kind == "measured" else "", "best", "second")
            cells.append(
                {
                    "text": cell.text.replace(", ", ",\u00a0"),  # no line ends inside an interval
                    "value": cell.value,
                    "note": f"± {cell.spread}" if cell.spread else cell.note,
                    "mark": marks[cell.place],
                    "tag": "th" if column.key == "model" else "td",
                }
            )
        bodies.setdefault(row.kind, []).append({"model": row.model, "cells": cells})
    notes = [*board.notes]
    if any(row.differences for row in board.rows):
        notes.append("In brackets below a published value: our mean minus it, in points.")
    compared = any(entry.test[board.score.name] for entry in summary.entries)
    against = f"; difference and p against {summary.reference}" if compared else ""
    return {
        "metric": board.score.name,
        "caption": f"{board.unit}, {_spread(summary)}{against}",
        "columns": board.columns,
        "bodies": [{"kind": kind, "rows": rows} for kind, rows in bodies.items()],
        "notes": notes,
    }


def _spread(summary: Summary) -> str:
    """What a cell's numbers are; a single run has no deviation."""
    single = all(entry.n == 1 for entry in summary.entries)
    return "of one run a model" if single else "mean ± standard deviation over n runs"


def _hash(text: str) -> str:
    """How a content policy names an inline script or style that may run."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _facts(summary: Summary) -> str:
    """Folds, seeds, n, what the models are ordered by, and when they ran."""
    counts = summary.title().splitlines()[-1]
    days = sorted({record.date[:10] for record in summary.records})
    when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    return f"{counts} · best epochs chosen by {summary.monitor} · run {when}"


def _notes(summary: Summary) -> list[str]:
    """How to read the tables of all metrics."""
    return [
        f"mean: the arithmetic mean over the six missing conditions; pooled: all six as one set; {readable(COMPLETE)}: "
        "nothing missing, in neither of them.",
        "The best measured value of a column is bold, the second best underlined, whether shown or not.",
        "n counts runs, folds x seeds. Parameters and wall time are medians over them.",
        *board_notes(summary),
    ]


def _curves(summary: Summary) -> list[dict[str, Any]]:
    """Published curves over the missing rate: a chart for each protocol, its lines by score, and its sources."""
    groups = []
    for protocol, by_score in curves(summary.figures, summary.score_names).items():
        notes = source_notes([figures for group in by_score.values() for figures in group])
        numbers = {source: number for number, source in enumerate(notes)}
        offset = protocol in IN_THEIRS  # plain lines are ours
        lines = {
            score: [
                {
                    "name": f"{figures.model} [{numbers[figures.source] + 1}]",
                    # A model has its own colour and mark, a source its dashes.
                    "look": _look(figures.model, (numbers[figures.source] + offset) % STYLES),
                    "points": [[rate, value, None] for rate, value in figures.points()],
                }
                for figures in group
            ]
            for score, group in by_score.items()
        }
        sources = [
            f"[{numbers[source] + 1}] {source}" + (f" ({note})" if note else "") for source, note in notes.items()
        ]
        group: dict[str, Any] = {"protocol": protocol, "meaning": PROTOCOLS[protocol], "sources": sources}
        ours = IN_THEIRS.get(protocol)
        known = any(ours in entry.curves for entry in summary.entries)
        groups.append(group | {"lines": lines, "ours": ours if known else None})
    return groups


def _elsewhere(summary: Summary) -> list[dict[str, Any]]:
    """Published figures that are neither rows nor curves of ours, a table for each protocol and score."""
    tables = []
    for (protocol, metric), table in other_tables(summary.figures, summary.score_names).items():
        columns = columns_of(table)
        percent = "" if metric in PLAIN_METRICS else " in %"
        rows = [
            {
                "model": figures.model,
                "cells": [figures.printed.get(name, DASH) for name in columns],
                "reference": figures.reference,
            }
            for figures in table
        ]
        names = [readable(name) if name in CONDITIONS else name for name in columns]
        tables.append({"caption": f"{metric}{percent}: {protocol}", "columns": names, "rows": rows})
    return tables


def _calibration(summary: Summary) -> list[dict[str, Any]]:
    """A table for each measure of the probabilities, models in rows; none where no model has any."""
    tables = []
    for score in MEASURES:
        rows = []
        for entry in summary.entries:
            before, after = (entry.calibration[prefix + score.name] for prefix in ("", AFTER))
            if not any(before.values()):
                continue
            cells = [
                {"before": _spelled(score, before[row]), "after": _spelled(score, after[row])} for row in SUMMARY_ROWS
            ]
            rows.append({"model": entry.model, "cells": cells})
        unit = f"{score.name} in %" if score.percent else score.name
        if rows:
            tables.append({"caption": f"{unit}, {_spread(summary)}", "rows": rows})
    return tables


def _spelled(score: Score, cell: Cell | None) -> str:
    if cell is None:
        return ""
    return score.format(cell.mean) + (f" ± {score.format(cell.std)}" if cell.std is not None else "")


def _provenance(records: Iterable[Record]) -> list[tuple[str, str]]:
    """What the runs were made with: every distinct value, most often one."""
    found: dict[str, set[str]] = {"dates": set(), "commits": set(), "code": set(), "versions": set()}
    found |= {"platform": set(), "threads": set()}
    for record in records:
        identity = record.identity
        found["dates"].add(record.date)
        found["commits"].add(f"{record.commit}{' with uncommitted changes' if record.dirty else ''}")
        found["code"].add(str(identity["code"]))
        found["versions"].add(", ".join(f"{name} {number}" for name, number in record.versions.items()))
        found["platform"].add(str(record.platform))
        found["threads"].add(str(identity["threads"]))
    dates = sorted(found.pop("dates"))
    period = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    return [("runs ended", period), *((name, "; ".join(sorted(values))) for name, values in found.items())]


def _data(summary: Summary) -> dict[str, Any]:
    """The summary and its runs for ``page.js``; fractions in [0, 1], None where there is no number."""
    return {
        "metrics": summary.score_names,
        "percent": {score.name: score.percent for score in summary.scores},
        "lower": [score.name for score in summary.scores if not score.higher_is_better],
        "limited": summary.limited.name,
        "monitor": summary.monitor,
        "rows": SUMMARY_ROWS,
        "conditions": CONDITIONS,
        "labels": {row: readable(row) for row in SUMMARY_ROWS},
        "classes": summary.task.levels,
        "kind": "class" if summary.task.class_names else "rounded value",
        "folds": summary.folds,
        "seeds": summary.seeds,
        "bayes": summary.bayes,
        "bayes_over_rates": [[float(rate), value] for rate, value in summary.bayes_over_rates().items()],
        "models": [_model(entry) for entry in summary.entries],
        "curves": [{"lines": group["lines"], "ours": group["ours"]} for group in _curves(summary)],
        "axes": {name: curve.title for name, curve in CURVES.items()},
        "runs": _runs(summary),
    }


def _pair(cell: Cell | None) -> list[float | None] | None:
    """[mean, standard deviation]."""
    return None if cell is None else [cell.mean, cell.std]


def _look(model: str, line: int | None = None) -> dict[str, Any]:
    """Look of a model for ``charts.js``; ``line`` stands for its own dashes."""
    look = look_of(model)
    return {**vars(look), "marker": MARKERS[look.marker], "line": look.line if line is None else line}


def _model(entry: Entry) -> dict[str, Any]:
    return {
        "name": entry.model,
        "remarks": entry.remarks,
        "look": _look(entry.model),
        "cells": {metric: {row: _pair(cell) for row, cell in cells.items()} for metric, cells in entry.cells.items()},
        "rates": {
            name: {metric: {rate: _pair(cell) for rate, cell in cells.items()} for metric, cells in curve.cells.items()}
            for name, curve in entry.curves.items()
        },
        "confusion": entry.confusion,
    }


def _runs(summary: Summary) -> list[dict[str, Any]]:
    """One object a run; ``model`` is its place among the models, the metrics are in the order of the rows."""
    place = {entry.model: number for number, entry in enumerate(summary.entries)}
    plain = ("fold", "seed", "wall_time_s", "run", "date", "stage1", "checkpoint")
    return [
        {
            "model": place[record.model],
            **{name: getattr(record, name) for name in plain},
            "commit": f"{record.commit}+" if record.dirty else str(record.commit),
            **{name: record.identity[name] for name in ("config", "code", "data")},
            "metrics": {name: [record.metrics[row][name] for row in SUMMARY_ROWS] for name in summary.score_names},
        }
        for record in summary.records
    ]
