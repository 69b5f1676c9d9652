"""Entries as one picture: a band per model, a panel per measure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from benchmarks.figures.style import plain
from benchmarks.imagination.dead_units import ALL
from benchmarks.imagination.entries import Entry
from benchmarks.imagination.tables import FEATURES, NONE, meaning
from benchmarks.leaderboard.looks import COLOURS
from benchmarks.leaderboard.summary import Cell
from datamodules.conditions import MODALITIES
from ifmmin.results.figures import empty_figure

LEAST_SHARE = -1.0
"""Explained variance below it is written at the edge."""

_LINE = 0.21  # inches of a line
_LINES = 3  # of a band, at least: one per modality
_GAP = 0.8  # lines between bands
_GREY, _DARK = "#606060", "#303030"
_OF_MODALITY = dict(zip(MODALITIES, zip(COLOURS, ("o", "s", "^"), strict=False), strict=True))
_OF_FEATURES = dict(zip(FEATURES, ((COLOURS[6], "o"), (COLOURS[1], "D")), strict=True))


@dataclass(frozen=True)
class Band:
    """Place of an entry in every panel.

    Attributes:
        entry: what is drawn there.
        top: y of its first line; lines are 1 apart, downwards.
        lines: their number.
    """

    entry: Entry
    top: float
    lines: int

    @property
    def middle(self) -> float:
        """Y of its middle."""
        return self.top + (self.lines - 1) / 2

    def spread(self, count: int) -> list[float]:
        """Y of ``count`` marks about the middle."""
        step = min(1.0, (self.lines - 1) / max(1, count - 1))
        return [self.middle + (place - (count - 1) / 2) * step for place in range(count)]


def imagination_figure(entries: Sequence[Entry]) -> Figure:
    """Draw all entries: mean over runs, ± one standard deviation of several; no panel that no entry fills."""
    panels = [panel for panel in PANELS if any(panel.has(entry) for entry in entries)]
    bands, place = [], 0.0
    for entry in entries:
        lines = max(_LINES, len(entry.names("weighted_loss")))
        bands.append(Band(entry, place, lines))
        place += lines + _GAP
    height = 2.9 + _LINE * place
    figure = empty_figure(1.6 + sum(panel.width for panel in panels), height)
    grid = figure.subplots(1, len(panels), sharey=True, squeeze=False, width_ratios=[panel.width for panel in panels])[
        0
    ]
    for axes, panel in zip(grid, panels, strict=True):
        _prepare(axes, bands)
        panel.draw(axes, bands)
        axes.set_title(panel.title, fontsize=11)
    grid[0].set_yticks([band.middle for band in bands], [_name(band.entry, entries) for band in bands])
    for label in grid[0].get_yticklabels():
        label.set_fontsize(11)
        label.set_parse_math(False)
    corpora = [corpus for corpus, _ in groupby(entries, key=lambda entry: entry.corpus)]
    counts = sorted({len(entry.runs) for entry in entries})
    runs = "" if counts == [1] else f", n = {counts[0]}" + f" to {counts[-1]}" * (len(counts) > 1)
    title = f"What is imagined, and what is inside\n{plain(' · '.join(corpora))}\nvalidation split · {meaning(entries)}"
    figure.suptitle(f"{title}{runs}", fontsize=13, parse_math=False)
    figure.legend(handles=_legend(), loc="outside lower center", ncols=8, fontsize=11, frameon=False)
    return figure


def _name(entry: Entry, entries: Sequence[Entry]) -> str:
    """A label of few letters a line; with its corpus where there are several."""
    words = entry.label.replace(" (", "\n(").replace(", ", ",\n")
    several = len({other.corpus for other in entries}) > 1
    return f"{words}\n{entry.runs[0].corpus}" if several else words


def _prepare(axes: Axes, bands: Sequence[Band]) -> None:
    """Shade every other band; the first is on top."""
    for number, band in enumerate(bands):
        if number % 2 == 0:
            axes.axhspan(band.top - 0.5 - _GAP / 2, band.top + band.lines - 0.5 + _GAP / 2, color="#f2f2f2", lw=0)
    last = bands[-1]
    axes.set_ylim(last.top + last.lines - 0.5 + _GAP / 2, bands[0].top - 0.5 - _GAP / 2)
    axes.tick_params(labelsize=10)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="#dcdcdc", lw=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)


def _dot(axes: Axes, cell: Cell, y: float, colour: str, marker: str, scale: float = 1.0) -> None:
    axes.errorbar(
        scale * cell.mean,
        y,
        xerr=None if cell.std is None else scale * cell.std,
        color=colour,
        marker=marker,
        markersize=6,
        elinewidth=1.3,
        linestyle="none",
    )


def _explained(axes: Axes, bands: Sequence[Band]) -> None:
    axes.axvline(0, color=_GREY, lw=1, ls="dashed")
    for band in bands:
        for y, (name, (colour, marker)) in zip(band.spread(len(MODALITIES)), _OF_MODALITY.items(), strict=True):
            cell = band.entry.cell("explained_variance", name)
            if cell is None:
                continue
            if cell.mean >= LEAST_SHARE:
                _dot(axes, cell, y, colour, marker)
            else:
                axes.text(LEAST_SHARE, y, f"◂ {cell.mean:.3g}", color=colour, fontsize=9, va="center")
        if not band.entry.names("explained_variance"):
            _dash(axes, band, 0.5)
    axes.set_xlim(LEAST_SHARE - 0.05, 1.05)
    axes.set_xticks([-1, -0.5, 0, 0.5, 1], ["≤ −1", "−0.5", "0\nmean", "0.5", "1\nperfect"])


def _ratio(axes: Axes, bands: Sequence[Band]) -> None:
    positive = [1.0]
    for band in bands:
        cell = band.entry.cell("std", "H/h")
        if cell and cell.mean > 0:
            positive.append(cell.mean)
            _dot(axes, cell, band.middle, *_OF_FEATURES["H"])
            axes.text(cell.mean, band.middle - 0.8, f"{cell.mean:.2g}", ha="center", va="center", fontsize=9)
        else:
            _dash(axes, band, 0.1, "0" if cell else NONE)
    axes.set_xscale("log")
    axes.set_xlim(min(0.01, min(positive) / 3), 3)
    axes.xaxis.set_minor_formatter(NullFormatter())


def _told(target: str) -> Callable[[Axes, Sequence[Band]], None]:
    def draw(axes: Axes, bands: Sequence[Band]) -> None:
        chances = {}
        for band in bands:
            cells = {name: cell for name in FEATURES if (cell := band.entry.cell(f"{target}_told", name))}
            for y, (name, cell) in zip(band.spread(len(cells)), cells.items(), strict=True):
                _dot(axes, cell, y, *_OF_FEATURES[name], 100)
            if chance := band.entry.cell(f"{target}_told", "chance"):
                low, high = band.top - 0.5 - _GAP / 2, band.top + band.lines - 0.5 + _GAP / 2
                axes.vlines(100 * chance.mean, low, high, color=_GREY, lw=1, ls="dashed")
                chances[band.entry.corpus] = chance.mean
            else:
                _dash(axes, band, 50)
        axes.set_xlim(0, 103)
        axes.set_xticks([0, 25, 50, 75, 100])
        axes.set_xlabel(f"%; chance {', '.join(f'{100 * chance:.0f}' for chance in chances.values())}", fontsize=10)

    return draw


def _dead(axes: Axes, bands: Sequence[Band]) -> None:
    for band in bands:
        cell = band.entry.cell("dead_units", ALL)
        if cell is None:
            _dash(axes, band, 50)
            continue
        axes.barh(band.middle, 100 * cell.mean, 0.9, color=COLOURS[6])
        shares = {part: found.mean for part in band.entry.parts() if (found := band.entry.cell("dead_units", part))}
        worst = max(shares, key=lambda part: shares[part])
        text = f"{100 * cell.mean:.1f}"
        axes.text(100 * cell.mean + 2, band.middle, text, va="center", fontsize=9)
        if shares[worst] > 0:
            note = f"{plain(worst)} {100 * shares[worst]:.0f}"
            axes.text(2, band.middle + 1.05, note, va="center", fontsize=9, color=_GREY, parse_math=False)
    axes.set_xlim(0, 115)
    axes.set_xticks([0, 50, 100])
    axes.set_xlabel("%; below: worst part", fontsize=10)


def _losses(axes: Axes, bands: Sequence[Band]) -> None:
    ends = []
    for band in bands:
        terms = band.entry.names("weighted_loss")
        for y, term in zip(band.spread(len(terms)), terms, strict=True):
            start, end = (band.entry.cell(name, term) for name in ("loss_start", "loss_end"))
            axes.text(0.01, y, plain(term), transform=axes.get_yaxis_transform(), va="center", fontsize=9)
            if start is None or end is None:
                continue
            if min(start.mean, end.mean) <= 0:  # no place on a logarithmic axis
                text = f"{start.mean:.3g} → {end.mean:.3g}"
                axes.text(0.32, y, text, transform=axes.get_yaxis_transform(), va="center", fontsize=9)
                continue
            ends += [start.mean, end.mean]
            axes.plot([start.mean, end.mean], [y, y], color=_DARK, lw=1.3)
            axes.plot([start.mean], [y], marker="o", color=_DARK, markerfacecolor="white", markersize=6)
            axes.plot([end.mean], [y], marker="o", color=_DARK, markersize=6)
    _wide_scale(axes, ends, room=0.3)


def _gradients(axes: Axes, bands: Sequence[Band]) -> None:
    """Norm over all trained parts."""
    found = []
    for band in bands:
        terms = band.entry.names("weighted_loss")
        for y, term in zip(band.spread(len(terms)), terms, strict=True):
            keys = [of for of in band.entry.names("gradient") if of.partition("/")[0] == term]
            parts = [cell.mean for of in keys if (cell := band.entry.cell("gradient", of))]
            norm = math.hypot(*parts)
            axes.text(0.01, y, plain(term), transform=axes.get_yaxis_transform(), va="center", fontsize=9)
            if norm > 0:
                found.append(norm)
                axes.plot([norm], [y], marker="o", color=_DARK, markersize=6)
            else:
                axes.text(0.42, y, "0", transform=axes.get_yaxis_transform(), va="center", fontsize=9)
    _wide_scale(axes, found, room=0.42)


def _wide_scale(axes: Axes, values: Sequence[float], room: float) -> None:
    """Make the axis of positive ``values`` logarithmic, with a share ``room`` on the left for names."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return
    low, high = min(finite), max(finite)
    decades = math.log10(high / low) + 0.6
    axes.set_xscale("log")
    axes.set_xlim(low / 10 ** (0.3 + decades * room / (1 - room)), high * 2)
    axes.xaxis.set_major_locator(LogLocator(numticks=5))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _dash(axes: Axes, band: Band, x: float, text: str = NONE) -> None:
    axes.text(x, band.middle, text, ha="center", va="center", fontsize=11, color=_GREY)


