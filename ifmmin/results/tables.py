"""The table of a result, for a terminal."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from datamodules.conditions import MISSING_CONDITIONS
from ifmmin.results.results import Results
from ifmmin.tasks import Score

WA = Score("WA")

_WITH_INTERVALS = 2
"""How many scores, the first of the task, are shown with their intervals."""


def results_table(results: Results) -> Table:
    """Make the table to print: the six missing conditions, their mean, pooled, and full.

    A pooled row over fewer than six conditions names them. If conditions count different numbers
    of utterances, a column gives them. The first two scores are followed by their intervals, if there are any.
    """
    title, scores = results.title(), results.task.scores
    table = Table(title=Text(title), title_justify="left", min_width=max(map(len, title.splitlines())))
    if results.intervals is not None:
        table.caption, table.caption_justify = Text(results.intervals.caption()), "left"
    table.add_column("condition", no_wrap=True)
    with_bayes, with_n = results.bayes is not None, results.common_number() is None
    headings = [score.name for score in scores]
    if with_bayes:
        headings.append("Bayes WA")
    if with_n:
        headings.append("n")
    for heading in headings:
        table.add_column(heading, justify="right")
    for row in results.rows():
        cells = [score.format(row.scores[score.name]) for score in scores]
        for place, score in enumerate(scores[:_WITH_INTERVALS]):
            cells[place] += interval_text(results, row.condition, score)
        if with_bayes:
            cells.append(WA.format(row.bayes_WA))
        if with_n:
            cells.append(str(row.n or "–"))
        # Lines separate the six conditions, their two averages and the complete condition.
        last_of_block = row.condition in (MISSING_CONDITIONS[-1], "pooled")
        table.add_row(results.label(row.condition), *cells, end_section=last_of_block)
    return table


def interval_text(results: Results, row: str, score: Score) -> str:
    """`` [52.1, 61.9]``: an interval as it follows its score, one digit shorter; ``""`` where there is none."""
    ends = None if results.intervals is None else results.intervals.values.get(row, {}).get(score.name)
    if ends is None:
        return ""
    return f" [{score.format(ends[0])[:-1]}, {score.format(ends[1])[:-1]}]"
