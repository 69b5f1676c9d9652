"""Files of a result: ``metrics.json``, CSV and the confusion matrices."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from datamodules.conditions import CONDITIONS
from datamodules.files import atomic_path, write_text
from ifmmin.results.figures import confusion_figure
from ifmmin.results.results import Results
from ifmmin.tasks import task_of


def write_results(results: Results, folder: str | Path, prefix: str = "") -> list[Path]:
    """Write ``metrics.json``, ``metrics.csv`` and ``confusion.png``, each whole or not at all.

    Args:
        results: what to write.
        folder: made if it is not there.
        prefix: put before each of the three names, for instance ``"val_"``.

    Returns:
        the three paths.

    Raises:
        OSError: the folder cannot be written or the disk is full.
    """
    folder = Path(folder)
    paths = [folder / f"{prefix}{name}" for name in ("metrics.json", "metrics.csv", "confusion.png")]
    write_text(paths[0], json.dumps(as_json(results), indent=2, allow_nan=False) + "\n")
    write_text(paths[1], _csv_text(results))
    with atomic_path(paths[2]) as temporary:
        confusion_figure(results).savefig(temporary)
    return paths


def as_json(results: Results) -> dict[str, Any]:
    """Turn ``results`` into JSON values; None where there is no number."""
    task = results.task
    rows = [row.columns() for row in results.rows()]
    return {
        "model": results.model,
        "corpus": results.corpus,
        "is_synthetic": results.is_synthetic,
        "fold": results.fold,
        "seed": results.seed,
        "split": results.split,
        "metrics": {row.pop("condition"): row for row in rows},
        "class_names": list(task.class_names),
        "task": task.spec(),
        task.counts_key: dict(zip(CONDITIONS, results.counts.tolist(), strict=True)),
        "record": _plain(results.record),
    }


def from_json(written: Mapping[str, Any]) -> Results:
    """Read what :func:`as_json` gave; a file without ``"task"`` (up to 0.1.0) is a classification.

    Raises:
        KeyError: a field is missing.
    """
    task = task_of(written.get("task"), written["class_names"])
    counts = torch.tensor([written[task.counts_key][condition] for condition in CONDITIONS], dtype=task.counts_dtype)
    names = ("corpus", "is_synthetic", "model", "fold", "seed", "split", "record")
    return Results(task=task, counts=counts, **{name: written[name] for name in names})


def _plain(value: Any) -> Any:
    """Turn ``value`` into dicts, lists, strings and finite numbers; other things become text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):  # NumPy's scalars and arrays, and tensors
        return _plain(value.tolist())
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int)):
        return value
    return str(value)


def _csv_text(results: Results) -> str:
    """One line per row of the table."""
    rows = [row.columns() for row in results.rows()]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
