"""Rate curves of a board's models, and the area below them with its interval."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import numpy as np
import torch
from scipy.stats import t as student

from benchmarks.leaderboard.cells import Cell, over_runs
from benchmarks.leaderboard.paired import Fold
from benchmarks.leaderboard.records import Record
from ifmmin.curves import CURVES, area

LEVEL = 0.95

Values = dict[str, list[list[float | None]]]
"""By metric, a value for each run and rate."""


@dataclass(frozen=True)
class Area:
    """Area below a curve, see :mod:`ifmmin.curves`.

    Attributes:
        cell: over runs.
        low: lower end of the t interval over training sets, whose runs are averaged first; None of a single one.
        high: upper end.
        sets: number of training sets.
    """

    cell: Cell
    low: float | None
    high: float | None
    sets: int


@dataclass(frozen=True)
class RateCurve:
    """One curve of a model.

    Attributes:
        cells: by metric and rate, ``"0.3"``.
        areas: by metric.
    """

    cells: dict[str, dict[str, Cell]]
    areas: dict[str, Area]


def rate_curves(runs: Sequence[Record], splits: Mapping[int, Fold]) -> dict[str, RateCurve]:
    """Curves of a model by name; without those that not all its runs have, at the same rates.

    Args:
        runs: of the model.
        splits: of the folds.
    """
    found = {}
    for name in CURVES:
        counted = [run.sweep if name == "modalities" else run.curves.get(name, {}) for run in runs]
        rates = sorted(counted[0], key=float)
        if not rates or any(each.keys() != set(rates) for each in counted):
            continue
        curve = _curve(runs, [[each[rate] for rate in rates] for each in counted], rates, splits)
        if curve is not None:
            found[name] = curve
    return found


def _curve(
    runs: Sequence[Record], counted: list[list[list[object]]], rates: Sequence[str], splits: Mapping[int, Fold]
) -> RateCurve | None:
    """The curve of counts by run and rate; None where one of them counts nothing."""
    task = runs[0].task
    counts = torch.tensor(counted, dtype=task.counts_dtype)
    if not bool(task.number(counts).all()):
        return None
    cells: dict[str, dict[str, Cell]] = {}
    areas: dict[str, Area] = {}
    for metric, values in task.evaluate(counts).items():
        plain = values.double().numpy()
        columns = [[None if value != value else value for value in column] for column in plain.T.tolist()]
        over = {rate: over_runs(column) for rate, column in zip(rates, columns, strict=True)}
        cells[metric] = {rate: cell for rate, cell in over.items() if cell}
        if len(rates) > 1 and not np.isnan(plain).any():
            areas[metric] = _area(runs, area([float(rate) for rate in rates], plain).tolist(), splits)
    return RateCurve(cells, areas)


def _area(runs: Sequence[Record], values: Sequence[float], splits: Mapping[int, Fold]) -> Area:
    sets: defaultdict[str, list[float]] = defaultdict(list)
    for run, value in zip(runs, values, strict=True):
        sets[splits[run.fold].training].append(value)
    means = [fmean(each) for each in sets.values()]
    cell = over_runs(values)
    assert cell is not None
    if len(means) < 2:
        return Area(cell, None, None, len(means))
    middle, half = fmean(means), float(student.ppf((1 + LEVEL) / 2, len(means) - 1)) * stdev(means) / len(means) ** 0.5
    return Area(cell, middle - half, middle + half, len(means))
