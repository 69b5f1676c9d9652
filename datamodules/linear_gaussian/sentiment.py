r"""The generator behind the built-in corpus of values, and its best answer under the absolute error.

The views are those of :mod:`datamodules.linear_gaussian.generator`; in place of a class there is a value:

.. math::

    s &\sim N(0, \tau^2 I_k)                          && \text{semantic latent, shared by the modalities} \\
    v &= \mathrm{clip}(w^\top s, -3, 3),\quad |w| = 1 && \text{the value; w has the first three coordinates alike}

**Posterior.** With :math:`\eta` and :math:`\Lambda` summed over what is available, as there,

.. math::

    s \mid x &\sim N\left((\tau^{-2} I + \Lambda)^{-1} \eta,\ (\tau^{-2} I + \Lambda)^{-1}\right) \\
    w^\top s \mid x &\sim N(m, \sigma^2), \qquad
    m = \sum_i \frac{w_i \tau^2 \eta_i}{1 + \tau^2 \Lambda_i}, \quad
    \sigma^2 = \sum_i \frac{w_i^2 \tau^2}{1 + \tau^2 \Lambda_i} .

No answer has a smaller expected absolute error than the median. Clipping is monotone, so the median of v is
:math:`c = \mathrm{clip}(m, -3, 3)`. Its error is what the distribution has on either side of it, with
:math:`H(t) = (t - m) \Phi((t - m) / \sigma) + \sigma \varphi((t - m) / \sigma)`, whose derivative is
:math:`\Phi((t - m) / \sigma)`:

.. math::

    E(|v - c| \mid x) = \int_{-3}^{c} P(v \le t \mid x)\, dt + \int_{c}^{3} P(v > t \mid x)\, dt
        = 2 H(c) - H(-3) - H(3) + 3 - c .

Given the lengths :math:`\sigma` is known and :math:`m \sim N(0, \tau^2 - \sigma^2)`: the best MAE is the mean of this
error over m and the lengths.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from datamodules.conditions import CONDITION_TABLE, CONDITIONS, present_under
from datamodules.errors import InputError
from datamodules.linear_gaussian.features import FloatArray
from datamodules.linear_gaussian.observation import BoolArray, IntArray, ObservedLatent, Sequences
from datamodules.linear_gaussian.views import VIEWS, View

END = 3.0
"""Values are from minus this to this."""

_CARRIERS = 3
"""Coordinates of s that the value depends on."""

_DECIMALS = 4  # of values: the last bits of another machine's linear algebra fall away

_NODES = 2001
_WIDTH = 8.0  # standard deviations to either side


@dataclass(frozen=True)
class SentimentGenerator(ObservedLatent):
    """The generator and its best answer; see the module's docstring for the equations.

    Attributes:
        seed: fixes the mixing matrices and the utterances that are written. The best MAE does not depend on it.
        spread: tau, also the standard deviation of the value before it is clipped.
        gain_swing: a in [0, 1), how much the gain rises in the middle of an utterance.
        gain_decay: b, how much fainter longer utterances are.
        views: audio, visual, text.

    Raises:
        InputError: the parameters do not fit together.
    """

    title: ClassVar[str] = "ifmmin linear-Gaussian values"
    seed: int = 0
    spread: float = 1.5
    gain_swing: float = 0.5
    gain_decay: float = 0.1
    views: tuple[View, View, View] = VIEWS

    def __post_init__(self) -> None:
        """Check that the parameters fit together."""
        self.check(_CARRIERS)
        if not self.spread > 0:
            raise InputError(f"linear-Gaussian corpus: spread {self.spread}; it must be positive.")

    @property
    def meaning(self) -> dict[str, Any]:
        """What the values are, for the description of the corpus."""
        return {"scale": [-END, END]}

    @property
    def semantic_power(self) -> FloatArray:
        """Mean square of each coordinate of s, float64 [k]."""
        return np.full(self.latent_dim, self.spread**2)

    @cached_property
    def direction(self) -> FloatArray:
        """w, float64 [k]."""
        direction = np.zeros(self.latent_dim)
        direction[:_CARRIERS] = 1 / math.sqrt(_CARRIERS)
        return direction

    def draw(
        self, count: int, rng: np.random.Generator, first: BoolArray | None = None
    ) -> tuple[npt.NDArray[np.float32], tuple[Sequences, Sequences, Sequences]]:
        """Draw ``count`` utterances: values float32 [N], and frames. They are independent, whatever is ``first``."""
        semantic = self.spread * rng.standard_normal((count, self.latent_dim))
        audio, visual, text = (self._sample_frames(m, z, rng) for m, z in enumerate(self._seen(semantic, rng)))
        values = np.clip(semantic @ self.direction, -END, END)
        return values.round(_DECIMALS).astype(np.float32), (audio, visual, text)

    def best_answers(
        self, values: Sequence[npt.NDArray[np.floating]], offsets: Sequence[npt.NDArray[np.integer]]
    ) -> FloatArray:
        """Median of the value given what is available, under the seven conditions.

        Args:
            values: audio, visual, text: [F_m, width_m], the frames of N utterances one after the other, features as
                written.
            offsets: audio, visual, text: int [N + 1], utterance i holding ``values[m][o[i]:o[i + 1]]``.

        Returns:
            float64 [7, N] in [-3, 3], by :data:`~datamodules.conditions.CONDITIONS`.

        Raises:
            InputError: the frames of a modality do not have its width, or the offsets do not end at their number.
        """
        eta, precision = self.available(
            [self._evidence(m, values[m], offsets[m]) for m in range(3)], CONDITION_TABLE.numpy()[:, None]
        )
        middle = self.spread**2 * eta / (1 + self.spread**2 * precision) @ self.direction
        return np.clip(middle, -END, END)

    def best_mae(self, condition: str) -> float:
        """The least expected absolute error of any answer under ``condition``, over all utterances.

        It is exact up to the quadrature over m, whose error is below 1e-6.

        Raises:
            InputError: ``condition`` is not one of the seven.
        """
        if condition not in CONDITIONS:
            raise InputError(f"condition {condition!r}: choose one of {', '.join(CONDITIONS)}.")
        precision, share = np.zeros((1, self.latent_dim)), np.ones(1)
        for modality in range(3):
            if present_under(condition)[modality]:
                lengths, probability = self._length_distribution(modality)
                own = self._precision(modality, lengths)
                precision = (precision[:, None] + own).reshape(-1, self.latent_dim)
                share = np.outer(share, probability).ravel()
        variance = (self.direction**2 * self.spread**2 / (1 + self.spread**2 * precision)).sum(axis=1)
        node = np.linspace(-_WIDTH, _WIDTH, _NODES)
        density = np.exp(-(node**2) / 2)
        density /= density.sum()
        middle = np.sqrt(self.spread**2 - variance)[:, None] * node
        return float(share @ expected_error(middle, np.sqrt(variance)[:, None]) @ density)

    def _length_distribution(self, modality: int) -> tuple[IntArray, FloatArray]:
        """The lengths of a modality that occur, int64 [L], and how often each does, float64 [L]."""
        view = self.views[modality]
        lengths = np.arange(view.shortest, view.longest + 1)
        if view.length_spread == 0:
            return self._clipped_lengths(modality, np.array([view.median_length])), np.ones(1)
        below = ndtr(np.log((lengths[:-1] + 0.5) / view.median_length) / view.length_spread)
        return lengths, np.diff(below, prepend=0.0, append=1.0)

    def _precision(self, modality: int, lengths: IntArray) -> FloatArray:
        """The diagonal of Lambda_m, float64 [L, k], of sequences with these lengths."""
        energy = self._energy(modality, lengths)[:, None]
        return self._weigh(modality, np.zeros((len(lengths), self.latent_dim)), energy)[1]


def expected_error(middle: FloatArray, deviation: FloatArray) -> FloatArray:
    """Mean absolute error of the median of a normal value that is clipped to -3..3, float64 [L, Q].

    Args:
        middle: means, float64 [L, Q].
        deviation: standard deviations, float64 [L, 1], positive.

    Far from the ends it is that of a normal distribution, sqrt(2 / pi) standard deviations:

    >>> expected_error(np.zeros((1, 1)), np.array([[0.5]])).round(6).tolist()
    [[0.398942]]
    """
    best = np.clip(middle, -END, END)

    def area(end: FloatArray | float) -> FloatArray:
        z = (end - middle) / deviation
        found: FloatArray = deviation * (z * ndtr(z) + np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi))
        return found

    error: FloatArray = 2 * area(best) - area(-END) - area(END) + END - best
    return error
