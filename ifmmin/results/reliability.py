"""Picture of a result's calibration: how often it is right, by how sure it says it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from datamodules.conditions import COMPLETE, CONDITIONS
from ifmmin.calibration import MEASURES, calibrated
from ifmmin.calibration.measures import BINS
from ifmmin.calibration.temperatures import answered
from ifmmin.results.calibration import AFTER
from ifmmin.results.figures import empty_figure
from ifmmin.results.predictions import Predictions
from ifmmin.results.results import Results, readable


def reliability_figure(results: Results, predictions: Predictions) -> Figure:
    """Draw accuracy over confidence in 15 bins, a panel per condition, before and after the temperatures.

    Args:
        results: with its calibration.
        predictions: the answers that it was counted from.
    """
    assert results.calibration is not None
    probability, label, condition = answered(predictions)
    rows = results.calibration
    figure = empty_figure(15, 8.4, dpi=110)
    grid = figure.subplots(2, 4, sharex=True, sharey=True)
    for axes, name in zip(grid.flat, ("a", "v", "t", COMPLETE, "av", "at", "vt"), strict=False):
        chosen, temperature = condition == CONDITIONS.index(name), rows[name]["temperature"]
        _draw_bins(axes, probability[chosen], label[chosen], temperature)
        axes.set_title(f"{readable(name)}\n{_heading(rows[name])}", fontsize=12)
    legend = grid.flat[7]
    legend.set_axis_off()
    labelled = max((axes.get_legend_handles_labels() for axes in grid.flat[:7]), key=lambda found: len(found[0]))
    title = "a mark's size: its share of the answers"
    legend.legend(*labelled, loc="center", frameon=False, fontsize=12, markerscale=2, title=title)
    for axes in grid[:, 0]:
        axes.set_ylabel("accuracy", fontsize=11)
    for axes in (*grid[1, :3], grid[0, 3]):
        axes.set_xlabel("confidence", fontsize=11)
        axes.tick_params(labelbottom=True)
    figure.suptitle(results.title(), fontsize=14, parse_math=False)
    return figure


def _heading(row: Mapping[str, float | None]) -> str:
    score = MEASURES[0]
    text = f"ECE {score.format(row['ECE'])}"
    if row[f"{AFTER}ECE"] is not None:
        text += f" → {score.format(row[f'{AFTER}ECE'])} at T {row['temperature']:.2f}"
    return text


def _draw_bins(axes: Axes, probability: Tensor, label: Tensor, temperature: float | None) -> None:
    axes.plot([0, 1], [0, 1], color="#909090", linewidth=1, linestyle=":", label="honest")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_aspect("equal")
    if not len(label):
        axes.text(0.5, 0.5, "not answered", ha="center", va="center", fontsize=12, color="#606060")
        return
    drawn = [("before", probability, "#4878a8", "o")]
    if temperature is not None:
        drawn.append(("after the temperature", calibrated(probability, temperature), "#d1691b", "s"))
    for name, shown, colour, marker in drawn:
        confidence, accuracy, share = bins(shown, label)
        axes.plot(confidence, accuracy, color=colour, linewidth=1.2, marker=marker, markersize=3, label=name)
        axes.scatter(confidence, accuracy, s=12 + 400 * share, color=colour, marker=marker, alpha=0.6, linewidth=0)


def bins(probability: Tensor, label: Tensor) -> tuple[Any, Any, Any]:
    """Mean confidence, accuracy and share of the rows of each bin that has any, NumPy arrays."""
    confidence, predicted = probability.max(dim=1)
    place = (confidence * BINS).ceil().long().clamp(1, BINS) - 1
    rows = torch.bincount(place, minlength=BINS).double()
    filled = rows > 0
    confident, right = (
        torch.bincount(place, weights=values.double(), minlength=BINS)[filled] / rows[filled]
        for values in (confidence, predicted == label)
    )
    return confident.numpy(), right.numpy(), (rows[filled] / len(label)).numpy()
