"""What a trained model scores on one split.

Values are fractions in [0, 1] in files and percent where a person reads them. What a model does not
answer is None, an empty cell or a dash, never a number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from datamodules.conditions import COMPLETE, CONDITIONS, MISSING_CONDITIONS
from ifmmin.tasks import SUMMARY_ROWS, Classification

SYNTHETIC = "built-in synthetic corpus (not a corpus result)"
"""What stands in place of the corpus name for the built-in corpus."""


@dataclass(frozen=True)
class Row:
    """One row of the table; metrics in [0, 1], None where not answered.

    Attributes:
        condition: one of the seven conditions, ``"mean"`` or ``"pooled"``.
        WA: accuracy.
        UA: mean recall over the classes that occur.
        F1: macro F1.
        bayes_WA: WA of the Bayes rule on the same utterances, where it is known.
        n: the number of rows counted; None for ``"mean"``.
    """

    condition: str
    WA: float | None
    UA: float | None
    F1: float | None
    bayes_WA: float | None  # noqa: N815 - the name of its column
    n: int | None


@dataclass
class Results:
    """How one trained model does on one split.

    Attributes:
        corpus: the name of the corpus.
        is_synthetic: whether it is the built-in corpus.
        model: the class name of the model.
        fold: the fold, from 1.
        seed: the seed of the run.
        split: ``"test"`` or ``"val"``.
        class_names: C names, in label order.
        confusion: int64 [7, C, C], as :class:`~ifmmin.tasks.ConditionCounts` computes it.
        bayes: per condition, the WA in [0, 1] of the Bayes rule on the same utterances; None if unknown.
        record: what it takes to do it again: config, versions, commit, data fingerprint, checkpoint, ...
    """

    corpus: str
    is_synthetic: bool
    model: str
    fold: int
    seed: int
    split: str
    class_names: list[str]
    confusion: Tensor
    bayes: Mapping[str, float] | None = None
    record: Mapping[str, Any] = field(default_factory=dict)

    def metrics(self) -> dict[str, dict[str, float | None]]:
        """The values of the table, see :meth:`ifmmin.tasks.Task.summarise`."""
        return Classification(self.class_names).summarise(self.confusion)

    def counts(self) -> dict[str, int]:
        """The number of rows counted under each of the seven conditions, 0 where not answered."""
        return dict(zip(CONDITIONS, self.confusion.sum((1, 2)).tolist(), strict=True))

    def rows(self) -> list[Row]:
        """The nine rows of the table, in the order of :data:`ifmmin.tasks.base.SUMMARY_ROWS`."""
        counts = self.counts()
        numbers: dict[str, int | None] = {**counts, "mean": None}
        numbers["pooled"] = sum(counts[condition] for condition in MISSING_CONDITIONS)
        bayes = self._bayes_rows()
        metrics = self.metrics()
        return [Row(name, **metrics[name], bayes_WA=bayes.get(name), n=numbers[name]) for name in SUMMARY_ROWS]

    def title(self) -> str:
        """Two lines: model and corpus; fold, seed, split and the number of utterances."""
        corpus = SYNTHETIC if self.is_synthetic else self.corpus
        size = f" · {self.common_count()} utterances" if self.common_count() else ""
        return f"{self.model} on {corpus}\nfold {self.fold} · seed {self.seed} · {self.split}{size}"

    def common_count(self) -> int | None:
        """The number of utterances under every answered condition, None if it is not the same for all."""
        answered = {count for count in self.counts().values() if count}
        return answered.pop() if len(answered) == 1 else None

    def _bayes_rows(self) -> dict[str, float]:
        """Bayes WA of the conditions, and their mean and pooled values where these are defined."""
        if self.bayes is None:
            return {}
        rows = {condition: float(value) for condition, value in self.bayes.items()}
        if all(condition in rows for condition in MISSING_CONDITIONS):
            rows["mean"] = sum(rows[condition] for condition in MISSING_CONDITIONS) / len(MISSING_CONDITIONS)
        counts = {condition: count for condition in MISSING_CONDITIONS if (count := self.counts()[condition])}
        if counts and all(condition in rows for condition in counts):
            right = sum(rows[condition] * count for condition, count in counts.items())
            rows["pooled"] = right / sum(counts.values())
        return rows


def readable(row: str) -> str:
    """A row as people write it.

    Example:
        >>> readable("av"), readable("pooled"), readable("avt")
        ('{a,v}', 'pooled', 'full {a,v,t}')
    """
    if row not in CONDITIONS:
        return row
    braces = "{" + ",".join(row) + "}"
    return f"full {braces}" if row == COMPLETE else braces


def label(results: Results, row: str) -> str:
    """The readable row; a pooled row over fewer than six conditions says over which."""
    answered = [readable(condition) for condition in MISSING_CONDITIONS if results.counts()[condition]]
    if row == "pooled" and 0 < len(answered) < len(MISSING_CONDITIONS):
        return "pooled over " + " ".join(answered)
    return readable(row)
