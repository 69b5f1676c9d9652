"""Reading results back: what a person may have edited is checked before it is believed."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from datamodules.conditions import CONDITIONS, MODALITIES
from datamodules.errors import InputError
from datamodules.text import from_csv_cell, printable
from ifmmin.results.files import from_json, table_json
from ifmmin.results.predictions import Predictions
from ifmmin.results.results import Results
from ifmmin.results.uncertainty import utterance_counts
from ifmmin.tasks import Task

LARGEST = 2**30
"""Bytes of a file that are read; ours have some 100 an utterance and condition."""

_DISAGREE = 1 / 500  # of the counts: two logits may round to one probability


def read_result(path: Path) -> Results:
    """Read a ``metrics.json``.

    Raises:
        InputError: there is none, it is damaged, or its values do not fit together.
    """
    try:
        written = json.loads(_text(path))
        return _checked(written)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError, InputError) as error:
        if isinstance(error, InputError) and str(error).startswith(str(path)):
            raise
        why = "nested too deep" if isinstance(error, RecursionError) else f"{type(error).__name__}: {error}"
        raise InputError(
            f"{printable(path)}: not what a fit or a test writes ({printable(why)}); take another copy."
        ) from error


def read_predictions(path: Path, task: Task) -> Predictions:
    """Read a ``predictions.csv``; columns behind the label are a model's further values.

    Raises:
        InputError: it is not there, damaged, or has values that no model gives.
    """
    heading = [
        "utterance",
        "condition",
        *MODALITIES,
        *(f"p_{name}" for name in task.class_names),
        "prediction",
        "label",
    ]
    lines = csv.reader(_text(path).splitlines(keepends=True), strict=True)
    utterances: list[str] = []
    conditions: list[int] = []
    answers: list[list[float]] = []
    labels: list[float] = []
    values: list[list[float]] = []
    number, width = 1, len(heading)
    try:
        found = [from_csv_cell(cell) for cell in next(lines, [])]
        if found[:width] != heading or len({*found}) < len(found):
            raise ValueError(f"its columns are not {', '.join(heading)}")
        for cells in lines:
            number += 1
            if len(cells) != len(found):
                raise ValueError(f"{len(cells)} cells, not {len(found)}")
            utterances.append(from_csv_cell(cells[0]))
            conditions.append(_place(cells[1], CONDITIONS, "condition"))
            answers.append(_answer(task, cells[5 : width - 1]))
            labels.append(_label(task, cells[width - 1]))
            values.append([_finite(cell) if cell else math.nan for cell in cells[width:]])
    except (ValueError, csv.Error) as error:
        raise InputError(
            f"{printable(path)}: row {number}: {printable(error)}; it was edited or is damaged, take another copy."
        ) from error
    if not utterances:
        raise InputError(f"{printable(path)}: no predictions in it; take another copy.")
    return Predictions(
        task,
        utterances,
        np.array(conditions, dtype=np.int64),
        np.array(answers, dtype=np.float32),
        np.array(labels, dtype=np.int64 if task.class_names else np.float32),
        dict(zip(found[width:], np.array(values, dtype=np.float32).T, strict=True)),
    )


def check_agree(results: Results, predictions: Predictions, path: Path) -> None:
    """Refuse predictions that are not those of a result, or have an utterance twice or under two labels.

    Raises:
        InputError: naming the file and, if there is one, the utterance.
    """
    shown = printable(path)
    seen: set[tuple[str, int]] = set()
    known: dict[str, float] = {}
    conditions, labels = np.asarray(predictions.conditions).tolist(), np.asarray(predictions.labels).tolist()
    for name, condition, label in zip(predictions.utterances, conditions, labels, strict=True):
        if (name, condition) in seen:
            raise InputError(
                f"{shown}: utterance {printable(name)} is there twice under {CONDITIONS[condition]}; take another copy."
            )
        seen.add((name, condition))
        before = known.setdefault(name, label)
        if before != label and not (math.isnan(before) and math.isnan(label)):
            raise InputError(f"{shown}: utterance {printable(name)} has two labels; take another copy.")
    counts = utterance_counts(predictions)[1].sum(0)
    same_number = torch.equal(results.task.number(counts), results.task.number(results.counts))
    matrices = results.task.matrix(counts), results.task.matrix(results.counts)
    differing = int((matrices[0] - matrices[1]).abs().sum())
    if not same_number or differing > _DISAGREE * int(matrices[1].sum()):
        raise InputError(f"{shown}: does not agree with the metrics beside it; take another copy of both.")


def _text(path: Path) -> str:
    shown = printable(path)
    try:
        if not path.is_file():  # opening a FIFO would wait for ever
            raise InputError(f"{shown}: there is no such file; name a folder that fit or test wrote.")
        if path.stat().st_size > LARGEST:
            raise InputError(f"{shown}: larger than {LARGEST} bytes, which no result is; take another copy.")
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{shown}: not UTF-8 text; take another copy.") from error


def _checked(written: Any) -> Results:
    """Results whose values have the right kinds and follow from their counts."""
    if not isinstance(written, dict):
        raise TypeError("not an object")
    _check_kinds(written, {"model": str, "corpus": str, "split": str, "fold": int, "seed": int, "record": dict})
    if written["split"] not in ("test", "val"):
        raise ValueError(f"split {written['split']}")
    if written.get("trained_on") is not None:
        _check_kinds(written["trained_on"], {"corpus": str, "fold": int, "seed": int})
    results = from_json(written)
    counts, shape = results.counts, (len(CONDITIONS), *results.task.shape)
    if counts.shape != shape or not bool(counts.isfinite().all()) or bool((results.task.matrix(counts) < 0).any()):
        raise ValueError(f"{results.task.counts_key} are not counts {list(shape)}")
    own = table_json(results)
    for row, columns in own.items():
        for score in results.task.scores:
            value, stated = columns[score.name], written["metrics"][row][score.name]
            if value != stated and (None in (value, stated) or not math.isclose(value, stated, abs_tol=1e-6)):
                raise ValueError(f"{score.name} of {row} is not what its {results.task.counts_key} give")
    return results


def _check_kinds(values: Any, kinds: Mapping[str, type]) -> None:
    for name, kind in kinds.items():
        if not isinstance(values[name], kind) or isinstance(values[name], bool):
            raise TypeError(f"{name} is no {kind.__name__}")


def _answer(task: Task, cells: Iterable[str]) -> list[float]:
    """Values of one answer, of the cells between the modalities and the label."""
    *shares, prediction = cells
    if not task.class_names:
        return [_finite(prediction)]
    values = [_finite(cell) for cell in shares]
    if min(values) < 0 or abs(sum(values) - 1) > 1e-3:
        raise ValueError("its probabilities do not add up to 1")
    if from_csv_cell(prediction) != task.class_names[values.index(max(values))]:
        raise ValueError(f"prediction {prediction} is not the most probable class")
    return values


def _label(task: Task, cell: str) -> float:
    if not task.class_names:
        value = _finite(cell) if cell else math.nan
        low, high = task.spec()["low"], task.spec()["high"]
        if not math.isnan(value) and not low <= value <= high:
            raise ValueError(f"label {cell} is outside {low}..{high}")
        return value
    return _place(from_csv_cell(cell), task.class_names, "label") if cell else -1


def _place(name: str, names: Sequence[str], what: str) -> int:
    if name not in names:
        raise ValueError(f"{what} {name} is none of {', '.join(names)}")
    return names.index(name)


def _finite(cell: str) -> float:
    value = float(cell)
    if not math.isfinite(value):
        raise ValueError(f"{cell} is not finite")
    return value
