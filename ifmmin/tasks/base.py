"""What a task is: its loss, its metrics, and how they are counted under each condition.

Every metric is a function of counts that add up over batches, devices and conditions; nothing is averaged over
batches.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torchmetrics import Metric

from datamodules.conditions import COMPLETE, CONDITIONS, MISSING_CONDITIONS

SUMMARY_ROWS: tuple[str, ...] = (*MISSING_CONDITIONS, "mean", "pooled", COMPLETE)
"""The rows of a result, in the order in which they are shown."""

Summary = dict[str, dict[str, float | None]]
"""For every row of :data:`SUMMARY_ROWS`, a value for every score, None where it is not answered."""


@dataclass(frozen=True)
class Score:
    """One metric of a task: a column of every table.

    Attributes:
        name: heading, and the last part of logged names.
        higher_is_better: the direction of "best".
        percent: whether people read it times 100; files have the plain value.

    >>> Score("WA").format(0.64678), Score("MAE", False, False).format(0.9), Score("WA").format(None)
    ('64.68', '0.900', '–')
    """

    name: str
    higher_is_better: bool = True
    percent: bool = True

    def format(self, value: float | None) -> str:
        """Write a value as tables show it: percent with two decimals, others with three, a dash for None."""
        if value is None:
            return "–"
        text = f"{100 * value:.2f}" if self.percent else f"{value:.3f}"
        return text.removeprefix("-") if float(text) == 0 else text


class Task(ABC):
    """What is predicted of an utterance. The corpus names it, the model asks it.

    Attributes:
        outputs: the width of a model's output.
        scores: the metrics, in the order of their columns.
        limited: name of the score whose limit a corpus may know, that of the Bayes rule.
        class_names: in label order; () where labels are not classes.
        levels: names of the rows and columns of :meth:`matrix`.
        shape: of the counts of one condition.
    """

    name: ClassVar[str]
    """As :meth:`spec` and records name the task."""

    counts_key: ClassVar[str]
    """The key of the counts in ``metrics.json`` and in records."""

    counts_dtype: ClassVar[torch.dtype]

    limited: ClassVar[str]

    outputs: int
    scores: tuple[Score, ...]
    class_names: tuple[str, ...]
    levels: tuple[str, ...]
    shape: tuple[int, ...]

    @abstractmethod
    def spec(self) -> dict[str, Any]:
        """Describe the task in plain values, for :func:`~ifmmin.tasks.task_of`."""

    @abstractmethod
    def loss(self, outputs: Tensor, label: Tensor) -> Tensor:
        """Compute the training loss, a scalar, of outputs [B, O] and labels [B]."""

    @abstractmethod
    def distillation(self, outputs: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
        """Compute the loss, a scalar, of outputs [B, O] that follow a teacher's outputs [B, O]."""

    @abstractmethod
    def count(self, outputs: Tensor, label: Tensor) -> Tensor:
        """Count each row by itself: ``[B, *shape]``, zero where the label is unknown.

        Raises:
            ValueError: a label is outside the task's range.
        """

    @abstractmethod
    def evaluate(self, counts: Tensor) -> dict[str, Tensor]:
        """Compute every score from counts ``[..., *shape]``: float64 [...] by name, NaN where it is not defined."""

    @abstractmethod
    def number(self, counts: Tensor) -> Tensor:
        """Number of rows counted, int64 [...], of counts ``[..., *shape]``."""

    @abstractmethod
    def matrix(self, counts: Tensor) -> Tensor:
        """Confusion matrices int64 [..., L, L] over :attr:`levels`, true ones in rows."""

    @abstractmethod
    def answers(self, outputs: Tensor) -> Tensor:
        """Turn outputs [R, O] into the values of a prediction file, float32 [R, P]."""

    @abstractmethod
    def named(self, answer: Tensor) -> dict[str, float]:
        """Name the values of one answer [P]."""

    def __eq__(self, other: object) -> bool:
        """Whether two tasks predict the same."""
        same = isinstance(other, Task) and self.spec() == other.spec()
        return same and isinstance(other, Task) and self.class_names == other.class_names

    def __hash__(self) -> int:
        """Hash of name and class names."""
        return hash((self.name, self.class_names))

    def score(self, name: str) -> Score:
        """Find a score by its name.

        Raises:
            KeyError: the task has no such score.
        """
        for score in self.scores:
            if score.name == name:
                return score
        raise KeyError(name)

    @property
    def limit_column(self) -> str:
        """Column of the Bayes rule's score in files, such as ``bayes_WA``."""
        return f"bayes_{self.limited}"

    def mode(self, name: str) -> Literal["min", "max"]:
        """Direction of "best" of a score, as Lightning's checkpoints want it."""
        return "max" if self.score(name).higher_is_better else "min"

    def metric(self) -> ConditionCounts:
        """Make a metric that counts under each condition."""
        return ConditionCounts(self)

    def summarise(self, counts: Tensor) -> Summary:
        """Compute the table that results are compared by.

        Args:
            counts: ``[7, *shape]``, as :meth:`ConditionCounts.compute` gives them.

        Returns:
            a value or None for every row of :data:`SUMMARY_ROWS` and every score. ``"mean"`` is the arithmetic mean
            over the six missing conditions, None unless all six are answered; ``"pooled"`` is the score of their
            added counts, over those answered. The complete condition ``"avt"`` enters neither.
        """
        counts = counts.cpu()
        missing = [CONDITIONS.index(condition) for condition in MISSING_CONDITIONS]
        answered = self.number(counts) > 0
        rows = {name: self._values(part) for name, part in zip(CONDITIONS, counts, strict=True)}
        rows["pooled"] = self._values(counts[missing].sum(0))
        rows["mean"] = dict.fromkeys(rows["pooled"])
        if bool(answered[missing].all()):
            for name in rows["mean"]:
                values = [rows[condition][name] for condition in MISSING_CONDITIONS]
                known = [value for value in values if value is not None]
                rows["mean"][name] = sum(known) / len(known) if len(known) == len(values) else None
        return {row: rows[row] for row in SUMMARY_ROWS}

    def _values(self, counts: Tensor) -> dict[str, float | None]:
        return {name: None if bool(value.isnan()) else float(value) for name, value in self.evaluate(counts).items()}


