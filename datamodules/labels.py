"""Label schemes: what the labels of a corpus are, classes or values on a scale."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from datamodules.storage.problems import Problems

LabelArray = npt.NDArray[np.int64] | npt.NDArray[np.float32]

SOFT_TOLERANCE = 1e-3
"""Probabilities of a soft label add up to 1 within this."""


class ReadLabels(NamedTuple):
    """Labels of n utterances.

    Attributes:
        numbers: [n], int64 class numbers or float32 values; of soft labels the most probable class.
        soft: float32 [n, C], the probability of each class; None unless a label is soft.
        known: bool [n], False for an utterance to leave out, because its label is unknown or of a class left out.
        left_out: how many utterances of each class are left out by choice, by its name in the label files.
    """

    numbers: LabelArray
    soft: npt.NDArray[np.float32] | None
    known: npt.NDArray[np.bool_]
    left_out: Mapping[str, int] = MappingProxyType({})


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

    def read(
        self, path: Path, ids: list[str], labels: npt.NDArray[Any], problems: Problems, drop_unknown: bool = False
    ) -> ReadLabels | None:
        """Turn one-hot rows or probabilities [n, C], or class numbers [n] or [n, 1], into labels.

        Args:
            path: of the file, for problems.
            ids: n utterances.
            labels: as stored.
            problems: collects what is wrong.
            drop_unknown: whether utterances of no class or of one outside 0..C-1 are left out, instead of being a
                problem.

        Returns:
            the labels; None if they are something else.
        """
        classes = len(self.names)
        if labels.dtype.kind not in "fiub" or labels.ndim > 2:
            what = f"holds {labels.dtype} {list(labels.shape)} where labels are expected"
            problems.add(path, what, "write one-hot rows or class numbers")
            return None
        rows = labels.size != len(labels)
        if rows and labels.shape[1] != classes:
            what = f"one-hot labels of {labels.shape[1]} classes where the corpus has {classes}"
            remedy = "name the columns in their order by --data.label_names, and choose some by --data.classes"
            problems.add(path, what, remedy)
            return None
        values = labels.astype(np.float64)
        soft = None
        if rows:
            numbers = values.argmax(axis=1).astype(np.int64)
            one_hot = (values == np.eye(classes)[numbers]).all(axis=1)
            total = values.sum(axis=1)
            probable = (values >= 0).all(axis=1) & (np.abs(total - 1) <= SOFT_TOLERANCE)
            known, unknown = one_hot | probable, (values == 0).all(axis=1)
            if (probable & ~one_hot).any():
                soft = (values / np.where(known, total, 1)[:, None]).astype(np.float32)
            what = "is not one-hot, nor probabilities that add up to 1"
            remedy = "write one 1 and otherwise 0 in each row"
        else:
            values = values.ravel()
            known = np.isin(values, np.arange(classes))
            numbers = np.where(known, values, 0).astype(np.int64)
            unknown = ~known & ((values == np.round(values)) | np.isnan(values))
            what = f"is outside 0..{classes - 1}"
            remedy = "leave out utterances of other classes, or name those by --data.label_names"
        remedy += ", or give --data.drop_unknown_labels true" if unknown.any() else ""
        wrong = np.flatnonzero(~known & ~unknown) if drop_unknown else np.flatnonzero(~known)
        return _unless_wrong(path, ids, labels, ReadLabels(numbers, soft, known), wrong, what, remedy, problems)


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

    def read(
        self, path: Path, ids: list[str], labels: npt.NDArray[Any], problems: Problems, drop_unknown: bool = False
    ) -> ReadLabels | None:
        """Turn numbers [n] or [n, 1] into float32 [n], None if they are not numbers or outside the scale.

        Args:
            path: of the file, for problems.
            ids: n utterances.
            labels: as stored.
            problems: collects what is wrong.
            drop_unknown: whether utterances whose value is NaN are left out, instead of being a problem.
        """
        if labels.dtype.kind not in "fiu" or labels.size != len(labels):
            what = f"holds {labels.dtype} {list(labels.shape)} where one value an utterance is expected"
            problems.add(path, what, f"write one number from {self.low:g} to {self.high:g} a row")
            return None
        values = labels.ravel().astype(np.float32)
        known = (values >= self.low) & (values <= self.high)
        wrong = np.flatnonzero(~known & ~np.isnan(values)) if drop_unknown else np.flatnonzero(~known)
        what, remedy = f"is outside {self.low:g}..{self.high:g}", "correct the value, or leave the utterance out"
        return _unless_wrong(path, ids, labels, ReadLabels(values, None, known), wrong, what, remedy, problems)


LabelScheme = Classes | Scale


def _unless_wrong(
    path: Path,
    ids: list[str],
    labels: npt.NDArray[Any],
    read: ReadLabels,
    wrong: npt.NDArray[np.intp],
    what: str,
    remedy: str,
    problems: Problems,
) -> ReadLabels | None:
    """Give ``read``, or None after reporting the rows that are ``wrong``."""
    if not len(wrong):
        return read
    value = np.squeeze(labels[wrong[0]]).tolist()
    problems.add(path, f"label {value} {what}", remedy, [ids[row] for row in wrong])
    return None
