"""Two runs on the same utterances: paired differences with intervals, and McNemar's test."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from datamodules.conditions import CONDITIONS
from datamodules.errors import InputError
from datamodules.text import printable
from ifmmin import runs
from ifmmin.results.predictions import Predictions
from ifmmin.results.reading import check_agree, read_predictions, read_result
from ifmmin.results.results import Results
from ifmmin.results.uncertainty import percentiles, table_scores, utterance_counts
from ifmmin.tasks import SUMMARY_ROWS


@dataclass(frozen=True)
class Scored:
    """A result with the predictions it was counted from.

    Attributes:
        folder: of its files.
        results: what was scored.
        predictions: every answer.
    """

    folder: Path
    results: Results
    predictions: Predictions


@dataclass(frozen=True)
class Difference:
    """What two runs differ by in one row and score of the table.

    Attributes:
        row: of the table.
        score: its name.
        first: value of the first run, None if it does not answer.
        second: value of the second.
        interval: of ``second - first``, both ends; None where it is not defined.
        only_first: utterances that only the first run gets right; None for rows of several conditions, whose answers
            depend on each other, and for a regression.
        only_second: those that only the second gets right.
        p: of McNemar's exact test of these two counts.
    """

    row: str
    score: str
    first: float | None
    second: float | None
    interval: tuple[float, float] | None
    only_first: int | None = None
    only_second: int | None = None
    p: float | None = None

    @property
    def difference(self) -> float | None:
        """``second - first``."""
        return None if self.first is None or self.second is None else self.second - self.first

    def columns(self) -> dict[str, Any]:
        """All values by column name, as in files."""
        low, high = self.interval or (None, None)
        return {
            "condition": self.row,
            "score": self.score,
            "first": self.first,
            "second": self.second,
            "difference": self.difference,
            "low": low,
            "high": high,
            "only_first_right": self.only_first,
            "only_second_right": self.only_second,
            "mcnemar_p": self.p,
        }


def read_scored(folder: Path) -> Scored:
    """Read what a fit, a test or a validation left in a folder.

    Raises:
        InputError: it left nothing, no predictions, or something was edited.
    """
    if not folder.is_dir():
        raise InputError(f"{printable(folder)}: no such folder; name one that fit or test wrote.")
    validation = not (folder / runs.METRICS).exists() and (folder / f"val_{runs.METRICS}").exists()
    prefix = "val_" if validation else ""
    results = read_result(folder / f"{prefix}{runs.METRICS}")
    path = folder / f"{prefix}predictions.csv"
    if not path.exists():
        raise InputError(
            f"{printable(path)}: not there, as of a fit before 0.2 or with --test false; test the run's checkpoint, "
            "and compare the folder of that."
        )
    predictions = read_predictions(path, results.task)
    check_agree(results, predictions, path)
    return Scored(folder, results, predictions)


def check_comparable(first: Scored, second: Scored) -> None:
    """Refuse two runs that were not scored on the same utterances.

    Raises:
        InputError: naming what differs.
    """
    left, right = first.results, second.results
    facts = {
        "corpus": (left.corpus, right.corpus),
        "fold": (left.fold, right.fold),
        "split": (left.split, right.split),
        "task": (left.task.spec(), right.task.spec()),
        "classes": (left.task.class_names, right.task.class_names),
        "data fingerprint": (left.record.get("data_fingerprint"), right.record.get("data_fingerprint")),
    }
    for what, (one, other) in facts.items():
        if one != other:
            raise InputError(
                f"{printable(first.folder)} and {printable(second.folder)}: the {what} differs "
                f"({printable(one, 60)}, {printable(other, 60)}); compare two runs scored on the same data."
            )
    labels = [_labels(scored.predictions) for scored in (first, second)]
    if labels[0] != labels[1]:
        differing = sorted(dict(labels[0].items() ^ labels[1].items()))[0]
        raise InputError(
            f"{printable(first.folder)} and {printable(second.folder)}: utterance {printable(differing)} is not in "
            "both with the same label; compare two runs scored on the same utterances."
        )


def compare(first: Scored, second: Scored) -> list[Difference]:
    """Compare two runs in every row and score that both answer.

    The intervals are of a paired bootstrap: an utterance is drawn for both runs and under all conditions at once.
    McNemar's test asks whether as many utterances are right in the first run alone as in the second alone.

    Raises:
        InputError: see :func:`check_comparable`; or there is only one utterance.
    """
    check_comparable(first, second)
    task = first.results.task
    names, counts = utterance_counts(first.predictions)
    others, other_counts = utterance_counts(second.predictions)
    if len(names) < 2:
        raise InputError(f"{printable(first.folder)}: a single utterance; nothing can be compared.")
    place = {name: position for position, name in enumerate(others)}
    pair = torch.stack([counts, other_counts[[place[name] for name in names]]], dim=1)
    ends = percentiles(task, pair, lambda drawn: table_scores(task, drawn[:, 1]) - table_scores(task, drawn[:, 0]))
    left, right = first.results.scores(), second.results.scores()
    differences = []
    for row in SUMMARY_ROWS:
        mcnemar = _mcnemar(pair[:, :, CONDITIONS.index(row)]) if row in CONDITIONS and task.class_names else {}
        for name in (score.name for score in task.scores):
            one, other = left[row][name], right[row][name]
            if one is None or other is None:
                differences.append(Difference(row, name, one, other, None))
            else:
                differences.append(Difference(row, name, one, other, ends[row][name], **mcnemar))
    return differences


def _mcnemar(confusion: Tensor) -> dict[str, Any]:
    """Counts and p of single utterances' confusion matrices [N, 2, C, C]."""
    from scipy.stats import binomtest

    right = confusion.diagonal(dim1=-2, dim2=-1).sum(-1) > 0
    only_first = int((right[:, 0] & ~right[:, 1]).sum())
    only_second = int((right[:, 1] & ~right[:, 0]).sum())
    discordant = only_first + only_second
    p = float(binomtest(only_first, discordant).pvalue) if discordant else 1.0
    return {"only_first": only_first, "only_second": only_second, "p": p}


def _labels(predictions: Predictions) -> dict[str, float | None]:
    """Label of each utterance, None where it is unknown: NaN is not equal to itself."""
    labels = torch.as_tensor(predictions.labels).tolist()
    return {name: label if label == label else None for name, label in zip(predictions.utterances, labels, strict=True)}
