"""What is predicted: loss, metrics and their direction, prediction columns. No model is written twice for a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

from datamodules.errors import InputError
from ifmmin.tasks.base import SUMMARY_ROWS, ConditionCounts, Score, Summary, Task
from ifmmin.tasks.classification import Classification
from ifmmin.tasks.regression import Regression

__all__ = [
    "SUMMARY_ROWS",
    "Classification",
    "ConditionCounts",
    "Regression",
    "Score",
    "Summary",
    "Task",
    "task_of",
]


def task_of(spec: Mapping[str, Any] | None, class_names: Sequence[str] = ()) -> Task:
    """Make the task that a corpus or a record describes.

    Args:
        spec: plain values, from :meth:`Task.spec` or a datamodule's ``task``; None means classification.
        class_names: of a classification, in label order.

    Raises:
        InputError: there is no such task, a classification has fewer than two classes or two of one name, or the
            scale of a regression is empty.

    >>> task_of({"name": "regression", "low": -3, "high": 3}).outputs
    1
    """
    name = Classification.name if spec is None else spec.get("name")
    if name == Regression.name and spec is not None:
        low, high = spec.get("low"), spec.get("high")
        if not isinstance(low, Real) or not isinstance(high, Real):
            raise InputError(f"task regression: its scale {low}..{high} is not given by two numbers.")
        return Regression(float(low), float(high))
    if name != Classification.name:
        raise InputError(f"task {name!r} is not known. There are: {Classification.name}, {Regression.name}.")
    if len(class_names) < 2:
        raise InputError(f"class names {list(class_names)}: a classification needs at least two.")
    if len(set(class_names)) < len(class_names):
        raise InputError(f"class names {', '.join(map(str, class_names))}: two are the same.")
    return Classification(class_names)
