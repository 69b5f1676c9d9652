"""Rate curves of one trained model, as a table and as rows of a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from rich.table import Table
from rich.text import Text
from torch import Tensor

from ifmmin.curves import area, curve_of
from ifmmin.results.tables import interval_text, short
from ifmmin.results.uncertainty import LEVEL, add_up, percentiles
from ifmmin.tasks import Score, Task

AREA = "area"
"""The row of a curve that is the area below it."""

Ends = tuple[float, float] | None


@dataclass(frozen=True)
class CurveScores:
    """One curve.

    Attributes:
        name: of the curve.
        values: by rate (``"0.3"``) and :data:`AREA`, every score; NaN where it is not defined.
        intervals: of the same, or {} where none were asked for.
        n: number of utterances counted.
    """

    name: str
    values: dict[str, dict[str, float]]
    intervals: dict[str, dict[str, Ends]]
    n: int


def score_curves(
    task: Task, counts: Mapping[str, Tensor], groups: Sequence[str] | None = None, intervals: bool = True
) -> list[CurveScores]:
    """Score what :func:`~ifmmin.curves.curve_counts` counted.

    Args:
        task: what was predicted.
        counts: ``[N, R, *shape]`` by curve.
        groups: N names of what is drawn again for the intervals, such as speakers; None draws utterances.
        intervals: whether there are any.
    """
    found = []
    for name, each in counts.items():
        rows = [*(f"{rate:.1f}" for rate in curve_of(name).rates), AREA]
        units = each if groups is None else add_up(each, groups)[1]

        def scores(summed: Tensor, name: str = name) -> npt.NDArray[np.float64]:
            return _with_area(task, name, summed)

        values = scores(each.sum(dim=0)[None])[0]
        names = [score.name for score in task.scores]
        table = {row: dict(zip(names, line, strict=True)) for row, line in zip(rows, values.tolist(), strict=True)}
        drawn = percentiles(task, units, scores, rows=rows) if intervals and len(units) > 1 else {}
        found.append(CurveScores(name, table, drawn, int(task.number(each[:, 0].sum(dim=0)))))
    return found


def _with_area(task: Task, name: str, counts: Tensor) -> npt.NDArray[np.float64]:
    """Every score at each rate and of the area, [B, R + 1, S], of counts ``[B, R, *shape]``."""
    found = task.evaluate(counts)
    values = torch.stack([found[score.name].double() for score in task.scores], dim=-1).numpy()
    areas = area(curve_of(name).rates, values.swapaxes(1, 2))
    return np.concatenate([values, areas[:, None]], axis=1)


def curve_rows(task: Task, curves: Sequence[CurveScores]) -> list[dict[str, Any]]:
    """Rows of a file: one for each rate of each curve, and one for its area; None where a score is not defined."""
    rows = []
    for curve in curves:
        for rate, values in curve.values.items():
            row: dict[str, Any] = {"curve": curve.name, "rate": rate, "n": curve.n}
            for score in task.scores:
                value, ends = values[score.name], curve.intervals.get(rate, {}).get(score.name)
                row[score.name] = None if value != value else value
                row[f"{score.name}_low"], row[f"{score.name}_high"] = ends or (None, None)
            rows.append(row)
    return rows


def curve_table(title: str, score: Score, curves: Sequence[CurveScores]) -> Table:
    """Table of one score: a line for each curve, its area with the interval first."""
    rates = sorted({rate for curve in curves for rate in curve.values if rate != AREA}, key=float)
    table = Table(title=Text(f"{title}\n{score.name} by rate"), title_justify="left")
    table.add_column("pattern", no_wrap=True)
    for heading in ("area", "over", *rates):
        table.add_column(heading, justify="right", no_wrap=True)
    for curve in curves:
        known = {rate: values[score.name] for rate, values in curve.values.items()}
        ends = curve.intervals.get(AREA, {}).get(score.name)
        cells = [_cell(score, known[rate]) if rate in known else "" for rate in rates]
        table.add_row(
            curve.name, _cell(score, known[AREA]) + interval_text(score, ends), curve_of(curve.name).span, *cells
        )
    table.caption_justify = "left"
    table.caption = Text(
        "\n".join(
            [
                "area: mean height of the curve, by the trapezoidal rule"
                + (f"; [ ]: {LEVEL:.0%} bootstrap interval" if any(curve.intervals for curve in curves) else ""),
                *(f"{curve.name}: {curve_of(curve.name).meaning}" for curve in curves),
            ]
        )
    )
    return table


def _cell(score: Score, value: float) -> str:
    return "–" if value != value else short(score, value)
