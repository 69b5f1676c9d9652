"""The board's memory: one JSON object a line, only ever appended, readable after a kill at any byte."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from datamodules.errors import InputError

Record = dict[str, Any]

RECORDS = "records.jsonl"
"""Name of the file in a board's folder."""


def read_lines(path: str | Path) -> tuple[list[Record], list[int]]:
    """All whole records, and the numbers (from 1) of lines that a kill cut short.

    A prefix of a JSON object is never one itself, so a cut line cannot be mistaken for a record.

    Args:
        path: of a ``records.jsonl``; where there is none, nothing has been recorded.
    """
    path = Path(path)
    records: list[Record] = []
    torn: list[int] = []
    for number, line in enumerate(path.read_bytes().split(b"\n") if path.is_file() else [], start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError:
            torn.append(number)
            continue
        if isinstance(record, dict) and {"model", "fold", "seed", "identity"} <= record.keys():
            records.append(record)
        else:
            torn.append(number)
    return records, torn


def read_records(path: str | Path) -> list[Record]:
    """All whole records of a ``records.jsonl``, of whatever code, configuration or data."""
    return read_lines(path)[0]


def latest(records: Sequence[Record]) -> list[Record]:
    """Of each model, the records like its last one: of the same code, configuration and versions, on the same data.

    Whoever reads a board without running it has no other way to know which of its records belong together.
    """
    data = {record["fold"]: record["identity"]["data"] for record in records}
    last = {record["model"]: record for record in records}
    kept: dict[tuple[str, int, int], Record] = {}
    for record in records:
        same = all(
            record["identity"][name] == last[record["model"]]["identity"][name]
            for name in record["identity"].keys() - {"data"}
        )
        if same and record["identity"]["data"] == data[record["fold"]]:
            kept[record["model"], record["fold"], record["seed"]] = record
    return list(kept.values())


def append(path: str | Path, record: Mapping[str, Any]) -> None:
    """Add one record, on disk when this returns.

    Raises:
        OSError: the disk is full or the file cannot be written; what was in it stays.
    """
    line = json.dumps(record, allow_nan=False).encode() + b"\n"
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


@contextmanager
def locked(board: Path) -> Iterator[None]:
    """Hold the board alone, so that no run is done twice.

    The operating system lets go of it however this process ends.

    Raises:
        InputError: another process holds it.
    """
    board.mkdir(parents=True, exist_ok=True)
    with (board / ".lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise InputError(f"{board}: process {holder} is working on this board; wait for it, or stop it.") from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