class ConditionCounts(Metric):
    """Counts of a task under each condition, summed over batches and devices.

    Args:
        task: what is counted.

    >>> import torch
    >>> from ifmmin.tasks import Classification
    >>> metric = Classification(["calm", "angry"]).metric()
    >>> outputs = torch.tensor([[2.0, 1.0], [2.0, 1.0], [0.0, 1.0]])
    >>> metric.update(outputs, label=torch.tensor([0, 1, 1]), condition=torch.tensor([0, 0, 6]))
    >>> metric.compute()[0]
    tensor([[1, 0],
            [1, 0]])
    """

    full_state_update = False
    is_differentiable = False
    counts: Tensor

    def __init__(self, task: Task) -> None:
        """Start with nothing counted."""
        super().__init__()
        self.task = task
        zeros = torch.zeros(len(CONDITIONS), *task.shape, dtype=task.counts_dtype)
        self.add_state("counts", zeros, dist_reduce_fx="sum")

    def update(self, outputs: Tensor, label: Tensor, condition: Tensor) -> None:
        """Count a batch.

        Args:
            outputs: [B, O] of the model.
            label: [B]; rows of unknown label are not counted.
            condition: int64 [B], positions in :data:`~datamodules.conditions.CONDITIONS`.

        Raises:
            ValueError: a label or a condition is outside its range.
        """
        if bool(((condition < 0) | (condition >= len(CONDITIONS))).any()):
            raise ValueError(f"a condition is outside 0..{len(CONDITIONS) - 1}")
        counted = self.task.count(outputs, label)
        # Not in place: a spawned process shares the memory of the state that it was handed.
        self.counts = self.counts.index_add(0, condition, counted)

    def compute(self) -> Tensor:
        """Counts ``[7, *shape]`` so far."""
        return self.counts
