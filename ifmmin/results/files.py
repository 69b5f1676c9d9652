"""Files of a result: the confusion matrices, CSV and ``metrics.json``."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from datamodules.conditions import CONDITIONS
from datamodules.files import atomic_path, write_text
from ifmmin.results.calibration import check_calibration
from ifmmin.results.csv_files import csv_text
from ifmmin.results.figures import confusion_figure, save_figure
from ifmmin.results.predictions import Predictions
from ifmmin.results.reliability import reliability_figure
from ifmmin.results.results import Results
from ifmmin.results.uncertainty import intervals_from_json
from ifmmin.tasks import task_of


def write_results(
    results: Results,
    folder: str | Path,
    prefix: str = "",
    *,
    predictions: Predictions | None = None,
    tables: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    metrics: str | None = None,
) -> list[Path]:
    """Write the files of a result, each whole or not at all, ``metrics.json`` last: where it is, all are.

    Args:
        results: what to write.
        folder: made if it is not there.
        prefix: put before each of the names, for instance ``"val_"``.
        predictions: written to ``predictions.csv``.
        tables: rows of further CSV files by their names; one without rows is not written.
        metrics: name of ``metrics.json`` where it has no prefix.

    Returns:
        the paths: ``confusion.png``, ``reliability.png`` of predicted probabilities, ``metrics.csv``, those of
        ``tables``, ``predictions.csv`` and ``metrics.json``.

    Raises:
        InputError: a prediction is not finite.
        OSError: the folder cannot be written or the disk is full.
    """
    folder = Path(folder)
    picture = folder / f"{prefix}confusion.png"
    with atomic_path(picture) as temporary:
        save_figure(confusion_figure(results), temporary)
    paths = [picture]
    if predictions is not None and results.calibration is not None:
        paths.append(folder / f"{prefix}reliability.png")
        with atomic_path(paths[-1]) as temporary:
            save_figure(reliability_figure(results, predictions), temporary)
    for name, rows in {"metrics.csv": [row.columns() for row in results.rows()], **(tables or {})}.items():
        if rows:
            paths.append(write_text(folder / f"{prefix}{name}", csv_text(rows)))
    if predictions is not None:
        paths.append(folder / f"{prefix}predictions.csv")
        predictions.write(paths[-1])
    return [*paths, write_json(folder / (metrics or f"{prefix}metrics.json"), as_json(results))]


def write_json(path: Path, values: Mapping[str, Any]) -> Path:
    """Write values, whatever they are, as JSON; the path."""
    return write_text(path, json.dumps(_plain(values), indent=2, allow_nan=False) + "\n")


def as_json(results: Results) -> dict[str, Any]:
    """Turn ``results`` into JSON values; None where there is no number."""
    task = results.task
    return {
        "model": results.model,
        "remarks": list(results.remarks),
        "corpus": results.corpus,
        "is_synthetic": results.is_synthetic,
        "invented": results.invented,
        "fold": results.fold,
        "seed": results.seed,
        "split": results.split,
        "trained_on": _plain(results.trained_on),
        "metrics": table_json(results),
        "intervals": None if results.intervals is None else results.intervals.to_json(),
        "calibration": _plain(results.calibration),
        "validation": _plain(results.validation),
        "monitor": _plain(results.monitor),
        "class_names": list(task.class_names),
        "task": task.spec(),
        task.counts_key: dict(zip(CONDITIONS, results.counts.tolist(), strict=True)),
        "record": _plain(results.record),
    }


def table_json(results: Results) -> dict[str, dict[str, Any]]:
    """The table as JSON values: by row, the value of each column."""
    rows = [row.columns() for row in results.rows()]
    return {row.pop("condition"): row for row in rows}


def from_json(written: Mapping[str, Any]) -> Results:
    """Read what :func:`as_json` gave; a file without ``"task"`` (up to 0.1.0) is a classification.

    Files up to 0.1.0 have neither ``"trained_on"`` nor ``"validation"``, ``"monitor"``, ``"invented"``, ``"intervals"``
    and ``"calibration"``.

    Raises:
        KeyError: a field is missing.
        ValueError: one is outside its range.
    """
    task = task_of(written.get("task"), written["class_names"])
    counts = torch.tensor([written[task.counts_key][condition] for condition in CONDITIONS], dtype=task.counts_dtype)
    names = ("corpus", "is_synthetic", "model", "fold", "seed", "split", "record")
    values = {name: written[name] for name in names}
    values |= {name: written.get(name) for name in ("trained_on", "validation", "monitor", "invented")}
    values["remarks"] = tuple(written.get("remarks") or ())
    if written.get("intervals") is not None:
        values["intervals"] = intervals_from_json(written["intervals"])
    values["calibration"] = check_calibration(written.get("calibration"))
    return Results(task=task, counts=counts, **values)


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
