"""How far a score would move with other utterances or speakers: percentile bootstrap intervals."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from datamodules.conditions import CONDITIONS, MISSING_CONDITIONS
from datamodules.errors import InputError
from datamodules.storage.layouts import Layout, speaker_of
from datamodules.text import printable
from ifmmin.results.predictions import Predictions
from ifmmin.tasks import SUMMARY_ROWS, Task

Units = Literal["utterances", "speakers"]
"""What is drawn again."""

LEVEL = 0.95
RESAMPLES = 1000

_CELLS = 4_000_000  # weights drawn at a time: bounds the memory


@dataclass(frozen=True)
class Intervals:
    """Intervals of every score of a table.

    Attributes:
        over: what was drawn again.
        units: how many of them there are.
        values: by row of the table and score, the lower and the upper end; None where the score is not defined in
            every resample.
    """

    over: Units
    units: int
    values: Mapping[str, Mapping[str, tuple[float, float] | None]]

    def caption(self) -> str:
        """What the brackets of a table are."""
        return f"[ ]: {LEVEL:.0%} bootstrap interval over {self.units} {self.over}"

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        values = {row: {name: ends and list(ends) for name, ends in of.items()} for row, of in self.values.items()}
        return {"over": self.over, "units": self.units, "level": LEVEL, "resamples": RESAMPLES, "values": values}


def intervals_from_json(written: Mapping[str, Any]) -> Intervals:
    """Read what :meth:`Intervals.to_json` gave.

    Raises:
        KeyError: a field is missing.
        ValueError: a value is none.
    """
    if written["over"] not in get_args(Units):
        raise ValueError(f"intervals over {printable(written['over'])}")
    values = {
        row: {name: None if ends is None else (float(ends[0]), float(ends[1])) for name, ends in of.items()}
        for row, of in written["values"].items()
    }
    return Intervals(written["over"], int(written["units"]), values)


def utterance_counts(predictions: Predictions) -> tuple[list[str], Tensor]:
    """Count each utterance by itself.

    Returns:
        ids of the utterances whose label is known, in the order of their first answer; and their counts
        ``[N, 7, *shape]``, as the task counts them.
    """
    task, names = predictions.task, list(dict.fromkeys(predictions.utterances))
    position = {name: place for place, name in enumerate(names)}
    row = torch.tensor([position[name] for name in predictions.utterances], dtype=torch.int64)
    answers, label, condition = map(torch.as_tensor, (predictions.answers, predictions.labels, predictions.conditions))
    counts = torch.zeros(len(names), len(CONDITIONS), *task.shape, dtype=task.counts_dtype)
    counts[row, condition.long()] = task.count(answers, label)
    known = (task.number(counts) > 0).any(dim=1)
    return [name for name, counted in zip(names, known.tolist(), strict=True) if counted], counts[known]


def speakers(utterances: Sequence[str], layout: Layout) -> list[str]:
    """Speaker of each utterance.

    Raises:
        InputError: an id does not name its speaker.
    """
    found = [speaker_of(name, layout) for name in utterances]
    unnamed = [name for name, speaker in zip(utterances, found, strict=True) if speaker is None]
    if unnamed:
        raise InputError(
            f"--intervals speakers: the id {printable(unnamed[0])} does not name its speaker (nor do "
            f"{len(unnamed) - 1} more of {len(utterances)}); give --intervals utterances."
        )
    return [speaker for speaker in found if speaker is not None]


def add_up(counts: Tensor, groups: Sequence[str]) -> tuple[list[str], Tensor]:
    """Sum counts ``[N, ...]`` over the rows of each group: the groups, sorted, and ``[G, ...]``."""
    names = sorted(set(groups))
    position = {name: place for place, name in enumerate(names)}
    place = torch.tensor([position[group] for group in groups], dtype=torch.int64)
    return names, counts.new_zeros(len(names), *counts.shape[1:]).index_add(0, place, counts)


def bootstrap_intervals(task: Task, counts: Tensor, over: Units = "utterances", seed: int = 0) -> Intervals | None:
    """Draw the units with replacement, all conditions of a unit together, and take the percentiles of every score.

    Args:
        task: what was predicted.
        counts: ``[N, 7, *shape]`` of each unit.
        over: what the units are.
        seed: of the draws; the same seed gives the same intervals.

    Returns:
        None of fewer than two units, which cannot vary.
    """
    if len(counts) < 2:
        return None
    values = percentiles(task, counts, lambda drawn: table_scores(task, drawn), seed)
    return Intervals(over, len(counts), values)


def percentiles(
    task: Task,
    counts: Tensor,
    scores: Callable[[Tensor], npt.NDArray[np.float64]],
    seed: int = 0,
    rows: Sequence[str] = SUMMARY_ROWS,
) -> dict[str, dict[str, tuple[float, float] | None]]:
    """Ends of the percentile interval of every value of a table, by row and score.

    Args:
        task: what was predicted.
        counts: ``[N, ...]`` of N >= 2 units.
        scores: computes [B, rows, S] of the summed counts ``[B, ...]`` of B resamples.
        seed: of the draws.
        rows: of the table.
    """
    from scipy.stats import DegenerateDataWarning, bootstrap

    units, shape = len(counts), counts.shape[1:]
    flat = counts.double().reshape(units, -1).numpy()

    def drawn(index: npt.NDArray[np.int64], axis: int = -1) -> npt.NDArray[np.float64]:
        """Values [K, B] of resamples [B, N]: how often each unit was drawn, times its counts."""
        resamples = index.shape[0]
        cells = index + units * np.arange(resamples)[:, None]
        weights = np.bincount(cells.ravel(), minlength=resamples * units).reshape(resamples, units)
        summed = torch.from_numpy(weights.astype(np.float64) @ flat).reshape(resamples, *shape)
        return scores(summed).reshape(resamples, -1).T

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DegenerateDataWarning)  # of conditions that are not answered
        found = bootstrap(
            (np.arange(units),),
            drawn,
            n_resamples=RESAMPLES,
            batch=max(1, _CELLS // units),
            vectorized=True,
            axis=-1,
            confidence_level=LEVEL,
            method="percentile",
            rng=np.random.default_rng(seed),
        ).confidence_interval
    names = [score.name for score in task.scores]
    low, high = (ends.reshape(len(rows), len(names)).tolist() for ends in (found.low, found.high))
    return {row: {name: _ends(low[i][j], high[i][j]) for j, name in enumerate(names)} for i, row in enumerate(rows)}


def table_scores(task: Task, counts: Tensor) -> npt.NDArray[np.float64]:
    """Every score of many tables at once: [B, 9, S] over :data:`SUMMARY_ROWS`, NaN where it is not answered.

    Args:
        task: what was predicted.
        counts: ``[B, 7, *shape]``.
    """
    missing = [CONDITIONS.index(condition) for condition in MISSING_CONDITIONS]
    by_condition = _scores(task, counts)
    rows = dict(zip(CONDITIONS, by_condition.transpose(1, 0, 2), strict=True))
    rows["mean"] = by_condition[:, missing].mean(axis=1)
    rows["pooled"] = _scores(task, counts[:, missing].sum(1))
    return np.stack([rows[row] for row in SUMMARY_ROWS], axis=1)


def _scores(task: Task, counts: Tensor) -> npt.NDArray[np.float64]:
    found = task.evaluate(counts)
    return torch.stack([found[score.name].double() for score in task.scores], dim=-1).numpy()


def _ends(low: float, high: float) -> tuple[float, float] | None:
    return None if low != low or high != high else (low, high)
