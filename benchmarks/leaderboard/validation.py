"""What a record may hold: types, ranges and shapes, and scores that follow from its counts.

A board's file is plain text that anybody may edit, and another board's file is somebody else's. Messages are phrases
such as ``WA of {a} is 2.0, above 1``: the reader names file and line.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import torch

from datamodules.conditions import CONDITIONS, MODALITIES
from datamodules.errors import InputError
from datamodules.text import has_control, printable
from ifmmin.curves import CURVES
from ifmmin.results import calibration
from ifmmin.results.results import readable
from ifmmin.tasks import SUMMARY_ROWS, Score, Task

SELECTED_TOLERANCE = 1e-4
"""How far the selected score may be from validation's: it was logged in float32."""

LONGEST = 1000
"""Letters of a text; longer ones are no names."""

MOST = 10**12
"""Largest number of utterances, parameters or a seed: sums of a board stay exact in int64."""

MOST_LEVELS = 200
"""Whole numbers on the longest scale."""

TOLERANCE = 1e-6
"""How far scores may be from what their counts give: rounding, not a difference."""


def check_text(what: str, value: object, optional: bool = False) -> None:
    """Refuse what is no printable text of 1 to :data:`LONGEST` letters, or None where it is ``optional``.

    Raises:
        InputError: naming it.
    """
    if value is None and optional:
        return
    if not isinstance(value, str):
        raise InputError(f"{what} is {_shown(value)}, not text")
    if not 0 < len(value) <= LONGEST:
        raise InputError(f"{what} has {len(value)} letters, not 1 to {LONGEST}")
    if has_control(value) or not _encodable(value):
        raise InputError(f"{what} {_shown(value)} holds control characters")


def check_whole(what: str, value: object, low: int = 0, optional: bool = False) -> None:
    """Refuse what is no whole number from ``low`` to :data:`MOST`, or None where it is ``optional``."""
    if value is None and optional:
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise InputError(f"{what} is {_shown(value)}, not a whole number")
    if not low <= value <= MOST:
        raise InputError(f"{what} is {_shown(value)}, {f'below {low}' if value < low else f'above {MOST}'}")


def check_number(what: str, value: object, low: float, high: float) -> None:
    """Refuse what is no finite number from ``low`` to ``high``."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InputError(f"{what} is {_shown(value)}, not a number")
    if not (isinstance(value, int) or math.isfinite(value)):
        raise InputError(f"{what} is {_shown(value)}, not finite")
    high = min(high, MOST)  # of no bound, an int may still be too large for a float
    if not low <= value <= high:
        raise InputError(f"{what} is {_shown(value)}, {f'below {low:g}' if value < low else f'above {high:g}'}")


def check_flag(what: str, value: object, optional: bool = False) -> None:
    """Refuse what is neither true nor false, or None where it is ``optional``."""
    if not (isinstance(value, bool) or (optional and value is None)):
        raise InputError(f"{what} is {_shown(value)}, not true or false")


def check_path(what: str, value: object, optional: bool = False) -> None:
    """Refuse what is no path within the board's folder: its files are read and drawn from."""
    check_text(what, value, optional)
    if isinstance(value, str):
        path = PurePosixPath(value)
        if path.is_absolute() or ".." in path.parts:
            raise InputError(f"{what} {_shown(value)} is outside the board's folder")


def check_date(what: str, value: object) -> None:
    """Refuse what is no ISO 8601 date."""
    check_text(what, value)
    try:
        datetime.fromisoformat(str(value))
    except ValueError:
        raise InputError(f"{what} {_shown(value)} is no ISO 8601 date") from None


def check_names(what: str, value: object) -> None:
    """Refuse what does not map text to text or None, such as versions."""
    for name, text in _items(what, value):
        check_text(f"a name in {what}", name)
        check_text(f"{name} in {what}", text, optional=True)


def check_extraction(value: object) -> None:
    """Refuse what does not map modalities to names of extractors."""
    for modality, name in _items("extraction", value):
        if modality not in MODALITIES:
            raise InputError(f"extraction has {_shown(modality)}, which is no modality")
        check_text(f"{modality} in extraction", name)


def check_identity(value: object, fields: Sequence[str]) -> None:
    """Refuse an identity with other fields than ``fields``, or values that are no text, whole number or names."""
    found = dict(_items("identity", value))
    if found.keys() != set(fields):
        raise InputError(f"identity has {_listed(found)}, not {', '.join(fields)}")
    for name, part in found.items():
        if isinstance(part, Mapping):
            check_names(f"{name} of identity", part)
        elif isinstance(part, int):
            check_whole(f"{name} of identity", part)
        else:
            check_text(f"{name} of identity", part)


