"""Measured runs, and their mean and standard deviation over folds and seeds per model and corpus."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from benchmarks.imagination.dead_units import ALL
from benchmarks.imagination.measures import Values
from benchmarks.leaderboard.summary import Cell
from datamodules.text import printable
from ifmmin.checkpoints.compatibility import FOLLOWS_THE_DATA
from ifmmin.results.csv_files import csv_text
from ifmmin.results.results import corpus_title

_OF_THE_RUN = ("pretrained", *FOLLOWS_THE_DATA)
"""Options that differ between runs of one model."""


@dataclass(frozen=True)
class Run:
    """One measured checkpoint.

    Attributes:
        model: its class name.
        options: of the model, as its checkpoint has them.
        corpus: the name of the corpus.
        is_synthetic: whether its data are generated.
        invented: whether that is by inventing recordings.
        fold: that it was trained on.
        seed: that it was trained with.
        board: name of its board, ``""`` without one.
        checkpoint: its path.
        values: what was measured.
    """

    model: str
    options: Mapping[str, Any]
    corpus: str
    is_synthetic: bool
    invented: bool
    fold: int
    seed: int
    board: str
    checkpoint: str
    values: Values

    def settings(self) -> dict[str, str]:
        """Options that its other folds and seeds share, as text."""
        own = {name: value for name, value in self.options.items() if name not in _OF_THE_RUN}
        return {name: value if isinstance(value, str) else json.dumps(value) for name, value in own.items()}


@dataclass(frozen=True)
class Entry:
    """Runs of one model with one setting on one corpus.

    Attributes:
        label: the model, with the options or the board that tell it from other entries of the same model.
        runs: at least one.
    """

    label: str
    runs: tuple[Run, ...]

    @property
    def corpus(self) -> str:
        """Name of the corpus; of generated data it says so."""
        first = self.runs[0]
        return corpus_title(first.corpus, first.is_synthetic, first.invented)

    def cell(self, measure: str, of: str = "") -> Cell | None:
        """Mean and sample standard deviation over the runs that have this value; None if none has."""
        values = [run.values[measure, of] for run in self.runs if (measure, of) in run.values]
        if not values:
            return None
        return Cell(fmean(values), stdev(values) if len(values) > 1 else None, len(values))

    def names(self, measure: str) -> list[str]:
        """What a measure is known of, in order."""
        return list(dict.fromkeys(of for run in self.runs for found, of in run.values if found == measure))

    def parts(self) -> list[str]:
        """Names of the trained parts whose units are counted."""
        return [part for part in self.names("dead_units") if part != ALL]


def make_entries(runs: Iterable[Run]) -> list[Entry]:
    """Group runs by corpus, model, settings and board: by corpus, models that imagine first, then by name."""
    groups: defaultdict[tuple[str, str, str, str], list[Run]] = defaultdict(list)
    for run in runs:
        groups[run.corpus, run.model, json.dumps(run.settings(), sort_keys=True), run.board].append(run)
    alike: defaultdict[tuple[str, str], list[list[Run]]] = defaultdict(list)
    for (corpus, model, *_), group in groups.items():
        alike[corpus, model].append(group)
    entries = [Entry(label, tuple(group)) for same in alike.values() for label, group in _labelled(same)]
    return sorted(entries, key=lambda entry: (entry.corpus, not entry.names("explained_variance"), entry.label))


def _labelled(groups: Sequence[list[Run]]) -> Iterable[tuple[str, list[Run]]]:
    """Name groups of one model by the options in which they differ, and where these are equal by their boards."""
    every = [group[0].settings() for group in groups]
    names = [name for name in every[0] if len({settings.get(name) for settings in every}) > 1]
    labels = []
    for group, settings in zip(groups, every, strict=True):
        told = [f"{name} {settings[name]}" for name in names if name in settings]
        labels.append(printable(" ".join([group[0].model, *([f"({', '.join(told)})"] if told else [])])))
    for label, group in zip(labels, groups, strict=True):
        unique = labels.count(label) == 1
        yield (label if unique else f"{label} [{printable(group[0].board) or 'single runs'}]"), group


def csv_of(entries: Iterable[Entry]) -> str:
    """Long form: per entry and value a line of kind ``mean`` (with ``std`` and ``n``) and one of kind ``run`` each."""
    lines: list[dict[str, Any]] = []
    for entry in entries:
        keys = list(dict.fromkeys(key for run in entry.runs for key in run.values))
        shared = {"corpus": entry.corpus, "model": entry.label}
        for measure, of in keys:
            cell = entry.cell(measure, of)
            assert cell is not None
            place: dict[str, Any] = {"fold": None, "seed": None, "checkpoint": None}
            lines.append(_line("mean", shared | place, measure, of, cell.mean, cell.std, cell.n))
        for run in entry.runs:
            place = {"fold": run.fold, "seed": run.seed, "checkpoint": run.checkpoint}
            lines += [_line("run", shared | place, *key, value, None, 1) for key, value in run.values.items()]
    return csv_text(lines)


def _line(
    kind: str, place: Mapping[str, Any], measure: str, of: str, value: float, std: float | None, n: int
) -> dict[str, Any]:
    return {"kind": kind, **place, "measure": measure, "of": of, "value": value, "std": std, "n": n}
