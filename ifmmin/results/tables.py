"""The table of a result, for a terminal."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from datamodules.conditions import MISSING_CONDITIONS
from ifmmin.results.results import Results
from ifmmin.tasks import Score

_WITH_INTERVALS = 2
"""How many scores, the first of the task, are shown with their intervals."""


def results_table(results: Results) -> Table:
    """Make the table to print: the six missing conditions, their mean, pooled, and full.

    A pooled row over fewer than six conditions names them. If conditions count different numbers of utterances, a
    column gives them, and the pooled row says that it weighs conditions by them. The first two scores are followed by
    their intervals, if there are any.
    """
    title, scores, limited = results.title(), results.task.scores, results.task.score(results.task.limited)
    table = Table(title=Text(title), title_justify="left", min_width=max(map(len, title.splitlines())))
    with_bayes, with_n = results.bayes is not None, results.common_number() is None
    captions = [] if results.intervals is None else [results.intervals.caption()]
    if with_n and any(results.numbers().values()):
        captions.append("n: the utterances that have every modality of the condition")
    if captions:
        table.caption, table.caption_justify = Text("\n".join(captions)), "left"
    table.add_column("condition", no_wrap=True)
    headings = [score.name for score in scores]
    if with_bayes:
        headings.append(f"Bayes {limited.name}")
    if with_n:
        headings.append("n")
    for heading in headings:
        table.add_column(heading, justify="right")
    for row in results.rows():
        cells = [score.format(row.scores[score.name]) for score in scores]
        if results.intervals is not None:
            for place, score in enumerate(scores[:_WITH_INTERVALS]):
                cells[place] += interval_text(score, results.intervals.values[row.condition][score.name])
        if with_bayes:
            cells.append(limited.format(row.bayes[results.task.limit_column]))
        if with_n:
            cells.append(str(row.n or "–"))
        # Lines separate the six conditions, their two averages and the complete condition.
        last_of_block = row.condition in (MISSING_CONDITIONS[-1], "pooled")
        table.add_row(results.label(row.condition), *cells, end_section=last_of_block)
    return table


def interval_text(score: Score, ends: tuple[float, float] | None) -> str:
    """`` [52.1, 61.9]``: an interval as it follows its score, with one digit less; ``""`` where there is none.

    >>> interval_text(Score("WA"), (0.52149, 0.61851)), interval_text(Score("MAE", False, False), (0.9, 1.096))
    (' [52.1, 61.9]', ' [0.90, 1.10]')
    """
    if ends is None:
        return ""
    low, high = (short(score, end) for end in ends)
    return f" [{low}, {high}]"


def short(score: Score, value: float) -> str:
    """Write a value with one digit less than tables.

    >>> short(Score("WA"), 0.64678), short(Score("MAE", False, False), 0.9)
    ('64.7', '0.90')
    """
    return f"{100 * value:.1f}" if score.percent else f"{value:.2f}"
