"""Confusion matrices of a leaderboard, drawn from its :class:`~benchmarks.leaderboard.summary.Summary`."""

from __future__ import annotations

import torch
from matplotlib.figure import Figure

from benchmarks.figures.labels import label, title
from benchmarks.leaderboard.summary import Entry, Summary
from datamodules.conditions import CONDITIONS, MISSING_CONDITIONS
from ifmmin.results.figures import confusion_grid, draw_matrix, empty_figure
from ifmmin.results.results import readable


def pooled_confusion_figure(summary: Summary) -> Figure:
    """One confusion matrix per model: the six missing conditions of all runs together."""
    kind = _kind(summary)
    columns = min(4, len(summary.entries))
    rows = -(-len(summary.entries) // columns)
    figure = empty_figure(max(3.75 * columns, 7.0), 3.9 * rows + 1.4)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes, entry in zip(grid.flat, summary.entries, strict=False):
        axes.set_title(f"{label(entry)}\n{_scores(summary, entry, 'pooled')}", fontsize=12, parse_math=False)
        draw_matrix(axes, torch.tensor(entry.confusion["pooled"]), summary.task.levels)
    for axes in grid.flat[len(summary.entries) :]:
        axes.set_visible(False)
    for axes in grid[:, 0]:
        axes.set_ylabel(f"true {kind} (each row is 100%)", fontsize=11)
    for axes in grid[-1]:
        axes.set_xlabel(f"predicted {kind}", fontsize=11)
    figure.suptitle(f"The six missing conditions together\n{title(summary)}\n{_SUMMED}", fontsize=13, parse_math=False)
    return figure


def confusion_figure(summary: Summary, entry: Entry) -> Figure:
    """The confusion matrices of one model, one per condition and one pooled, summed over its runs."""
    answered = [name for name in MISSING_CONDITIONS if any(map(any, entry.confusion[name]))]
    names = {name: readable(name) for name in (*CONDITIONS, "pooled")}
    if 0 < len(answered) < len(MISSING_CONDITIONS):
        names["pooled"] = "pooled over " + " ".join(map(readable, answered))
    headings = {name: f"{shown}\n{_scores(summary, entry, name)}" for name, shown in names.items()}
    matrices = {name: torch.tensor(entry.confusion[name]) for name in names}
    heading = f"{label(entry)}\n{title(summary)}\n{_SUMMED}"
    return confusion_grid(heading, headings, matrices, summary.task.levels, _kind(summary))


def _kind(summary: Summary) -> str:
    """What rows and columns are."""
    return "class" if summary.task.class_names else "value, rounded"


_SUMMED = "counts are summed over runs; scores are means over runs"


def _scores(summary: Summary, entry: Entry, row: str) -> str:
    """First two scores of one row."""
    texts = []
    for score in summary.scores[:2]:
        cell = entry.cells[score.name][row]
        texts.append(f"{score.name} {score.format(None if cell is None else cell.mean)}")
    return "   ".join(texts)
