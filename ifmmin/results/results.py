"""Scores of a trained model on one split.

Values are plain in files, shares in [0, 1], and percent where a person reads them. What a model does not
answer is None, an empty cell or a dash, never a number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from datamodules.conditions import COMPLETE, CONDITIONS, MISSING_CONDITIONS
from datamodules.storage.description import FOLDER
from datamodules.storage.layouts import IEMOCAP_LAYOUT, MSP_IMPROV_LAYOUT
from datamodules.text import printable
from ifmmin.results.uncertainty import Intervals
from ifmmin.tasks import SUMMARY_ROWS, Summary, Task


def corpus_title(corpus: str, is_synthetic: bool, invented: bool | None = None) -> str:
    """Name a corpus in titles, so that a built-in one is never taken for a corpus of speech.

    Args:
        corpus: its name.
        is_synthetic: whether its data are generated.
        invented: whether that is by inventing recordings; None where a record does not say.

    Example:
        >>> corpus_title("IEMOCAP", is_synthetic=False)
        'IEMOCAP'
        >>> corpus_title("Synthetic", is_synthetic=True)
        'built-in synthetic corpus (not a corpus result)'
        >>> corpus_title("Privileged", is_synthetic=True)
        'built-in synthetic corpus Privileged (not a corpus result)'
        >>> corpus_title("IEMOCAP", is_synthetic=True, invented=True)
        'IEMOCAP made of invented recordings (not a corpus result)'
    """
    return f"{synthetic_name(corpus, invented)} (not a corpus result)" if is_synthetic else printable(corpus)


def synthetic_name(corpus: str, invented: bool | None) -> str:
    """Name a corpus whose data are generated; the first built-in one goes without its class name.

    Args:
        corpus: its name.
        invented: see :func:`corpus_title`.
    """
    if invented is None:  # a record of an earlier version: only its name tells
        invented = corpus in (IEMOCAP_LAYOUT.name, MSP_IMPROV_LAYOUT.name) or corpus.startswith(f"{FOLDER}-")
    if invented:
        return f"{printable(corpus)} made of invented recordings"
    return "built-in synthetic corpus" + ("" if corpus == "Synthetic" else f" {printable(corpus)}")


@dataclass(frozen=True)
class Row:
    """One row of the table.

    Attributes:
        condition: one of the seven conditions, ``"mean"`` or ``"pooled"``.
        scores: by name, None if not answered.
        bayes: the score of the Bayes rule on the same utterances, None if unknown, by its column (``bayes_WA``).
        n: the number of rows counted; None for ``"mean"``.
    """

    condition: str
    scores: Mapping[str, float | None]
    bayes: Mapping[str, float | None]
    n: int | None

    def columns(self) -> dict[str, Any]:
        """All values by column name, as in files."""
        return {"condition": self.condition, **self.scores, **self.bayes, "n": self.n}


@dataclass
class Results:
    """Scores of one trained model on one split.

    Attributes:
        corpus: the name of the corpus.
        is_synthetic: whether its data are generated: a built-in corpus, or invented recordings.
        model: the class name of the model.
        fold: the fold that was scored, from 1.
        seed: the seed that the model was trained with.
        split: ``"test"`` or ``"val"``.
        task: what was predicted.
        counts: ``[7, *shape]``, as the task's metric computes them.
        bayes: per condition, the score (WA of classes, MAE of values) of the Bayes rule that reads what the model
            reads; None if unknown.
        record: what it takes to repeat the run: config, versions, commit, data fingerprint, checkpoint, ...
        trained_on: ``corpus``, ``fold`` and ``seed`` of the training; None if unknown (files up to 0.1.0).
        validation: of a fit, the table of its selected epoch on the validation split, by row and column.
        monitor: of a fit, ``name``, ``value`` and ``epoch`` (from 1) of what selected the epoch.
        invented: whether its recordings are made up, in the form of a corpus; None if unknown, as in earlier files.
        intervals: of the scores, if they were asked for.
        calibration: of the probabilities, by row and column (:mod:`ifmmin.results.calibration`); None of a regression,
            and in earlier files.
        remarks: on the row, such as that the model reads earlier turns, or which frames were lost.
    """

    corpus: str
    is_synthetic: bool
    model: str
    fold: int
    seed: int
    split: str
    task: Task
    counts: Tensor
    bayes: Mapping[str, float] | None = None
    record: Mapping[str, Any] = field(default_factory=dict)
    trained_on: Mapping[str, Any] | None = None
    validation: Mapping[str, Mapping[str, float | None]] | None = None
    monitor: Mapping[str, Any] | None = None
    invented: bool | None = None
    intervals: Intervals | None = None
    calibration: Mapping[str, Mapping[str, float | None]] | None = None
    remarks: tuple[str, ...] = ()

    def scores(self) -> Summary:
        """Values of the table, see :meth:`ifmmin.tasks.Task.summarise`."""
        return self.task.summarise(self.counts)

    def numbers(self) -> dict[str, int]:
        """Number of rows counted under each of the seven conditions, 0 if not answered."""
        return dict(zip(CONDITIONS, self.task.number(self.counts).tolist(), strict=True))

    def rows(self) -> list[Row]:
        """Nine rows of the table, in the order of :data:`ifmmin.tasks.base.SUMMARY_ROWS`."""
        counted = self.numbers()
        numbers: dict[str, int | None] = {**counted, "mean": None}
        numbers["pooled"] = sum(counted[condition] for condition in MISSING_CONDITIONS)
        bayes, scores, column = self._bayes_rows(), self.scores(), self.task.limit_column
        return [Row(name, scores[name], {column: bayes.get(name)}, numbers[name]) for name in SUMMARY_ROWS]

    def matrices(self) -> dict[str, Tensor]:
        """Confusion matrices [L, L] over the task's levels, by condition and ``"pooled"``."""
        counts = self.counts.cpu()
        pooled = counts[[CONDITIONS.index(condition) for condition in MISSING_CONDITIONS]].sum(0)
        named = {**dict(zip(CONDITIONS, counts, strict=True)), "pooled": pooled}
        return {name: self.task.matrix(part) for name, part in named.items()}

    def title(self) -> str:
        """Two lines: model and corpus; fold, seed, split and the number of utterances; a third if trained elsewhere."""
        corpus = corpus_title(self.corpus, self.is_synthetic, self.invented)
        size = f" · {self.common_number()} utterances" if self.common_number() else ""
        model = ", ".join([self.model, *self.remarks])
        title = f"{printable(model)} on {corpus}\nfold {self.fold} · seed {self.seed} · {self.split}{size}"
        return f"{title}\n{self.origin()}" if self.origin() else title

    def origin(self) -> str:
        """Where the model was trained, if not on this corpus and fold: ``"trained on IEMOCAP fold 1"``; else ``""``."""
        if self.trained_on is None:
            return ""
        corpus, fold = self.trained_on["corpus"], self.trained_on["fold"]
        return "" if (corpus, fold) == (self.corpus, self.fold) else f"trained on {printable(corpus)} fold {fold}"

    def common_number(self) -> int | None:
        """Number of utterances under every answered condition, None if it differs."""
        answered = {count for count in self.numbers().values() if count}
        return answered.pop() if len(answered) == 1 else None

    def label(self, row: str) -> str:
        """Readable name of a row; a pooled row says over which conditions, if not all, and if their numbers differ."""
        numbers = self.numbers()
        answered = [condition for condition in MISSING_CONDITIONS if numbers[condition]]
        if row != "pooled" or not answered:
            return readable(row)
        by_n = ", by n" if len({numbers[condition] for condition in answered}) > 1 else ""
        if len(answered) < len(MISSING_CONDITIONS):
            return f"pooled over {' '.join(map(readable, answered))}{by_n}"
        return f"pooled{by_n}"

    def _bayes_rows(self) -> dict[str, float]:
        """Score of the Bayes rule under the conditions, and its mean and pooled values if these are defined."""
        if self.bayes is None:
            return {}
        rows = {condition: float(value) for condition, value in self.bayes.items()}
        if all(condition in rows for condition in MISSING_CONDITIONS):
            rows["mean"] = sum(rows[condition] for condition in MISSING_CONDITIONS) / len(MISSING_CONDITIONS)
        numbers = self.numbers()
        counted = {condition: numbers[condition] for condition in MISSING_CONDITIONS if numbers[condition]}
        if counted and all(condition in rows for condition in counted):
            total = sum(rows[condition] * count for condition, count in counted.items())
            rows["pooled"] = total / sum(counted.values())
        return rows


def readable(row: str) -> str:
    """Write a row's name for people.

    >>> readable("av"), readable("pooled"), readable("avt")
    ('{a,v}', 'pooled', 'full {a,v,t}')
    """
    if row not in CONDITIONS:
        return row
    braces = "{" + ",".join(row) + "}"
    return f"full {braces}" if row == COMPLETE else braces
