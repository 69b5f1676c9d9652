"""The board's memory: one JSON object a line, only ever appended, readable after a kill at any byte."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from datamodules.errors import InputError
from ifmmin.tasks import Task, task_of

RECORDS = "records.jsonl"
"""Name of the file in a board's folder."""

Key = tuple[str, int, int]
"""Place on a board: model, fold and seed."""


@dataclass(frozen=True)
class Record:
    """One finished run of a board.

    Attributes:
        model: the class name of the model.
        corpus: the name of the corpus.
        is_synthetic: whether it is the built-in corpus.
        fold: from 1.
        seed: of the run.
        split: that was scored, ``"test"``.
        metrics: by row of the table, scores by name; None if not answered.
        class_names: in label order, empty for a regression.
        task: what was predicted.
        counts: the task's counts by condition.
        sweep: the task's counts by missing rate; empty if not every condition is answered.
        monitor: the score that selected the best epoch.
        identity: what the result depends on, see :mod:`benchmarks.leaderboard.identity`.
        parameters: number of trained parameters.
        wall_time_s: seconds of the run.
        date: of its end, ISO 8601.
        run: its folder, relative to the board's.
        checkpoint: of its best epoch, relative to the board's folder.
        stage1: folder of the stage 1 it started from, relative to the board's.
        versions: of Python and packages.
        commit: of the checkout.
        dirty: whether tracked files differed from it.
        platform: of the machine.
        devices: processes that trained.
    """

    model: str
    corpus: str
    is_synthetic: bool
    fold: int
    seed: int
    split: str
    metrics: Mapping[str, Mapping[str, float | None]]
    class_names: tuple[str, ...]
    task: Task
    counts: Mapping[str, list[Any]]
    sweep: Mapping[str, list[Any]]
    monitor: str
    identity: Mapping[str, Any]
    parameters: int
    wall_time_s: float
    date: str
    run: str
    checkpoint: str
    stage1: str | None = None
    versions: Mapping[str, str | None] = field(default_factory=dict)
    commit: str | None = None
    dirty: bool | None = None
    platform: str | None = None
    devices: int | None = None

    @property
    def key(self) -> Key:
        """Place on the board."""
        return self.model, self.fold, self.seed

    def to_json(self) -> dict[str, Any]:
        """Plain values of a line of ``records.jsonl``."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        task, counts = values.pop("task"), values.pop("counts")
        return {**values, "class_names": list(self.class_names), "task": task.spec(), task.counts_key: counts}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Record:
        """Read what :meth:`to_json` gave; a line without ``"task"`` (up to 0.1.0) is a classification.

        Raises:
            KeyError: a field is missing.
            TypeError: a field is of another kind.
            InputError: the task is unknown.
        """
        task = task_of(values.get("task"), values["class_names"])
        known = {each.name: values[each.name] for each in fields(cls) if each.name in values}
        known |= {"task": task, "counts": values[task.counts_key], "class_names": tuple(values["class_names"])}
        return cls(**known)


def read_lines(path: str | Path) -> tuple[list[Record], list[int]]:
    """Read all whole records, and the numbers (from 1) of lines that are none, most often cut short by a kill.

    A prefix of a JSON object is never one itself, so a cut line cannot be mistaken for a record.

    Args:
        path: of a ``records.jsonl``; without one, nothing has been recorded.
    """
    path = Path(path)
    records: list[Record] = []
    torn: list[int] = []
    for number, line in enumerate(path.read_bytes().split(b"\n") if path.is_file() else [], start=1):
        if not line.strip():
            continue
        try:
            records.append(Record.from_json(json.loads(line)))
        except (ValueError, KeyError, TypeError, AttributeError, InputError):
            torn.append(number)
    return records, torn


def read_records(path: str | Path) -> list[Record]:
    """Read all whole records of a ``records.jsonl``, of whatever code, configuration or data."""
    return read_lines(path)[0]


def latest(records: Sequence[Record]) -> list[Record]:
    """Keep of each model the records like its last one: same code, configuration and versions, on the same data.

    Whoever reads a board without running it has no other way to know which of its records belong together.
    """
    data = {record.fold: record.identity["data"] for record in records}
    last = {record.model: record for record in records}
    kept: dict[Key, Record] = {}
    for record in records:
        newest = last[record.model].identity
        same = all(record.identity[name] == newest[name] for name in record.identity.keys() - {"data"})
        if same and record.identity["data"] == data[record.fold]:
            kept[record.key] = record
    return list(kept.values())


def append(path: str | Path, record: Record) -> None:
    """Add one record, on disk when this returns.

    Raises:
        OSError: the disk is full or the file cannot be written; what was in it stays.
    """
    line = json.dumps(record.to_json(), allow_nan=False).encode() + b"\n"
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as file:
        size = file.seek(0, os.SEEK_END)
        if size:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":  # the last writer was killed: its line must not swallow this one
                line = b"\n" + line
        file.write(line)
        file.flush()
        os.fsync(file.fileno())
