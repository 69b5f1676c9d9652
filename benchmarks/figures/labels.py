"""Words of a leaderboard's pictures: title, unit, names of models, error bars, and legends that cover no data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.leaderboard.summary import Cell, Entry, Summary
from datamodules.text import printable

BAYES = "Bayes limit"

MOST_BELOW = 8
"""Models whose legend is below a picture; that of more is beside it, in the order of their marks."""


def title(summary: Summary) -> str:
    """Corpus, folds, seeds and runs, in two lines."""
    return "\n".join(map(printable, summary.title().splitlines()))


def scale_of(summary: Summary, metric: str) -> int:
    """Factor of drawn values: 100 for percentages."""
    return 100 if summary.task.score(metric).percent else 1


def unit(summary: Summary, metric: str) -> str:
    """Name of a score with its unit."""
    return f"{metric} in %" if summary.task.score(metric).percent else metric


def error(cell: Cell, scale: int) -> float:
    """Half length of an error bar; NaN, which is not drawn, for a single run."""
    return math.nan if cell.std is None else scale * cell.std


def label(entry: Entry) -> str:
    """Model, and the number of its runs if some are missing."""
    name = printable(entry.model)
    return name if entry.complete else f"{name} (only {entry.n} run{'s' * (entry.n > 1)})"


def finish(
    figure: Figure, axes: Axes, summary: Summary, heading: str, metric: str, mean: str = "mean ± std over runs"
) -> None:
    """Add title, unit and grid; ``mean`` says what is drawn of several runs."""
    several = any(entry.n > 1 for entry in summary.entries)
    axes.set_ylabel(f"{unit(summary, metric)}, {mean}" if several else unit(summary, metric), fontsize=12)
    axes.tick_params(axis="y", labelsize=11)
    axes.grid(axis="y", color="#e0e0e0", lw=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"{heading}\n{title(summary)}", fontsize=13, parse_math=False)


def legend_height(count: int, size: float) -> float:
    """Inches that a column of ``count`` labels in letters of ``size`` points takes, with matplotlib's space between."""
    return 1.65 * size / 72 * count


def add_legend(figure: Figure, handles: Sequence[Artist], labels: Sequence[str]) -> None:
    """Name what is drawn: below the picture, or, if it is much, beside it in one column."""
    if len(labels) > MOST_BELOW + 1:
        size = 11 if len(labels) < 20 else 9
        figure.set_figheight(max(figure.get_figheight(), legend_height(len(labels), size) + 1.2))
        figure.legend(handles, labels, loc="outside right center", fontsize=size, frameon=False, borderaxespad=0)
        return
    widest = 0.8 + 0.085 * max(map(len, labels))  # inches: the sign and the gap, and letters of this size
    columns = min(len(labels), max(1, int(figure.get_figwidth() / widest)))
    look: dict[str, Any] = {"ncols": columns, "fontsize": 11, "frameon": False, "borderaxespad": 0}
    figure.legend(handles, labels, loc="outside lower center", **look)