def check_task(spec: object) -> None:
    """Refuse a scale that is none, or that has more whole numbers than anybody rates with."""
    scale = dict(_items("task", {} if spec is None else spec))
    check_text("task", scale.get("name", "classification"))
    for end in ("low", "high"):
        if end in scale:
            check_number(f"{end} of task", scale[end], -MOST_LEVELS / 2, MOST_LEVELS / 2)


def check_class_names(value: object) -> None:
    """Refuse names that are no text or that occur twice."""
    if not isinstance(value, (list, tuple)):
        raise InputError(f"class_names is {_shown(value)}, not a list")
    for name in value:
        check_text("a class name", name)
    if len(set(value)) < len(value):
        raise InputError(f"class names {_shown(list(value))} hold one twice")


def check_made_of(value: object, class_names: Sequence[str]) -> None:
    """Refuse what does not give each class the names of those it is made of, unless it is None."""
    if value is None:
        return
    found = dict(_items("made_of", value))
    if found.keys() != {*class_names}:
        raise InputError(f"made_of has {_listed(found)}, not the class names")
    for name, parts in found.items():
        if not isinstance(parts, (list, tuple)) or not parts:
            raise InputError(f"{name} in made_of is {_shown(parts)}, not a list of classes")
        for part in parts:
            check_text(f"a class in {name} of made_of", part)


def check_metrics(what: str, value: object, task: Task) -> None:
    """Refuse rows other than :data:`SUMMARY_ROWS`, and scores that are missing, no numbers or outside their range."""
    rows = dict(_items(what, value))
    if rows.keys() != set(SUMMARY_ROWS):
        raise InputError(f"{what} has the rows {_listed(rows)}, not {', '.join(SUMMARY_ROWS)}")
    allowed = {score.name: _range(score) for score in task.scores}
    allowed[task.limit_column] = _range(task.score(task.limited))
    for row, scores in rows.items():
        found = dict(_items(f"{what} of {readable(row)}", scores))
        if missing := [score.name for score in task.scores if score.name not in found]:
            raise InputError(f"{missing[0]} of {readable(row)} is missing")
        if unknown := found.keys() - allowed.keys() - {"n"}:
            raise InputError(f"{what} of {readable(row)} has {_listed(unknown)}, no score of its task")
        check_whole(f"n of {readable(row)}", found.get("n"), optional=True)
        for name, limits in allowed.items():
            if found.get(name) is not None:
                check_number(f"{name} of {readable(row)}", found[name], *limits)


def check_origin(value: object) -> None:
    """Refuse where a model was trained, unless it names corpus, fold and seed, or is None."""
    if value is None:
        return
    found = dict(_items("trained_on", value))
    check_text("corpus of trained_on", found.get("corpus"))
    check_whole("fold of trained_on", found.get("fold"), low=1)
    check_whole("seed of trained_on", found.get("seed"))


def check_selection(value: object, validation: Mapping[str, Any] | None, task: Task) -> None:
    """Refuse what chose an epoch, unless it is a score of validation and has the value it has there, or is None."""
    if value is None:
        return
    found = dict(_items("selected", value))
    check_text("name of selected", found.get("name"))
    check_whole("epoch of selected", found.get("epoch"), optional=True)
    if found.get("value") is None:
        return
    row, _, name = found["name"].removeprefix("val/").rpartition("/")
    scores = {score.name: score for score in task.scores}
    if row not in SUMMARY_ROWS or name not in scores:
        raise InputError(f"name of selected is {_shown(found['name'])}, no score of its task")
    check_number("value of selected", found["value"], *_range(scores[name]))
    expected = None if validation is None else validation[row][name]
    if expected is not None and abs(found["value"] - expected) > SELECTED_TOLERANCE * max(1.0, abs(expected)):
        raise InputError(f"value of selected is {_shown(found['value'])}, validation has {_shown(expected)}")


def check_calibration(value: object) -> None:
    """Refuse measures of probabilities with other rows or columns, or outside their ranges, unless they are None."""
    try:
        calibration.check_calibration(value)
    except ValueError as error:
        raise InputError(printable(error, 200)) from None


