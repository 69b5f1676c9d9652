"""Label schemes: what the labels of a corpus are, classes or values on a scale."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch

from datamodules.storage.problems import Problems

LabelArray = npt.NDArray[np.int64] | npt.NDArray[np.float32]


@dataclass(frozen=True)
class Classes:
    """One of C classes: int64 class numbers, -1 where unknown.

    Attributes:
        names: in label order; label c is ``names[c]``.

    >>> Classes(("calm", "angry")).task
    {'name': 'classification'}
    """

    names: tuple[str, ...]
    dtype: ClassVar[torch.dtype] = torch.int64
    unknown: ClassVar[int] = -1

    @property
    def task(self) -> dict[str, Any]:
        """What is predicted, in plain values."""
        return {"name": "classification"}

    def read(self, path: Path, ids: list[str], labels: npt.NDArray[Any], problems: Problems) -> LabelArray | None:
        """Turn one-hot rows [n, C] or class numbers [n] or [n, 1] into int64 [n], None if they are neither."""
        classes = len(self.names)
        if labels.dtype.kind not in "fiub" or labels.ndim > 2:
            what = f"holds {labels.dtype} {list(labels.shape)} where labels are expected"
            problems.add(path, what, "write one-hot rows or class numbers")
            return None
        one_hot = labels.size != len(labels)
        if one_hot and labels.shape[1] != classes:
            what = f"one-hot labels of {labels.shape[1]} classes where the corpus has {classes}"
            problems.add(path, what, "write the labels of these classes only")
            return None
        if one_hot:
            numbers = labels.argmax(axis=1).astype(np.int64)
            wrong = np.flatnonzero((labels != np.eye(classes)[numbers]).any(axis=1))
            what, remedy = "is not one-hot", "write one 1 and otherwise 0 in each row"
        else:
            known = np.isin(labels.ravel(), np.arange(classes))
            numbers = np.where(known, labels.ravel(), 0).astype(np.int64)
            wrong = np.flatnonzero(~known)
            what, remedy = f"is outside 0..{classes - 1}", "leave out utterances of other classes"
        return _unless_wrong(path, ids, labels, numbers, wrong, what, remedy, problems)


@dataclass(frozen=True)
class Scale:
    """A value between two ends: float32, NaN where unknown.

    Attributes:
        low: the least value.
        high: the greatest.

    >>> Scale(-3, 3).task
    {'name': 'regression', 'low': -3.0, 'high': 3.0}
    """

    low: float
    high: float
    dtype: ClassVar[torch.dtype] = torch.float32
    unknown: ClassVar[float] = float("nan")

    @property
    def names(self) -> tuple[str, ...]:
        """No class names."""
        return ()

    @property
    def task(self) -> dict[str, Any]:
        """What is predicted, in plain values."""
        return {"name": "regression", "low": float(self.low), "high": float(self.high)}

    def read(self, path: Path, ids: list[str], labels: npt.NDArray[Any], problems: Problems) -> LabelArray | None:
        """Turn numbers [n] or [n, 1] into float32 [n], None if they are not numbers or outside the scale."""
        if labels.dtype.kind not in "fiu" or labels.size != len(labels):
            what = f"holds {labels.dtype} {list(labels.shape)} where one value an utterance is expected"
            problems.add(path, what, f"write one number from {self.low:g} to {self.high:g} a row")
            return None
        values = labels.ravel().astype(np.float32)
        wrong = np.flatnonzero(~((values >= self.low) & (values <= self.high)))
        what, remedy = f"is outside {self.low:g}..{self.high:g}", "correct the value, or leave the utterance out"
        return _unless_wrong(path, ids, labels, values, wrong, what, remedy, problems)


LabelScheme = Classes | Scale


def _unless_wrong(
    path: Path,
    ids: list[str],
    labels: npt.NDArray[Any],
    read: LabelArray,
    wrong: npt.NDArray[np.intp],
    what: str,
    remedy: str,
    problems: Problems,
) -> LabelArray | None:
    """Give ``read``, or None after reporting the rows that are ``wrong``."""
    if not len(wrong):
        return read
    value = np.squeeze(labels[wrong[0]]).tolist()
    problems.add(path, f"label {value} {what}", remedy, [ids[row] for row in wrong])
    return None
