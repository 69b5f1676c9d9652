"""The files of a result: ``metrics.json``, CSV and the confusion matrices."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from datamodules.conditions import CONDITIONS
from datamodules.files import atomic_path, write_text
from ifmmin.results.figures import confusion_figure
from ifmmin.results.results import Results, Row


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
    """All of ``results`` as JSON knows it; metrics in [0, 1], None where there is no number."""
    return {
        "model": results.model,
        "corpus": results.corpus,
        "is_synthetic": results.is_synthetic,
        "fold": results.fold,
        "seed": results.seed,
        "split": results.split,
        "metrics": {values.pop("condition"): values for values in map(asdict, results.rows())},
        "class_names": list(results.class_names),
        "confusion": dict(zip(CONDITIONS, results.confusion.tolist(), strict=True)),
        "record": _plain(results.record),
    }


def _plain(value: Any) -> Any:
    """``value`` out of dicts, lists, strings and finite numbers; what is neither is written as text."""
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
    text = io.StringIO()
    writer = csv.DictWriter(text, [column.name for column in fields(Row)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in results.rows())
    return text.getvalue()
