"""One value over the runs of a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev


@dataclass(frozen=True)
class Cell:
    """One value over runs.

    Attributes:
        mean: over all runs, in [0, 1].
        std: the sample standard deviation over runs; None if there is one run.
        n: the number of runs.
    """

    mean: float
    std: float | None
    n: int


def over_runs(values: Sequence[float | None]) -> Cell | None:
    """Mean and spread; None unless every run has a value."""
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return None
    return Cell(fmean(known), stdev(known) if len(known) > 1 else None, len(known))
