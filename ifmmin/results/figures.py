"""Pictures of a result: confusion matrices."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from torch import Tensor

from datamodules.conditions import COMPLETE
from datamodules.text import printable
from ifmmin.results.results import Results


def confusion_figure(results: Results) -> Figure:
    """Draw :func:`confusion_grid` of one result, each matrix under the task's first two scores."""
    rows = {row.condition: row for row in results.rows()}
    first, second = results.task.scores[:2]
    matrices = results.matrices()
    headings = {}
    for name in matrices:
        shown = [f"{score.name} {score.format(rows[name].scores[score.name])}" for score in (first, second)]
        headings[name] = f"{results.label(name)}\n{'   '.join(shown)}"
    kind = "class" if results.task.class_names else "value, rounded"
    return confusion_grid(results.title(), headings, matrices, results.task.levels, kind)


def empty_figure(width: float, height: float, dpi: float = 100) -> Figure:
    """Make a white figure of ``width`` x ``height`` inches, ``dpi`` dots each, with room for its labels."""
    # Not pyplot: it would choose a backend and keep every figure for the whole process.
    layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1)
    figure = Figure(figsize=(width, height), dpi=dpi, layout=layout, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Write a picture; a letter that the font lacks is drawn as a box, without a warning."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph .* missing from")
        figure.savefig(path)


def confusion_grid(
    title: str,
    headings: Mapping[str, str],
    matrices: Mapping[str, Tensor],
    levels: Sequence[str],
    kind: str = "class",
) -> Figure:
    """Draw eight confusion matrices, one per condition and one pooled.

    Args:
        title: of the whole figure.
        headings: text above each matrix, by condition and ``"pooled"``.
        matrices: counts [C, C], true classes in rows, by condition and ``"pooled"``.
        levels: names of rows and columns.
        kind: what they are, for the labels of the axes.
    """
    figure = empty_figure(15, 8.4, dpi=110)
    grid = figure.subplots(2, 4, sharex=True, sharey=True)
    # One available modality above, two below, and what is reported apart in the last column.
    order = ("a", "v", "t", COMPLETE, "av", "at", "vt", "pooled")
    for axes, name in zip(grid.flat, order, strict=True):
        axes.set_title(headings[name], fontsize=12, parse_math=False)
        draw_matrix(axes, matrices[name], levels)
    for axes in grid[:, 0]:
        axes.set_ylabel(f"true {kind} (each row is 100%)", fontsize=11)
    for axes in grid[1]:
        axes.set_xlabel(f"predicted {kind}", fontsize=11)
    figure.suptitle(title, fontsize=14, parse_math=False)
    return figure


def draw_matrix(axes: Axes, confusion: Tensor, levels: Sequence[str]) -> None:
    """Draw one confusion matrix.

    Args:
        axes: where.
        confusion: counts [C, C], true classes in rows; colour and percent are shares of the row, the
            count is written below. An empty one is marked as not answered.
        levels: names of rows and columns.
    """
    total = confusion.sum(1, keepdim=True)
    shares = (confusion / total.clamp(min=1)).numpy()
    classes = len(levels)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    font = 10 if classes <= 5 else max(4.0, 50 / classes)
    names = [printable(name, 12) for name in levels]
    slant = 0 if sum(map(len, names)) <= 28 else 40
    turned: dict[str, Any] = {"rotation": slant, "ha": "right", "rotation_mode": "anchor"} if slant else {}
    # A "$" of a name is no formula.
    axes.set_xticks(range(classes), names, fontsize=font, parse_math=False, **turned)
    axes.set_yticks(range(classes), names, fontsize=font, parse_math=False)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_color("#b0b0b0")
    if not bool(confusion.any()):
        middle = (classes - 1) / 2
        axes.text(middle, middle, "not answered", ha="center", va="center", fontsize=12, color="#606060")
        return
    for i in range(classes):
        for j in range(classes):
            percent = f"{100 * shares[i, j]:.0f}%" if total[i] else "–"
            colour = "white" if shares[i, j] > 0.55 else "#202020"
            label = f"{percent}\n{int(confusion[i, j])}"
            axes.text(j, i, label, ha="center", va="center", fontsize=font, color=colour)
