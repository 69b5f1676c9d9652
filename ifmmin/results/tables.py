"""The table of a result, for a terminal."""

from __future__ import annotations

from rich.table import Table

from datamodules.conditions import MISSING_CONDITIONS
from ifmmin.results.results import Results, label


def results_table(results: Results) -> Table:
    """The table to print, in percent: the six missing conditions, their mean, pooled, and full.

    A pooled row over fewer than six conditions names them. Where conditions count different numbers
    of utterances, a column gives them.
    """
    title = results.title()
    table = Table(title=title, title_justify="left", min_width=max(map(len, title.splitlines())))
    table.add_column("condition", no_wrap=True)
    with_bayes, with_n = results.bayes is not None, results.common_count() is None
    for heading in ["WA", "UA", "F1"] + ["Bayes WA"] * with_bayes + ["n"] * with_n:
        table.add_column(heading, justify="right")
    for row in results.rows():
        cells = [percent(row.WA), percent(row.UA), percent(row.F1)]
        cells += [percent(row.bayes_WA)] * with_bayes + [str(row.n or "–")] * with_n
        # Lines set the six conditions, their two averages and the complete condition apart.
        last_of_block = row.condition in (MISSING_CONDITIONS[-1], "pooled")
        table.add_row(label(results, row.condition), *cells, end_section=last_of_block)
    return table


def percent(value: float | None) -> str:
    """Two decimals, or a dash where there is no value."""
    return "–" if value is None else f"{100 * value:.2f}"
