"""Scores over the missing rate: ours, and below them what others published, a panel for each protocol."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.figures.labels import BAYES, MOST_BELOW, finish, legend_height, scale_of, unit
from benchmarks.figures.rate_curves import AREA, add_legend, draw_curve
from benchmarks.figures.style import DASHES, marks_of, plain
from benchmarks.leaderboard.published_rates import IN_THEIRS, PROTOCOLS, Figures, curves, source_notes
from benchmarks.leaderboard.summary import Cell, Entry, Summary
from datamodules.errors import InputError
from datamodules.text import printable
from ifmmin.curves import area
from ifmmin.results.figures import empty_figure
from ifmmin.results.tables import short

_LETTERS = 110  # of a line below a panel


def missing_rate_figure(summary: Summary, metric: str) -> Figure:
    """Draw one line per model over the missing rate: mean over runs, ± one standard deviation of a few models.

    Published curves of the score are in panels below, one for each protocol, with the same vertical axis and their
    sources.

    Raises:
        InputError: no model answers every missing rate.
    """
    entries = [entry for entry in summary.by_rank(metric) if entry.sweep.get(metric)]
    if not entries:
        raise InputError("no model of this board answers every missing rate.")
    published = {protocol: by_score[metric] for protocol, by_score in curves(summary.figures, [metric]).items()}
    many = len(entries) > MOST_BELOW
    heights = [max(6.6, legend_height(len(entries) + 2, 8.5)) if many else 5.2, *(4.6 for _ in published)]
    figure = empty_figure(11.5, sum(heights) + 1.0)
    first, *others = figure.subplots(len(heights), 1, sharey=True, squeeze=False, height_ratios=heights)[:, 0]
    score, scale = summary.task.score(metric), scale_of(summary, metric)
    draw_curve(first, "modalities", entries, score, scale)
    _draw_limit(first, summary, metric)
    add_legend(first, AREA)
    finish(figure, first, summary, f"{metric} by missing rate", metric, *(["mean over runs"] if many else []))
    for axes, (protocol, group) in zip(others, published.items(), strict=True):
        own = [entry for entry in summary.by_rank(metric) if metric in _in_theirs(entry, protocol)]
        _draw_published(axes, protocol, group, scale, beside_ours=bool(own))
        if own:
            draw_curve(axes, IN_THEIRS[protocol], own, score, scale, suffix=", ours", note=False)
        add_legend(axes)
        axes.set_ylabel(f"published: {unit(summary, metric)}", fontsize=12)
    return figure


def _draw_limit(axes: Axes, summary: Summary, metric: str) -> None:
    """Draw the Bayes limit, expected over what is missing, where it is known of this score."""
    limit = summary.bayes_over_rates() if metric == summary.limited.name else {}
    if limit:
        rates, values = [float(rate) for rate in limit], np.array([*limit.values()])
        below = short(summary.limited, area(rates, values).item())
        heights = scale_of(summary, metric) * values
        axes.plot(rates, heights, color="black", linestyle="dashed", linewidth=1.4, label=f"{BAYES}  {below}")


def _in_theirs(entry: Entry, protocol: str) -> dict[str, dict[str, Cell]]:
    """Cells of our curve in a published protocol, by metric."""
    curve = entry.curves.get(IN_THEIRS.get(protocol, ""))
    return {} if curve is None else curve.cells


def _draw_published(axes: Axes, protocol: str, group: Sequence[Figures], scale: int, beside_ours: bool) -> None:
    """Draw published curves of one protocol: a model has its own colour and mark, a source its dashes."""
    notes = source_notes(group)
    sources = list(notes)
    for figures in group:
        number = sources.index(figures.source)
        rates, values = zip(*figures.points(), strict=True)
        axes.errorbar(
            rates,
            [scale * value for value in values],
            **marks_of(figures.model, 5),
            linestyle=DASHES[(number + beside_ours) % len(DASHES)],  # plain lines are ours
            linewidth=1.2,
            label=plain(f"{printable(figures.model)} [{number + 1}]"),
        )
    below = [f"{protocol}: {PROTOCOLS[protocol]}"]
    for number, (source, remarks) in enumerate(notes.items(), start=1):
        below.append(f"[{number}] {source}" + (f" ({remarks})" if remarks else ""))
    axes.set_title(
        "Published figures, models trained at each rate, and ours in their protocol, one model for all rates"
        if beside_ours
        else "Published figures, not our runs: another protocol and perhaps other features and folds",
        fontsize=11,
    )
    axes.set_xlabel(_wrapped(below), fontsize=9, parse_math=False)
    axes.grid(axis="y", color="#e0e0e0", lw=0.7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=11)


def _wrapped(notes: Sequence[str]) -> str:
    """Lines that fit below a panel."""
    return "\n".join(line for note in notes for line in textwrap.wrap(printable(note, 1000), _LETTERS))
