"""Reads an offline Weights & Biases run back from disk, without a network and without an account."""

from __future__ import annotations

import json
import struct
import time
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypedDict

from wandb.proto import wandb_internal_pb2 as protocol

# A .wandb file is a LevelDB log behind a header of seven bytes: blocks of 32 KiB that hold chunks,
# each a CRC-32, a length and a type; a record is one full chunk, or a first, middle ones and a last.
_HEADER_SIZE = 7
_BLOCK = 32768
_CHUNK = struct.Struct("<IHB")
_FULL, _LAST = 1, 4


class OfflineRun(TypedDict):
    """What a run logged: ``files`` relative to its ``files`` folder, ``artifacts`` the files in each by its name."""

    group: str
    job_type: str
    config: dict[str, Any]
    history: list[dict[str, Any]]
    summary: dict[str, Any]
    files: list[str]
    artifacts: dict[str, list[str]]


def read_offline_run(folder: str | Path, timeout: float = 30.0) -> OfflineRun:
    """Read the one offline run in ``folder`` or below it, once it is written to its end.

    Nested keys come back as nested dicts; a key with slashes, such as ``test/pooled/UA``, stays one key.
    Tables and images come back as W&B's references, with ``path`` relative to the run's ``files`` folder.

    Raises:
        TimeoutError: the run was not finished within ``timeout`` seconds.
    """
    (path,) = {found.resolve() for found in Path(folder).rglob("run-*.wandb")}
    run = OfflineRun(group="", job_type="", config={}, history=[], summary={}, files=[], artifacts={})
    for record in _finished_records(path, timeout):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run["group"], run["job_type"] = record.run.run_group, record.run.job_type
            _apply(run["config"], record.run.config)
            _apply(run["summary"], record.run.summary)
        elif kind == "config":
            _apply(run["config"], record.config)
        elif kind == "summary":
            _apply(run["summary"], record.summary)
        elif kind == "artifact":
            run["artifacts"][record.artifact.name] = sorted(entry.path for entry in record.artifact.manifest.contents)
        elif kind == "history":
            step: dict[str, Any] = {}
            _update(step, record.history.item)
            run["history"].append(step)
    run["config"].pop("_wandb", None)
    files = path.parent / "files"
    run["files"] = sorted(str(file.relative_to(files)) for file in files.rglob("*") if file.is_file())
    return run


def _finished_records(path: Path, timeout: float) -> list[Any]:
    """All records, after the last one, ``exit``, is there: ``wandb.finish`` returns before it is on disk."""
    deadline = time.monotonic() + timeout
    while True:
        records = [protocol.Record.FromString(content) for content in _contents(path.read_bytes())]  # type: ignore[attr-defined]
        if any(record.WhichOneof("record_type") == "exit" for record in records):
            return records
        if time.monotonic() > deadline:
            raise TimeoutError(f"{path} has no end; was wandb.finish() called?")
        time.sleep(0.05)


def _contents(data: bytes) -> Iterator[bytes]:
    """The whole records of a log, as bytes; what is still being written at its end is left out."""
    position, parts = _HEADER_SIZE, b""
    while position + _CHUNK.size <= len(data):
        left = _BLOCK - position % _BLOCK
        if left < _CHUNK.size:  # too small for a chunk: filled with zeros
            position += left
            continue
        checksum, length, kind = _CHUNK.unpack_from(data, position)
        start = position + _CHUNK.size
        position = start + length
        chunk = data[start:position]
        if len(chunk) < length:
            return
        assert checksum == zlib.crc32(chunk, zlib.crc32(bytes([kind]))), f"damaged at byte {start}"
        parts += chunk
        if kind in (_FULL, _LAST):
            yield parts
            parts = b""


def _apply(target: dict[str, Any], change: Any) -> None:
    """A config or summary record: updates and removals."""
    _update(target, change.update)
    for item in change.remove:
        *outer, last = item.nested_key or [item.key]
        inner = target
        for key in outer:
            inner = inner.get(key, {})
        inner.pop(last, None)


def _update(target: dict[str, Any], items: Iterable[Any]) -> None:
    """Set each item's JSON value under its key or its nested keys."""
    for item in items:
        *outer, last = item.nested_key or [item.key]
        inner = target
        for key in outer:
            inner = inner.setdefault(key, {})
        inner[last] = json.loads(item.value_json)
