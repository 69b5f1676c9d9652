"""Prediction files: one row per utterance and condition, as CSV or Parquet."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from datamodules.conditions import CONDITION_TABLE, CONDITIONS, MODALITIES
from datamodules.errors import InputError
from datamodules.files import atomic_path
from datamodules.text import printable
from ifmmin.results.csv_files import safe, write_rows
from ifmmin.tasks import Task

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


@dataclass(frozen=True)
class Predictions:
    """Answers of a model for R pairs of utterance and condition.

    Attributes:
        task: what was predicted.
        utterances: R utterance ids.
        conditions: int [R], positions in :data:`~datamodules.conditions.CONDITIONS`.
        answers: [R, P], as :meth:`~ifmmin.tasks.Task.answers` gives them.
        labels: [R], -1 or NaN where unknown.
        values: further numbers [R] by column name, of a model that gives them
            (:meth:`~ifmmin.base.MissingModalityModule.row_values`); NaN where one does not apply.
        abstain_below: no class is predicted where none is as probable; None: one always is.
    """

    task: Task
    utterances: Sequence[str]
    conditions: Tensor | Array
    answers: Tensor | Array
    labels: Tensor | Array
    values: Mapping[str, Tensor | Array] = field(default_factory=dict)
    abstain_below: float | None = None

    def write(self, path: str | Path) -> None:
        """Write the whole file or none.

        The columns are ``utterance``; ``condition``, one of the seven; ``audio``, ``visual``, ``text``, 1 if the
        prediction saw that modality and 0 if not. Of a classification, then ``p_<class>`` per class, float32 with
        nine significant digits in CSV, so that it reads back bit for bit; ``prediction``, the name of the most
        probable class; ``label``, the name of the true one. Of a regression, ``prediction`` and ``label`` are values.
        An unknown label is empty, in Parquet null. With :attr:`abstain_below`, ``prediction`` is empty and
        ``abstained`` 1 where no class is as probable. Further :attr:`values` come last, float32. A name in CSV that a
        spreadsheet would run gets an apostrophe (:func:`~datamodules.text.csv_cell`).

        Args:
            path: ends in ``.csv`` or ``.parquet``; its folder is made.

        Raises:
            InputError: see :func:`check_predictions_path`; or an answer is NaN or infinite, or a value infinite.
            ValueError: the lengths of the columns disagree, or two columns have one name.
            OSError: the folder cannot be written or the disk is full.
        """
        check_predictions_path(path)
        columns = self._columns(path)
        with atomic_path(path) as temporary:
            if Path(path).suffix.lower() == ".csv":
                _write_csv(temporary, columns)
            else:
                _write_parquet(temporary, columns)

    def _columns(self, path: str | Path) -> dict[str, Array]:
        """All columns by name; unknown labels are None or NaN."""
        condition, label = _array(self.conditions), _array(self.labels)
        answers = _array(self.answers).astype(np.float32)
        self._check(path, condition, answers, label)
        seen = CONDITION_TABLE.numpy().astype(np.int8)[condition]
        columns = {
            "utterance": np.array(self.utterances, dtype=object),
            "condition": np.array(CONDITIONS, dtype=object)[condition],
            **dict(zip(MODALITIES, seen.T, strict=True)),
        }
        if self.task.class_names:
            names = np.array([*self.task.class_names, None], dtype=object)  # the label -1 takes the last
            columns |= {f"p_{name}": column for name, column in zip(self.task.class_names, answers.T, strict=True)}
            predicted = answers.argmax(axis=1)
            abstained = np.zeros(len(answers), dtype=np.int8)
            if self.abstain_below is not None:
                abstained[answers.max(axis=1).astype(np.float64) < self.abstain_below] = 1
            columns |= {"prediction": names[np.where(abstained, -1, predicted)], "label": names[label]}
            columns |= {} if self.abstain_below is None else {"abstained": abstained}
        else:
            columns |= {"prediction": answers[:, 0], "label": label.astype(np.float32)}
        if taken := columns.keys() & self.values.keys():
            raise ValueError(f"a further value is called {min(taken)}, like another column")
        return columns | self._further(path)

    def _further(self, path: str | Path) -> dict[str, Array]:
        """Columns of :attr:`values`, float32."""
        columns = {name: _array(values).astype(np.float32) for name, values in self.values.items()}
        for name, column in columns.items():
            if column.shape != (len(self.utterances),):
                raise ValueError(f"{len(self.utterances)} utterances do not fit {name} {column.shape}")
            if np.isinf(column).any():
                shown = printable(self.utterances[int(np.isinf(column).argmax())])
                raise InputError(f"{path}: {printable(name)} of utterance {shown} is infinite; check its features.")
        return columns

    def _check(self, path: str | Path, condition: Array, answers: Array, label: Array) -> None:
        """Refuse columns that do not fit together, and answers that are not finite."""
        rows, width = len(self.utterances), self.task.outputs
        if answers.shape != (rows, width) or condition.shape != (rows,) or label.shape != (rows,):
            raise ValueError(
                f"{rows} utterances and {width} outputs do not fit conditions {condition.shape}, "
                f"answers {answers.shape} and labels {label.shape}"
            )
        classes = len(self.task.class_names)
        # Negative positions would count from the end and name the wrong class.
        valid = ((condition >= 0) & (condition < len(CONDITIONS))).all()
        if not (valid and (not classes or ((label >= -1) & (label < classes)).all())):
            raise ValueError(f"a condition or a label is outside its range ({classes} classes)")
        finite = np.isfinite(answers).all(axis=1)
        if not finite.all():
            row = int(finite.argmin())
            name = printable(self.utterances[row])
            raise InputError(
                f"{path}: utterance {name} gets an answer that is not finite under condition "
                f"{CONDITIONS[condition[row]]}; check its features for NaN, and whether the checkpoint's training "
                "diverged."
            )


def _array(values: Tensor | Array) -> Array:
    """Values as NumPy has them, from whatever device; NumPy has no bfloat16."""
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        return (values.float() if values.is_floating_point() else values).numpy()
    return np.asarray(values)


def _write_csv(path: Path, columns: dict[str, Array]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        write_rows(file, [safe(columns)])
        for start in range(0, len(columns["utterance"]), _CHUNK):
            parts = (_cells(column[start : start + _CHUNK]) for column in columns.values())
            write_rows(file, zip(*parts, strict=True))


def _cells(column: Array) -> list[Any]:
    """Cells of a CSV column; unknown values are empty."""
    if column.dtype.kind != "f":
        return safe(column.tolist())
    return ["" if value != value else f"{value:.9g}" for value in column.tolist()]


def _write_parquet(path: Path, columns: dict[str, Array]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    def array(column: Array) -> Any:
        # from_pandas: NaN, which an unknown label may be and a further value, becomes null.
        return pa.array(column, pa.string() if column.dtype == object else None, from_pandas=True)

    parquet.write_table(pa.table({name: array(column) for name, column in columns.items()}), path)
