"""Scores over the rate of each pattern that a board has beside missing modalities, with the area below each curve."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.figures.labels import BAYES, MOST_BELOW, error, finish, label, legend_height, scale_of
from benchmarks.figures.style import DASHES, marks_of, plain
from benchmarks.leaderboard.looks import look_of
from benchmarks.leaderboard.summary import Entry, Summary
from datamodules.errors import InputError
from ifmmin.curves import CURVES
from ifmmin.results.figures import empty_figure
from ifmmin.results.tables import short
from ifmmin.tasks import Score

AREA = "model, area below"
"""Title of a legend that has areas."""


def rate_curves_figure(summary: Summary, metric: str) -> Figure:
    """Draw a panel for each pattern but missing modalities: mean over runs, ± one standard deviation of a few models.

    Legends have the area below each curve.

    Raises:
        InputError: no model has such a curve.
    """
    ranked = summary.by_rank(metric)
    of_curve = {
        name: [entry for entry in ranked if name in entry.curves and entry.curves[name].cells.get(metric)]
        for name in CURVES
        if name != "modalities"
    }
    of_curve = {name: entries for name, entries in of_curve.items() if entries}
    if not of_curve:
        raise InputError("no model of this board has a curve of lost or noisy frames; its runs are of an earlier code.")
    most = max(map(len, of_curve.values()))
    many = most > MOST_BELOW
    height = max(6.0, legend_height(most + 2, 8.5)) if many else 4.2
    figure = empty_figure(11.5, height * len(of_curve) + 1.0)
    panels = figure.subplots(len(of_curve), 1, squeeze=False)[:, 0]
    for axes, (name, entries) in zip(panels, of_curve.items(), strict=True):
        draw_curve(axes, name, entries, summary.task.score(metric), scale_of(summary, metric))
        add_legend(axes, AREA)
        finish(figure, axes, summary, f"{metric} by rate", metric, *(["mean over runs"] if many else []))
    return figure


def draw_curve(
    axes: Axes, name: str, entries: Sequence[Entry], score: Score, scale: int, suffix: str = "", note: bool = True
) -> None:
    """Draw one curve of some models, named with their areas.

    Args:
        axes: to draw on.
        name: of :data:`~ifmmin.curves.CURVES`.
        entries: that have it.
        score: to draw.
        scale: factor of values.
        suffix: of names.
        note: whether to say what a rate is, and the areas.
    """
    many = len(entries) > MOST_BELOW
    # Shifted, so that the marks of close models can be told apart.
    step = min(0.006, 0.05 / len(entries)) * CURVES[name].rates[-1] / 0.7
    for place, entry in enumerate(entries):
        curve = entry.curves[name]
        cells = curve.cells[score.name]
        rates = sorted(cells, key=float)
        shift = (place - (len(entries) - 1) / 2) * step
        area = curve.areas.get(score.name)
        below = "" if area is None or not note else f"  {short(score, area.cell.mean)}"
        axes.errorbar(
            [float(rate) + shift for rate in rates],
            [scale * cells[rate].mean for rate in rates],
            yerr=None if many else [error(cells[rate], scale) for rate in rates],
            **marks_of(entry.model, 5),
            linestyle=DASHES[look_of(entry.model).line],
            linewidth=1.0 if many else 1.4,
            elinewidth=0.9,
            capsize=2,
            label=plain(f"{label(entry)}{suffix}{below}"),
        )
    if note:
        axes.set_xlabel(f"{CURVES[name].title}\n{CURVES[name].meaning}", fontsize=11)
    axes.tick_params(labelsize=11)


def add_legend(axes: Axes, title: str | None = None) -> None:
    """Name the lines of a panel, beside it."""
    size = 10 if len(axes.containers) <= 2 * MOST_BELOW else 8.5
    # The limit, a plain line, is last.
    named = sorted(zip(*axes.get_legend_handles_labels(), strict=True), key=lambda pair: pair[1].startswith(BAYES))
    handles, labels = zip(*named, strict=True)
    axes.legend(
        handles, labels, loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=size, frameon=False, title=title
    )
