"""The Bayes limit of a board: per row, over the missing rates, and how far from it runs are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean

from benchmarks.leaderboard.records import Record
from datamodules.conditions import CONDITIONS, MODALITIES, present_under
from ifmmin.tasks import SUMMARY_ROWS


def bayes_limit(records: Iterable[Record]) -> dict[str, float] | None:
    """Score of the Bayes rule by row, each fold counted once; None where a fold lacks it."""
    by_fold: dict[str, dict[int, float | None]] = {row: {} for row in SUMMARY_ROWS}
    for record in records:
        for row, values in by_fold.items():
            # A model that answers nothing in a row has no limit there; another one of the fold may.
            value = record.metrics[row].get(record.task.limit_column)
            values[record.fold] = values.get(record.fold) if value is None else value
    limits: dict[str, float] = {}
    for row, values in by_fold.items():
        known = [value for value in values.values() if value is not None]
        if not known or len(known) < len(values):
            return None
        limits[row] = fmean(known)
    return limits


def gap(runs: Sequence[Record], row: str) -> float | None:
    """How much worse than the Bayes rule the runs of a model are in the mean; None where either is unknown."""
    task = runs[0].task
    score = task.score(task.limited)
    gaps = []
    for run in runs:
        limit, own = run.metrics[row].get(task.limit_column), run.metrics[row][score.name]
        if limit is None or own is None:
            return None
        gaps.append(limit - own if score.higher_is_better else own - limit)
    return fmean(gaps)


def shares(rate: float) -> dict[str, float]:
    """Expected share of each condition where modalities are missing at a rate, as in the missing-rate sweep.

    Each modality is absent with this probability; where none is left, one of the three is given back.

    >>> {condition: round(share, 4) for condition, share in shares(0.5).items()}["av"]
    0.125
    """
    found = {}
    for condition in CONDITIONS:
        number = sum(present_under(condition))
        found[condition] = (1 - rate) ** number * rate ** (len(MODALITIES) - number)
        if number == 1:
            found[condition] += rate ** len(MODALITIES) / len(MODALITIES)
    return found


def over_rates(limit: Mapping[str, float], rates: Iterable[str]) -> dict[str, float]:
    """The Bayes limit by missing rate (``"0.3"``), expected over what is missing, of complete utterances.

    >>> over_rates({"a": 0.5, "v": 0.5, "t": 0.6, "av": 0.6, "at": 0.7, "vt": 0.7, "avt": 0.8}, ["0.0"])
    {'0.0': 0.8}
    """
    return {
        rate: sum(share * limit[condition] for condition, share in shares(float(rate)).items())
        for rate in sorted(rates, key=float)
    }