def check_counts(what: str, value: object, task: Task, conditions: bool = True) -> None:
    """Refuse counts of another shape or kind than the task's, or that cannot be counts.

    Args:
        what: as messages name it.
        value: by condition, or by missing rate.
        task: what was counted.
        conditions: whether it is by condition, all seven.
    """
    counts = dict(_items(what, value))
    if conditions and counts.keys() != set(CONDITIONS):
        raise InputError(f"{what} has {_listed(counts)}, not {', '.join(CONDITIONS)}")
    if not conditions and not all(_is_rate(name) for name in counts):
        raise InputError(f"{what} has {_listed(counts)}, not missing rates from 0.0 to below 1")
    for name, nested in counts.items():
        _check_array(f"{what} of {readable(name)}", nested, task)


def check_curves(value: object, task: Task) -> None:
    """Refuse what does not give counts at every rate of some curves that a record has beside its sweep."""
    for name, counts in _items("curves", value):
        curve = CURVES.get(name) if name != "modalities" else None
        if curve is None:
            raise InputError(f"curves has {_shown(name)}, which is none of {', '.join(CURVES)}")
        found = dict(_items(f"curve {name}", counts))
        if found.keys() != {f"{rate:.1f}" for rate in curve.rates}:
            raise InputError(f"curve {name} has {_listed(found)}, not its rates from {curve.span}")
        for rate, nested in found.items():
            _check_array(f"curve {name} of {rate}", nested, task)


def check_scores(metrics: Mapping[str, Mapping[str, Any]], counts: Mapping[str, Any], task: Task) -> None:
    """Refuse scores that do not follow from the counts beside them.

    Raises:
        InputError: naming the first one.
    """
    counted = torch.tensor([counts[name] for name in CONDITIONS], dtype=task.counts_dtype)
    for name, number in zip(CONDITIONS, task.number(counted).tolist(), strict=True):
        if metrics[name].get("n", number) != number:
            raise InputError(f"n of {readable(name)} is {metrics[name]['n']}, its counts add up to {number}")
    for row, scores in task.summarise(counted).items():
        for name, expected in scores.items():
            found = metrics[row][name]
            if found is None and expected is None:
                continue
            if found is None or expected is None or abs(found - expected) > TOLERANCE * max(1.0, abs(expected)):
                raise InputError(f"{name} of {readable(row)} is {_shown(found)}, its counts give {_shown(expected)}")


def _check_array(what: str, nested: object, task: Task) -> None:
    """Refuse a nested list that is no array of the task's shape, of finite numbers and not negative where counted."""
    try:
        array = np.asarray(nested if isinstance(nested, list) else None)
    except (ValueError, OverflowError):  # ragged
        raise InputError(f"{what} is no array of shape {list(task.shape)}") from None
    if array.shape != task.shape:
        raise InputError(f"{what} has the shape {list(array.shape)}, not {list(task.shape)}")
    whole = not task.counts_dtype.is_floating_point
    if array.dtype.kind not in ("i" if whole else "if"):
        raise InputError(f"{what} holds something else than {'whole ' if whole else ''}numbers")
    if not bool((np.abs(array.astype(np.float64)) <= MOST).all()):
        raise InputError(f"{what} holds a number that is not finite or above {MOST}")
    number = task.number(torch.as_tensor(array.astype(np.int64 if whole else np.float64)))
    matrix = task.matrix(torch.as_tensor(array))
    if (whole and bool((array < 0).any())) or bool((matrix < 0).any()) or int(number) < 0:
        raise InputError(f"{what} holds a negative count")


def _is_rate(name: object) -> bool:
    try:
        return isinstance(name, str) and len(name) <= 6 and 0.0 <= float(name) < 1.0
    except ValueError:
        return False


def _range(score: Score) -> tuple[float, float]:
    """Least and greatest value of a score: shares, correlations, and errors, which are not negative."""
    if score.percent:
        return 0.0, 1.0
    return (-1.0, 1.0) if score.higher_is_better else (0.0, math.inf)


def _items(what: str, value: object) -> Any:
    if not isinstance(value, Mapping):
        raise InputError(f"{what} is {_shown(value)}, not a mapping")
    return value.items()


def _listed(names: Any) -> str:
    return printable(", ".join(sorted(map(str, names))) or "nothing", 80)


def _shown(value: object) -> str:
    """A value in a message, in one short line; a deep or long one is not written out."""
    if isinstance(value, (list, tuple)):
        return f"a list of {len(value)}"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, int) and abs(value) > MOST:
        return "a huge number"
    return printable(repr(value), 60)


def _encodable(text: str) -> bool:
    """Whether it can be written as UTF-8: JSON can hold half a pair of surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
