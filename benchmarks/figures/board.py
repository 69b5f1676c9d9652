"""A leaderboard in pictures, drawn from its :class:`~benchmarks.leaderboard.summary.Summary`."""

from __future__ import annotations

import math

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.figures.style import COLOURS, HATCHES, MARKERS
from benchmarks.leaderboard.summary import METRICS, Cell, Entry, Metric, Summary
from datamodules.conditions import CONDITIONS, MISSING_CONDITIONS
from datamodules.errors import InputError
from ifmmin.results.figures import confusion_grid, draw_matrix, empty_figure
from ifmmin.results.results import readable
from ifmmin.tasks import SUMMARY_ROWS

BAR_ROWS = tuple(row for row in SUMMARY_ROWS if row != "pooled")
"""What the bars show: the six missing conditions, their mean, and the complete condition."""

_BAYES = "Bayes limit"
_BARS_WIDTH = 0.84  # of one condition; the rest keeps it apart from the next


def bars_figure(summary: Summary, metric: Metric) -> Figure:
    """One bar per model and condition: mean over runs, ± one standard deviation; the Bayes limit dashed."""
    entries = summary.entries
    figure = empty_figure(12.5 if len(entries) <= 10 else 16.0, 5.6)
    axes = figure.subplots()
    width = _BARS_WIDTH / len(entries)
    for number, entry in enumerate(entries):
        cells = [entry.cells[metric][row] for row in BAR_ROWS]
        places = [place + (number - (len(entries) - 1) / 2) * width for place in range(len(BAR_ROWS))]
        for place, cell in zip(places, cells, strict=True):
            if cell is None:
                axes.text(place, 1, "–", ha="center", fontsize=9, color="#606060")
        shown = [(place, cell) for place, cell in zip(places, cells, strict=True) if cell is not None]
        axes.bar(
            [place for place, _ in shown],
            [100 * cell.mean for _, cell in shown],
            width,
            yerr=[_error(cell) for _, cell in shown],
            color=COLOURS[number % len(COLOURS)],
            hatch=HATCHES[number // len(COLOURS) % len(HATCHES)],
            edgecolor="white",
            linewidth=0.4,
            error_kw={"elinewidth": 0.9, "capsize": min(2.5, 12 * width), "ecolor": "#303030"},
            label=_label(entry),
        )
    if summary.bayes is not None and metric == "WA":
        left, right = ([place + half for place in range(len(BAR_ROWS))] for half in (-_BARS_WIDTH / 2, _BARS_WIDTH / 2))
        limits = [100 * summary.bayes[row] for row in BAR_ROWS]
        axes.hlines(limits, left, right, colors="black", linestyles="dashed", linewidth=1.4, label=_BAYES)
    axes.set_xticks(range(len(BAR_ROWS)), [_with_break(row) for row in BAR_ROWS], fontsize=12)
    axes.tick_params(axis="x", length=0)
    # Averages and the complete condition stand apart from the six conditions.
    for place in (len(MISSING_CONDITIONS) - 0.5, len(BAR_ROWS) - 1.5):
        axes.axvline(place, color="#a0a0a0", lw=0.8)
    axes.set_xlim(-0.5, len(BAR_ROWS) - 0.5)
    _finish(figure, axes, summary, f"{metric} by available modalities", metric)
    return figure


def missing_rate_figure(summary: Summary, metric: Metric) -> Figure:
    """One line per model over the missing rate: mean over runs, ± one standard deviation.

    Raises:
        InputError: no model answers every missing rate.
    """
    entries = [entry for entry in summary.entries if entry.sweep.get(metric)]
    if not entries:
        raise InputError("no model of this board answers every missing rate.")
    figure = empty_figure(8, 6.2)
    axes = figure.subplots()
    # Models lie close together: side by side, their error bars can be told apart.
    step = min(0.006, 0.07 / len(entries))
    for entry in entries:
        number = summary.entries.index(entry)
        rates = sorted(entry.sweep[metric], key=float)
        cells = [entry.sweep[metric][rate] for rate in rates]
        shift = (entries.index(entry) - (len(entries) - 1) / 2) * step
        axes.errorbar(
            [float(rate) + shift for rate in rates],
            [100 * cell.mean for cell in cells],
            yerr=[_error(cell) for cell in cells],
            color=COLOURS[number % len(COLOURS)],
            marker=MARKERS[(number + number // len(COLOURS)) % len(MARKERS)],
            markersize=5,
            linewidth=1.4,
            elinewidth=0.9,
            capsize=2,
            label=_label(entry),
        )
    axes.set_xlabel("missing rate of each modality", fontsize=12)
    axes.tick_params(labelsize=11)
    _finish(figure, axes, summary, f"{metric} by missing rate", metric)
    return figure


def pooled_confusion_figure(summary: Summary) -> Figure:
    """One confusion matrix per model: the six missing conditions of all runs together."""
    columns = min(4, len(summary.entries))
    rows = -(-len(summary.entries) // columns)
    figure = empty_figure(max(3.75 * columns, 7.0), 3.9 * rows + 1.1)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes, entry in zip(grid.flat, summary.entries, strict=False):
        axes.set_title(f"{_label(entry)}\n{_scores(entry, 'pooled')}", fontsize=12)
        draw_matrix(axes, torch.tensor(entry.confusion["pooled"]), summary.class_names)
    for axes in grid.flat[len(summary.entries) :]:
        axes.set_visible(False)
    for axes in grid[:, 0]:
        axes.set_ylabel("true class (each row is 100%)", fontsize=11)
    for axes in grid[-1]:
        axes.set_xlabel("predicted class", fontsize=11)
    figure.suptitle(f"The six missing conditions together\n{summary.title()}\n{_SUMMED}", fontsize=13)
    return figure


def confusion_figure(summary: Summary, entry: Entry) -> Figure:
    """The confusion matrices of one model, one per condition and one pooled, summed over its runs."""
    answered = [name for name in MISSING_CONDITIONS if any(map(any, entry.confusion[name]))]
    names = {name: readable(name) for name in (*CONDITIONS, "pooled")}
    if 0 < len(answered) < len(MISSING_CONDITIONS):
        names["pooled"] = "pooled over " + " ".join(map(readable, answered))
    headings = {name: f"{shown}\n{_scores(entry, name)}" for name, shown in names.items()}
    matrices = {name: torch.tensor(entry.confusion[name]) for name in names}
    title = f"{_label(entry)}\n{summary.title()}\n{_SUMMED}"
    return confusion_grid(title, headings, matrices, summary.class_names)


_SUMMED = "counts are summed over runs; WA and UA are means over runs, in %"


def _scores(entry: Entry, row: str) -> str:
    """WA and UA of one row, in percent."""
    cells = ((metric, entry.cells[metric][row]) for metric in METRICS[:2])
    return "   ".join(f"{metric} {'–' if cell is None else f'{100 * cell.mean:.2f}'}" for metric, cell in cells)


def _error(cell: Cell) -> float:
    """The half length of an error bar, in percent; not a number, and so not drawn, of a single run."""
    return math.nan if cell.std is None else 100 * cell.std


def _label(entry: Entry) -> str:
    """The model, and the number of its runs where some are missing."""
    return entry.model if entry.complete else f"{entry.model} (only {entry.n} run{'s' * (entry.n > 1)})"


def _with_break(row: str) -> str:
    """A row on a narrow axis."""
    return readable(row).replace(" ", "\n")


def _finish(figure: Figure, axes: Axes, summary: Summary, title: str, metric: Metric) -> None:
    """What bars and lines share: title, unit, grid, and a legend that covers no data."""
    axes.set_ylabel(f"{metric} in %" + ", mean ± std over runs" * any(e.n > 1 for e in summary.entries), fontsize=12)
    axes.tick_params(axis="y", labelsize=11)
    axes.grid(axis="y", color="#e0e0e0", lw=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"{title}\n{summary.title()}", fontsize=13)
    handles, labels = axes.get_legend_handles_labels()
    order = sorted(range(len(labels)), key=lambda place: labels[place] == _BAYES)  # the models first
    widest = 0.8 + 0.085 * max(map(len, labels))  # inches: the sign and the gap, and letters of this size
    columns = min(len(labels), max(1, int(figure.get_figwidth() / widest)))
    shown = [handles[place] for place in order], [labels[place] for place in order]
    figure.legend(*shown, loc="outside lower center", ncols=columns, fontsize=11, frameon=False, borderaxespad=0)
