r"""Labels of a speaker's turns as a Markov chain, and the best answer from a turn and those before it.

With ``stay`` = r the labels of the turns 1, 2, ... of a dialogue keep the priors, and repeat with probability r on
average:

.. math::

    y_1 &\sim \mathrm{Cat}(\pi), \qquad
    p(y_{t+1} \mid y_t) = \rho\, [y_{t+1} = y_t] + (1 - \rho)\, \pi_{y_{t+1}}, \\
    \rho &= \frac{r - \sum_y \pi_y^2}{1 - \sum_y \pi_y^2} .

Over k turns the same holds with :math:`\rho^k`. At :math:`r = \sum_y \pi_y^2` (1/4 for four equal classes, 0.261 with
IEMOCAP's shares) nothing is remembered; with a smaller r labels change more often than by chance. Given its own label
an utterance is independent of all others, so the best answer from a turn and those before it is the forward filter

.. math::

    p(y_t \mid x_1 .. x_t) \propto \frac{p(y_t \mid x_t)}{\pi_{y_t}}
        \left( \rho\, p(y_{t-1} = y_t \mid x_1 .. x_{t-1}) + (1 - \rho)\, \pi_{y_t} \right) .
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from datamodules.errors import InputError
from datamodules.linear_gaussian.features import FloatArray

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class LabelChain:
    """The chain; see the module's docstring for the equations.

    Attributes:
        priors: pi, float64 [4].
        stay: r; None: labels are independent.

    Raises:
        InputError: a transition would have a probability below 0, or a label never changes.
    """

    priors: FloatArray
    stay: float | None = None

    def __post_init__(self) -> None:
        """Check r."""
        rarest = float(self.priors.min())
        least = -rarest / (1 - rarest)
        if self.stay is not None and not least <= self.memory < 1:
            by_chance = float(self.priors @ self.priors)
            lowest = by_chance + least * (1 - by_chance)
            raise InputError(f"linear-Gaussian corpus: stay {self.stay}; give at least {lowest:.3g} and less than 1.")

    @property
    def memory(self) -> float:
        """How much the label before decides, rho; 0 where labels are independent."""
        by_chance = float(self.priors @ self.priors)
        return 0.0 if self.stay is None else (self.stay - by_chance) / (1 - by_chance)

    def transition(self, steps: int = 1) -> FloatArray:
        """P(y_{t + steps} | y_t), float64 [4, 4], rows by y_t."""
        kept = self.memory**steps
        matrix: FloatArray = kept * np.eye(len(self.priors)) + (1 - kept) * self.priors
        return matrix

    def sample(self, count: int, rng: np.random.Generator, first: BoolArray | None = None) -> IntArray:
        """Draw labels, int64 [N].

        Args:
            count: N.
            rng: of all numbers.
            first: bool [N], the turns that begin a dialogue; None: only the first does.
        """
        labels = rng.choice(len(self.priors), size=count, p=self.priors).astype(np.int64)
        if self.stay is None:
            return labels
        ends, drawn = self.transition().cumsum(axis=1)[:, :-1], rng.random(count)
        for turn in range(1, count):
            if first is None or not first[turn]:
                labels[turn] = np.searchsorted(ends[labels[turn - 1]], drawn[turn], side="right")
        return labels

    def filtered(self, log_posterior: FloatArray, turns: IntArray, seen: BoolArray) -> FloatArray:
        """Compute log p(y | a turn, and its speaker's earlier ones), under each condition for itself.

        Args:
            log_posterior: float64 [C, N, 4], log p(y | x) of each turn alone.
            turns: int64 [N, 3]: chain, position in it, and step since the turn before, as in a batch.
            seen: bool [C, N], the turns that a condition shows; another one tells nothing, but time goes on.

        Returns:
            float64 [C, N, 4], normalised over the classes.
        """
        evidence = np.where(seen[..., None], log_posterior - np.log(self.priors), 0.0)
        filtered = np.empty_like(evidence)
        order = np.lexsort((turns[:, 1], turns[:, 0]))
        for position in range(int(turns[:, 1].max(initial=-1)) + 1):
            places = np.flatnonzero(turns[order, 1] == position)
            rows = order[places]
            kept = np.zeros((len(rows), 1)) if position == 0 else self.memory ** turns[rows, 2][:, None]
            before = 0.0 if position == 0 else np.exp(filtered[:, order[places - 1]])
            joint = evidence[:, rows] + np.log(kept * before + (1 - kept) * self.priors)
            joint -= joint.max(axis=-1, keepdims=True)
            filtered[:, rows] = joint - np.log(np.exp(joint).sum(axis=-1, keepdims=True))
        return filtered
