"""Prediction files: one row per utterance and condition, as CSV or Parquet."""

from __future__ import annotations

import csv
import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from datamodules.conditions import CONDITION_TABLE, CONDITIONS, MODALITIES
from datamodules.errors import InputError
from datamodules.files import atomic_path

Array = npt.NDArray[Any]

# Rows formatted at a time: bounds the memory that their text takes.
_CHUNK = 50_000


def check_predictions_path(path: str | Path) -> None:
    """Refuse a path that cannot be written, before the work of predicting is done.

    Raises:
        InputError: the name ends neither in ``.csv`` nor in ``.parquet``, or it ends in ``.parquet``
            and pyarrow is not installed.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in (".csv", ".parquet"):
        raise InputError(f"{path}: predictions are written as .csv or .parquet; give a name that ends in one of them.")
    if suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise InputError(f'{path}: Parquet needs pyarrow; pip install "ifmmin[parquet]", or give a name in .csv.')


def write_predictions(
    path: str | Path,
    utterances: Sequence[str],
    conditions: Tensor | Array,
    probabilities: Tensor | Array,
    class_names: Sequence[str],
    labels: Tensor | Array,
) -> None:
    """Write R predictions, the whole file or none.

    The columns are ``utterance``; ``condition``, one of the seven; ``audio``, ``visual``, ``text``, 1
    where the prediction saw that modality and 0 where not; a probability ``p_<class>`` per class, as
    float32, with nine significant digits in CSV, so that it reads back bit for bit; ``prediction``, the
    name of the most probable class; ``label``, the name of the true one, empty (in Parquet null) where
    it is not known.

    Args:
        path: ends in ``.csv`` or ``.parquet``; its folder is made if it is not there.
        utterances: R utterance ids.
        conditions: int [R], positions in :data:`~datamodules.conditions.CONDITIONS`.
        probabilities: float [R, C] in [0, 1].
        class_names: C names, in label order.
        labels: int [R], the class, or -1 where it is not known.

    Raises:
        InputError: see :func:`check_predictions_path`; or a probability is NaN or infinite.
        ValueError: the lengths of the arguments disagree.
        OSError: the folder cannot be written or the disk is full.
    """
    check_predictions_path(path)
    condition, label = _array(conditions), _array(labels)
    p = _array(probabilities).astype(np.float32)
    _check(path, utterances, condition, p, class_names, label)
    with atomic_path(path) as temporary:
        write = _write_csv if Path(path).suffix.lower() == ".csv" else _write_parquet
        write(temporary, utterances, condition, p, class_names, label)


def _array(values: Tensor | Array) -> Array:
    """``values`` as NumPy has them, from whatever device; NumPy knows no bfloat16."""
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        return (values.float() if values.is_floating_point() else values).numpy()
    return np.asarray(values)


def _check(
    path: str | Path, utterances: Sequence[str], condition: Array, p: Array, class_names: Sequence[str], label: Array
) -> None:
    """Refuse what does not fit together, and probabilities that are none."""
    rows, classes = len(utterances), len(class_names)
    if p.shape != (rows, classes) or condition.shape != (rows,) or label.shape != (rows,):
        raise ValueError(
            f"{rows} utterances and {classes} classes do not fit conditions {condition.shape}, "
            f"probabilities {p.shape} and labels {label.shape}"
        )
    # Negative positions would count from the end and name the wrong class.
    if not (((condition >= 0) & (condition < len(CONDITIONS))).all() and ((label >= -1) & (label < classes)).all()):
        raise ValueError(f"a condition or a label lies outside its range ({classes} classes)")
    finite = np.isfinite(p).all(axis=1)
    if not finite.all():
        row = int(finite.argmin())
        raise InputError(
            f"{path}: utterance {utterances[row]} gets a probability that is not finite under condition "
            f"{CONDITIONS[condition[row]]}; check its features for NaN, and whether the checkpoint's training diverged."
        )


def _header(class_names: Sequence[str]) -> list[str]:
    """The names of the columns."""
    return ["utterance", "condition", *MODALITIES, *(f"p_{name}" for name in class_names), "prediction", "label"]


def _write_csv(
    path: Path, utterances: Sequence[str], condition: Array, p: Array, class_names: Sequence[str], label: Array
) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_header(class_names))
        for start in range(0, len(utterances), _CHUNK):
            part = slice(start, start + _CHUNK)
            writer.writerows(_csv_rows(utterances[part], condition[part], p[part], class_names, label[part]))


def _csv_rows(
    utterances: Sequence[str], condition: Array, p: Array, class_names: Sequence[str], label: Array
) -> Iterator[tuple[Any, ...]]:
    """The rows, put together column by column."""
    names = np.array([*class_names, ""], dtype=object)  # the label -1 takes the last, empty name
    seen = CONDITION_TABLE.numpy().astype(int)[condition]
    columns = [
        utterances,
        np.array(CONDITIONS, dtype=object)[condition].tolist(),
        *(column.tolist() for column in seen.T),
        *([f"{value:.9g}" for value in column.tolist()] for column in p.T),
        names[p.argmax(axis=1)].tolist(),
        names[label].tolist(),
    ]
    return zip(*columns, strict=True)


def _write_parquet(
    path: Path, utterances: Sequence[str], condition: Array, p: Array, class_names: Sequence[str], label: Array
) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    seen = CONDITION_TABLE.numpy().astype(np.int8)[condition]
    names = pa.array(class_names, pa.string())
    columns = [
        pa.array(utterances, pa.string()),
        pa.array(CONDITIONS).take(pa.array(condition)),
        *(pa.array(column) for column in seen.T),
        *(pa.array(column) for column in p.T),
        names.take(pa.array(p.argmax(axis=1))),
        names.take(pa.array(label, mask=label < 0)),
    ]
    parquet.write_table(pa.table(columns, names=_header(class_names)), path)
