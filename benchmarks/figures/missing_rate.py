"""Scores over the missing rate: ours, and below them what others published, a panel for each protocol."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.figures.labels import BAYES, MOST_BELOW, error, finish, label, scale_of, unit
from benchmarks.figures.style import DASHES, marks_of, plain
from benchmarks.leaderboard.looks import look_of
from benchmarks.leaderboard.published_rates import OURS, PROTOCOLS, Figures, curves, source_notes
from benchmarks.leaderboard.summary import Entry, Summary
from datamodules.errors import InputError
from datamodules.text import printable
from ifmmin.results.figures import empty_figure

_LETTERS = 110  # of a line below a panel


def missing_rate_figure(summary: Summary, metric: str) -> Figure:
    """Draw one line per model over the missing rate: mean over runs, ± one standard deviation of a few models.

    Published curves of the score are in panels below, one for each protocol, with the same vertical axis and their
    sources.

    Raises:
        InputError: no model answers every missing rate.
    """
    entries = [entry for entry in summary.entries if entry.sweep.get(metric)]
    if not entries:
        raise InputError("no model of this board answers every missing rate.")
    published = {protocol: by_score[metric] for protocol, by_score in curves(summary.figures, [metric]).items()}
    many = len(entries) > MOST_BELOW
    heights = [6.6 if many else 5.2, *(4.6 for _ in published)]
    figure = empty_figure(11.5, sum(heights) + 1.0)
    first, *others = figure.subplots(len(heights), 1, sharey=True, squeeze=False, height_ratios=heights)[:, 0]
    _draw_ours(first, summary, metric, entries)
    _draw_limit(first, summary, metric)
    _add_legend(first)
    finish(figure, first, summary, f"{metric} by missing rate", metric, *(["mean over runs"] if many else []))
    for axes, (protocol, group) in zip(others, published.items(), strict=True):
        _draw_published(axes, protocol, group, scale_of(summary, metric))
        axes.set_ylabel(f"published: {unit(summary, metric)}", fontsize=12)
    return figure


def _draw_ours(axes: Axes, summary: Summary, metric: str, entries: Sequence[Entry]) -> None:
    """Draw what was measured."""
    scale, many = scale_of(summary, metric), len(entries) > MOST_BELOW
    # Shifted, so that the marks of close models can be told apart.
    step = min(0.006, 0.05 / len(entries))
    for place, entry in enumerate(entries):
        rates = sorted(entry.sweep[metric], key=float)
        cells = [entry.sweep[metric][rate] for rate in rates]
        shift = (place - (len(entries) - 1) / 2) * step
        axes.errorbar(
            [float(rate) + shift for rate in rates],
            [scale * cell.mean for cell in cells],
            yerr=None if many else [error(cell, scale) for cell in cells],
            **marks_of(entry.model, 5),
            linestyle=DASHES[look_of(entry.model).line],
            linewidth=1.0 if many else 1.4,
            elinewidth=0.9,
            capsize=2,
            label=plain(label(entry)),
        )
    axes.set_xlabel(f"missing rate of the modalities\n{OURS}", fontsize=11)
    axes.tick_params(labelsize=11)


def _draw_limit(axes: Axes, summary: Summary, metric: str) -> None:
    """Draw the Bayes limit, expected over what is missing, where it is known of this score."""
    limit = summary.bayes_over_rates() if metric == summary.limited.name else {}
    if limit:
        values = [scale_of(summary, metric) * value for value in limit.values()]
        axes.plot(
            [float(rate) for rate in limit], values, color="black", linestyle="dashed", linewidth=1.4, label=BAYES
        )


def _draw_published(axes: Axes, protocol: str, group: Sequence[Figures], scale: int) -> None:
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
            linestyle=DASHES[number % len(DASHES)],
            linewidth=1.2,
            label=plain(f"{printable(figures.model)} [{number + 1}]"),
        )
    below = [f"{protocol}: {PROTOCOLS[protocol]}"]
    for number, (source, remarks) in enumerate(notes.items(), start=1):
        below.append(f"[{number}] {source}" + (f" ({remarks})" if remarks else ""))
    axes.set_title(
        "Published figures, not our runs: another protocol and perhaps other features and folds", fontsize=11
    )
    axes.set_xlabel(_wrapped(below), fontsize=9, parse_math=False)
    _add_legend(axes)
    axes.grid(axis="y", color="#e0e0e0", lw=0.7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=11)


def _add_legend(axes: Axes) -> None:
    """Name the lines of a panel, beside it."""
    size = 10 if len(axes.containers) <= 2 * MOST_BELOW else 8.5
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=size, frameon=False)


def _wrapped(notes: Sequence[str]) -> str:
    """Lines that fit below a panel."""
    return "\n".join(line for note in notes for line in textwrap.wrap(printable(note, 1000), _LETTERS))
