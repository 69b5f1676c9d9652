"""A result by class and by speaker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text
from torch import Tensor

from datamodules.conditions import COMPLETE
from datamodules.text import printable
from ifmmin.results.results import Results
from ifmmin.results.uncertainty import add_up
from ifmmin.tasks import SUMMARY_ROWS, Score, Task

_SHOWN = 12  # speakers on a terminal; the file has all

_SHARE = Score("share")


def class_rows(results: Results) -> list[dict[str, Any]]:
    """Recall, precision and F1 of each class under each condition and pooled; no rows of a regression.

    ``n`` is the number of utterances of the class, counted once under each condition that is pooled. A value without
    anything to divide by is None.
    """
    if not results.task.class_names:
        return []
    matrices = results.matrices()
    rows = []
    for condition in SUMMARY_ROWS:
        if condition not in matrices or not bool(matrices[condition].any()):
            continue
        matrix = matrices[condition]
        for place, name in enumerate(results.task.class_names):
            right = int(matrix[place, place])
            true, predicted = int(matrix[place].sum()), int(matrix[:, place].sum())
            rows.append(
                {
                    "condition": condition,
                    "class": name,
                    "recall": _ratio(right, true),
                    "precision": _ratio(right, predicted),
                    "F1": _ratio(2 * right, true + predicted),
                    "n": true,
                }
            )
    return rows


def speaker_rows(task: Task, counts: Tensor, groups: Sequence[str]) -> list[dict[str, Any]]:
    """The table of each speaker alone.

    Args:
        task: what was predicted.
        counts: ``[N, 7, *shape]`` of each utterance.
        groups: speaker of each utterance.
    """
    names, summed = add_up(counts, groups)
    rows = []
    for name, of_speaker, utterances in zip(names, summed, [groups.count(name) for name in names], strict=True):
        for condition, scores in task.summarise(of_speaker).items():
            if any(value is not None for value in scores.values()):
                rows.append({"speaker": name, "condition": condition, **scores, "utterances": utterances})
    return rows


def class_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """The classes for a terminal, pooled and under the complete condition."""
    table = Table("class")
    shown = [name for name in ("pooled", COMPLETE) if any(row["condition"] == name for row in rows)]
    for name in shown:
        for column in ("recall", "precision", "F1"):
            table.add_column(Text(f"{column}\n{_short(name)}"), justify="right")
    table.add_column("n", justify="right")
    by_class: dict[str, dict[str, Mapping[str, Any]]] = {}
    for row in rows:
        by_class.setdefault(row["class"], {})[row["condition"]] = row
    for name, of_class in by_class.items():
        cells = [_SHARE.format(of_class[row][column]) for row in shown for column in ("recall", "precision", "F1")]
        count = of_class[shown[-1]]["n"] if shown else 0
        table.add_row(Text(printable(name, 24)), *cells, str(count))
    return table


def speaker_table(task: Task, rows: Sequence[Mapping[str, Any]]) -> Table:
    """The first twelve speakers for a terminal, pooled and under the complete condition, by the first two scores."""
    shown = [name for name in ("pooled", COMPLETE) if any(row["condition"] == name for row in rows)]
    scores = task.scores[:2]
    table = Table("speaker")
    for name in shown:
        for score in scores:
            table.add_column(Text(f"{score.name}\n{_short(name)}"), justify="right")
    table.add_column("n", justify="right")
    by_speaker: dict[str, dict[str, Mapping[str, Any]]] = {}
    for row in rows:
        by_speaker.setdefault(row["speaker"], {})[row["condition"]] = row
    for name, of_speaker in list(by_speaker.items())[:_SHOWN]:
        cells = [score.format(of_speaker.get(row, {}).get(score.name)) for row in shown for score in scores]
        count = next(iter(of_speaker.values()))["utterances"]
        table.add_row(Text(printable(name, 24)), *cells, str(count))
    if len(by_speaker) > _SHOWN:
        table.caption = Text(f"and {len(by_speaker) - _SHOWN} more in per_speaker.csv")
    return table


def _short(row: str) -> str:
    return "full" if row == COMPLETE else row


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None
