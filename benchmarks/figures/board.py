"""A leaderboard in pictures, drawn from its :class:`~benchmarks.leaderboard.summary.Summary`."""

from __future__ import annotations

import math

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.figures.style import HATCHES, MARKERS, plain
from benchmarks.leaderboard.looks import COLOURS, looks
from benchmarks.leaderboard.summary import Cell, Entry, Summary
from datamodules.conditions import CONDITIONS, MISSING_CONDITIONS
from datamodules.errors import InputError
from datamodules.text import printable
from ifmmin.results.figures import confusion_grid, draw_matrix, empty_figure
from ifmmin.results.results import readable
from ifmmin.tasks import SUMMARY_ROWS

BAR_ROWS = tuple(row for row in SUMMARY_ROWS if row != "pooled")
"""What the bars show: the six missing conditions, their mean, and the complete condition."""

MOST_BARS = 10
"""Models that bars can show; a larger board is a heat map."""

MOST_LINES = 9
"""Models whose lines have colours of their own."""

_BAYES = "Bayes limit"
_BARS_WIDTH = 0.84  # of one condition; the rest keeps it apart from the next


def bars_figure(summary: Summary, metric: str) -> Figure:
    """Draw one bar per model and condition: mean over runs, ± one standard deviation; the Bayes limit dashed.

    A board of more than :data:`MOST_BARS` models is drawn by :func:`heat_map_figure`, for bars would be too thin.
    """
    entries, scale = summary.entries, _scale(summary, metric)
    if len(entries) > MOST_BARS:
        return heat_map_figure(summary, metric)
    figure = empty_figure(12.5, 5.6)
    axes = figure.subplots()
    width = _BARS_WIDTH / len(entries)
    look = looks(entry.model for entry in entries)
    for number, entry in enumerate(entries):
        cells = [entry.cells[metric][row] for row in BAR_ROWS]
        places = [place + (number - (len(entries) - 1) / 2) * width for place in range(len(BAR_ROWS))]
        for place, cell in zip(places, cells, strict=True):
            if cell is None:
                axes.text(place, 1, "–", ha="center", fontsize=9, color="#606060")
        shown = [(place, cell) for place, cell in zip(places, cells, strict=True) if cell is not None]
        axes.bar(
            [place for place, _ in shown],
            [scale * cell.mean for _, cell in shown],
            width,
            yerr=[_error(cell, scale) for _, cell in shown],
            color=COLOURS[look[entry.model] % len(COLOURS)],
            hatch=HATCHES[look[entry.model] // len(COLOURS) % len(HATCHES)],
            edgecolor="white",
            linewidth=0.4,
            error_kw={"elinewidth": 0.9, "capsize": min(2.5, 12 * width), "ecolor": "#303030"},
            label=plain(_label(entry)),
        )
    if summary.bayes is not None and metric == "WA":
        left, right = ([place + half for place in range(len(BAR_ROWS))] for half in (-_BARS_WIDTH / 2, _BARS_WIDTH / 2))
        limits = [scale * summary.bayes[row] for row in BAR_ROWS]
        axes.hlines(limits, left, right, colors="black", linestyles="dashed", linewidth=1.4, label=_BAYES)
    axes.set_xticks(range(len(BAR_ROWS)), [_with_break(row) for row in BAR_ROWS], fontsize=12)
    axes.tick_params(axis="x", length=0)
    # Lines separate averages and the complete condition from the six conditions.
    for place in (len(MISSING_CONDITIONS) - 0.5, len(BAR_ROWS) - 1.5):
        axes.axvline(place, color="#a0a0a0", lw=0.8)
    axes.set_xlim(-0.5, len(BAR_ROWS) - 0.5)
    _finish(figure, axes, summary, f"{metric} by available modalities", metric)
    return figure


def heat_map_figure(summary: Summary, metric: str) -> Figure:
    """Draw models x conditions as a heat map: means over runs written in, the best of a column bold."""
    entries, score = summary.entries, summary.task.score(metric)
    figure = empty_figure(12.5, 1.6 + 0.3 * len(entries))
    axes = figure.subplots()
    cells = [[entry.cells[metric][row] for row in BAR_ROWS] for entry in entries]
    means = np.array([[math.nan if cell is None else cell.mean for cell in row] for row in cells])
    # Each column has a scale of its own: the conditions differ more than the models.
    low, high = np.nanmin(means, axis=0), np.nanmax(means, axis=0)
    shade = (means - low) / np.where(high > low, high - low, 1.0)
    shade = shade if score.higher_is_better else 1 - shade
    axes.imshow(shade, cmap="Blues", vmin=0, vmax=1.25, aspect="auto")
    for column, name in enumerate(BAR_ROWS):
        best, _ = summary.leaders(metric, name)
        for line, (entry, row) in enumerate(zip(entries, cells, strict=True)):
            cell = row[column]
            axes.text(
                column,
                line,
                score.format(None if cell is None else cell.mean),
                ha="center",
                va="center",
                fontsize=10,
                fontweight="bold" if entry.model in best else "normal",
                color="white" if shade[line, column] > 0.75 else "#202020",
            )
    axes.set_xticks(range(len(BAR_ROWS)), [_with_break(row) for row in BAR_ROWS], fontsize=11)
    axes.set_yticks(range(len(entries)), [_label(entry) for entry in entries], fontsize=10, parse_math=False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    note = "mean over runs; shades compare the models of a column"
    figure.suptitle(
        f"{_unit(summary, metric)} by available modalities\n{_title(summary)}\n{note}", fontsize=13, parse_math=False
    )
    return figure


def missing_rate_figure(summary: Summary, metric: str) -> Figure:
    """Draw one line per model over the missing rate: mean over runs, ± one standard deviation.

    The first :data:`MOST_LINES` models have colours, the others are grey.

    Raises:
        InputError: no model answers every missing rate.
    """
    scale = _scale(summary, metric)
    entries = [entry for entry in summary.entries if entry.sweep.get(metric)]
    if not entries:
        raise InputError("no model of this board answers every missing rate.")
    figure = empty_figure(8, 6.2)
    axes = figure.subplots()
    # Shifted, so that the error bars of close models can be told apart.
    look = looks(entry.model for entry in summary.entries)
    step = min(0.006, 0.07 / len(entries))
    for place, entry in enumerate(entries):
        number = look[entry.model]
        named = place < MOST_LINES
        rates = sorted(entry.sweep[metric], key=float)
        cells = [entry.sweep[metric][rate] for rate in rates]
        shift = (place - (len(entries) - 1) / 2) * step
        axes.errorbar(
            [float(rate) + shift for rate in rates],
            [scale * cell.mean for cell in cells],
            yerr=[_error(cell, scale) for cell in cells] if named else None,
            color=COLOURS[number % len(COLOURS)] if named else "#c8c8c8",
            zorder=2 if named else 1,
            marker=MARKERS[(number + 2 * (number // len(COLOURS))) % len(MARKERS)],
            markersize=5,
            linewidth=1.4,
            elinewidth=0.9,
            capsize=2,
            label=plain(_label(entry)) if named else ("the others" if place == MOST_LINES else None),
        )
    axes.set_xlabel("missing rate of each modality", fontsize=12)
    axes.tick_params(labelsize=11)
    _finish(figure, axes, summary, f"{metric} by missing rate", metric)
    return figure


def pooled_confusion_figure(summary: Summary) -> Figure:
    """One confusion matrix per model: the six missing conditions of all runs together."""
    kind = "class" if summary.task.class_names else "value, rounded"
    columns = min(4, len(summary.entries))
    rows = -(-len(summary.entries) // columns)
    figure = empty_figure(max(3.75 * columns, 7.0), 3.9 * rows + 1.1)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes, entry in zip(grid.flat, summary.entries, strict=False):
        axes.set_title(f"{_label(entry)}\n{_scores(summary, entry, 'pooled')}", fontsize=12, parse_math=False)
        draw_matrix(axes, torch.tensor(entry.confusion["pooled"]), summary.task.levels)
    for axes in grid.flat[len(summary.entries) :]:
        axes.set_visible(False)
    for axes in grid[:, 0]:
        axes.set_ylabel(f"true {kind} (each row is 100%)", fontsize=11)
    for axes in grid[-1]:
        axes.set_xlabel(f"predicted {kind}", fontsize=11)
    figure.suptitle(f"The six missing conditions together\n{_title(summary)}\n{_SUMMED}", fontsize=13, parse_math=False)
    return figure


def confusion_figure(summary: Summary, entry: Entry) -> Figure:
    """The confusion matrices of one model, one per condition and one pooled, summed over its runs."""
    answered = [name for name in MISSING_CONDITIONS if any(map(any, entry.confusion[name]))]
    names = {name: readable(name) for name in (*CONDITIONS, "pooled")}
    if 0 < len(answered) < len(MISSING_CONDITIONS):
        names["pooled"] = "pooled over " + " ".join(map(readable, answered))
    headings = {name: f"{shown}\n{_scores(summary, entry, name)}" for name, shown in names.items()}
    matrices = {name: torch.tensor(entry.confusion[name]) for name in names}
    title = f"{_label(entry)}\n{_title(summary)}\n{_SUMMED}"
    return confusion_grid(title, headings, matrices, summary.task.levels)


_SUMMED = "counts are summed over runs; scores are means over runs"


def _scores(summary: Summary, entry: Entry, row: str) -> str:
    """First two scores of one row."""
    texts = []
    for score in summary.scores[:2]:
        cell = entry.cells[score.name][row]
        texts.append(f"{score.name} {score.format(None if cell is None else cell.mean)}")
    return "   ".join(texts)


def _title(summary: Summary) -> str:
    return "\n".join(map(printable, summary.title().splitlines()))


def _scale(summary: Summary, metric: str) -> int:
    """Factor of drawn values: 100 for percentages."""
    return 100 if summary.task.score(metric).percent else 1


def _unit(summary: Summary, metric: str) -> str:
    """Name of a score with its unit."""
    return f"{metric} in %" if summary.task.score(metric).percent else metric


def _error(cell: Cell, scale: int) -> float:
    """Half length of an error bar; NaN, which is not drawn, for a single run."""
    return math.nan if cell.std is None else scale * cell.std


def _label(entry: Entry) -> str:
    """Model, and the number of its runs if some are missing."""
    name = printable(entry.model)
    return name if entry.complete else f"{name} (only {entry.n} run{'s' * (entry.n > 1)})"


def _with_break(row: str) -> str:
    """A row on a narrow axis."""
    return readable(row).replace(" ", "\n")


def _finish(figure: Figure, axes: Axes, summary: Summary, title: str, metric: str) -> None:
    """Add title, unit, grid, and a legend that covers no data."""
    spread = ", mean ± std over runs" if any(entry.n > 1 for entry in summary.entries) else ""
    axes.set_ylabel(_unit(summary, metric) + spread, fontsize=12)
    axes.tick_params(axis="y", labelsize=11)
    axes.grid(axis="y", color="#e0e0e0", lw=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"{title}\n{_title(summary)}", fontsize=13, parse_math=False)
    handles, labels = axes.get_legend_handles_labels()
    order = sorted(range(len(labels)), key=lambda place: labels[place] == _BAYES)  # the models first
    widest = 0.8 + 0.085 * max(map(len, labels))  # inches: the sign and the gap, and letters of this size
    columns = min(len(labels), max(1, int(figure.get_figwidth() / widest)))
    shown = [handles[place] for place in order], [labels[place] for place in order]
    figure.legend(*shown, loc="outside lower center", ncols=columns, fontsize=11, frameon=False, borderaxespad=0)
