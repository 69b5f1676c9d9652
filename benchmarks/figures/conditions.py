"""Scores of every model under each condition: bars of a few models, dots of many."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.figures.labels import BAYES, add_legend, error, finish, label, scale_of
from benchmarks.figures.style import HATCHES, marks_of, plain
from benchmarks.leaderboard.looks import COLOURS, look_of
from benchmarks.leaderboard.summary import Entry, Summary
from datamodules.conditions import MISSING_CONDITIONS
from ifmmin.results.figures import empty_figure
from ifmmin.results.results import readable
from ifmmin.tasks import SUMMARY_ROWS

ROWS = tuple(row for row in SUMMARY_ROWS if row != "pooled")
"""What is drawn: the six missing conditions, their mean, and the complete condition."""

MOST_BARS = 8
"""Models that bars can show; more are dots."""

_WIDTH = 0.84  # of one condition; the rest keeps it apart from the next
_SPREAD = {"elinewidth": 0.9, "ecolor": "#303030"}


def conditions_figure(summary: Summary, metric: str) -> Figure:
    """Draw mean over runs ± one standard deviation by condition and model; the Bayes limit dashed.

    Up to :data:`MOST_BARS` models are bars from zero. More are dots on an axis that begins near the lowest, in each
    condition from left to right as in the legend, which is by rank in this score.
    """
    entries, scale = summary.by_rank(metric), scale_of(summary, metric)
    few = len(entries) <= MOST_BARS
    figure = empty_figure(12.5, 5.6) if few else empty_figure(17.5, 7.6)
    axes = figure.subplots()
    width = _WIDTH / len(entries)
    for number, entry in enumerate(entries):
        shift = (number - (len(entries) - 1) / 2) * width
        if few:
            _draw_bars(axes, entry, metric, scale, shift, width)
        else:
            _draw_dots(axes, entry, metric, scale, shift)
    handles, labels = axes.get_legend_handles_labels()
    if summary.bayes is not None and metric == summary.limited.name:
        left, right = ([place + half for place in range(len(ROWS))] for half in (-_WIDTH / 2, _WIDTH / 2))
        limits = [scale * summary.bayes[row] for row in ROWS]
        lines = axes.hlines(limits, left, right, colors="black", linestyles="dashed", linewidth=1.4, label=BAYES)
        handles, labels = [*handles, lines], [*labels, BAYES]
    axes.set_xticks(range(len(ROWS)), [_with_break(row) for row in ROWS], fontsize=12)
    axes.tick_params(axis="x", length=0)
    # Lines separate averages and the complete condition from the six conditions.
    for place in (len(MISSING_CONDITIONS) - 0.5, len(ROWS) - 1.5):
        axes.axvline(place, color="#a0a0a0", lw=0.8)
    if not few:
        for place in range(0, len(ROWS), 2):
            axes.axvspan(place - 0.5, place + 0.5, color="#f4f6f8", zorder=0, lw=0)
    axes.set_xlim(-0.5, len(ROWS) - 0.5)
    finish(figure, axes, summary, f"{metric} by available modalities", metric)
    add_legend(figure, handles, labels)
    return figure


def _draw_bars(axes: Axes, entry: Entry, metric: str, scale: int, shift: float, width: float) -> None:
    """Draw a bar for each condition that a model answers, a dash for the others."""
    cells = entry.cells[metric]
    shown = [(place + shift, cell) for place, row in enumerate(ROWS) if (cell := cells[row]) is not None]
    for place, row in enumerate(ROWS):
        if cells[row] is None:
            axes.text(place + shift, 1.0, "–", ha="center", fontsize=9, color="#606060")
    look = look_of(entry.model)
    colour = COLOURS[look.colour]
    axes.bar(
        [place for place, _ in shown],
        [scale * cell.mean for _, cell in shown],
        width,
        yerr=[error(cell, scale) for _, cell in shown],
        color="white" if look.hollow else colour,
        hatch=HATCHES[look.line],
        edgecolor=colour if look.hollow else "white",
        linewidth=1.2 if look.hollow else 0.4,
        error_kw={**_SPREAD, "capsize": min(2.5, 12 * width)},
        label=plain(label(entry)),
    )


def _draw_dots(axes: Axes, entry: Entry, metric: str, scale: int, shift: float) -> None:
    """Draw a dot for each condition that a model answers."""
    cells = entry.cells[metric]
    shown = [(place + shift, cell) for place, row in enumerate(ROWS) if (cell := cells[row]) is not None]
    axes.errorbar(
        [place for place, _ in shown],
        [scale * cell.mean for _, cell in shown],
        yerr=[error(cell, scale) for _, cell in shown],
        linestyle="none",
        **marks_of(entry.model, 5.5),
        elinewidth=0.8,
        label=plain(label(entry)),
    )


def _with_break(row: str) -> str:
    """A row on a narrow axis."""
    return readable(row).replace(" ", "\n")