@dataclass(frozen=True)
class Panel:
    """One measure.

    Attributes:
        title: above it.
        measure: an entry that has it has something to draw; of these names alone, if there are any.
        draw: draws all bands.
        width: in inches.
        of: see ``measure``.
    """

    title: str
    measure: str
    draw: Callable[[Axes, Sequence[Band]], None]
    width: float
    of: str | None = None

    def has(self, entry: Entry) -> bool:
        """Whether there is anything to draw of ``entry``."""
        names = entry.names(self.measure)
        return bool(names) if self.of is None else self.of in names


PANELS = (
    Panel("explained variance\nwhere absent", "explained_variance", _explained, 2.7),
    Panel("std H / std h", "std", _ratio, 1.6, "H/h"),
    Panel("modality told\nfrom h and H", "modality_told", _told("modality"), 2.2),
    Panel("emotion told\nfrom h and H", "emotion_told", _told("emotion"), 2.2),
    Panel("dead units", "dead_units", _dead, 2.0),
    Panel("loss terms\nfirst to last epoch", "loss_start", _losses, 3.2),
    Panel("gradient of each term\nweighted, all parts", "gradient", _gradients, 2.4),
)


def _legend() -> list[Line2D]:
    """What marks mean."""
    dots = [(name, *look) for name, look in (*_OF_MODALITY.items(), *_OF_FEATURES.items())]
    handles = [Line2D([], [], color=colour, marker=marker, ls="none", label=name) for name, colour, marker in dots]
    handles.append(Line2D([], [], color=_GREY, ls="dashed", lw=1, label="training mean, chance"))
    first = Line2D([], [], color=_DARK, marker="o", markerfacecolor="white", ls="none", label="first epoch")
    return [*handles, first, Line2D([], [], color=_DARK, marker="o", ls="none", label="last epoch")]
