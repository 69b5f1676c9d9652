r"""The generator behind the built-in synthetic corpora, and its Bayes-optimal posterior in closed form.

For one utterance, with modalities m in {audio, visual, text}:

.. math::

    y &\sim \mathrm{Cat}(\pi)                         && \text{class, IEMOCAP's priors} \\
    s \mid y &\sim N(\mu_y, \tau^2 I_k)               && \text{semantic latent, shared by the modalities} \\
    z_m &= P_m s + q_m n_m,\quad n_m \sim N(0, I_k)   && \text{what m sees of it, and a private nuisance} \\
    d_m &\sim N(0, \delta_m^2 I)                      && \text{a distractor, the same in all frames} \\
    x_{m,t} &= g_t(T_m)\, W_m z_m + B_m d_m + \sigma_m e_{m,t},\quad e_{m,t} \sim N(0, I_D)  && t = 0 .. T_m - 1

The first three coordinates of s carry the emotion (arousal, valence, dominance: the classes' means
are the corners of a tetrahedron); the others are content that the modalities share and that says
nothing about the class. :math:`P_m = \mathrm{diag}(l_m)`. The columns of :math:`[W_m\ B_m]` are orthonormal
and drawn from the seed. The lengths T_m are drawn apart from everything else, and the gain is a known
function of t and T_m, 1 where a = b = 0:

.. math:: g_t(T) = (1 + a \sin(\pi (t + 1/2) / T)) \, (T_0 / T)^b .

What is written of x is an invertible function of it, :class:`~datamodules.linear_gaussian.features.WrittenFeatures`;
the posterior begins with its inverse.

**Posterior.** Given the lengths all is linear and Gaussian. :math:`W_m^\top x_{m,t}` is free of :math:`d_m`, and the
noise in it is independent of the noise in every direction orthogonal to :math:`W_m`: so the distractor leaves the
Bayes rule as it is. With :math:`G_m = \sum_t g_t^2`, the frames speak about :math:`z_m` only through
:math:`\sum_t g_t W_m^\top x_{m,t}`, so that the likelihood of s given modality m is, up to a factor free of s and y,
:math:`\exp(\eta_m^\top s - s^\top \Lambda_m s / 2)` with diagonal

.. math::

    \eta_m = \frac{P_m \sum_t g_t W_m^\top x_{m,t}}{q_m^2 G_m + \sigma_m^2}, \qquad
    \Lambda_m = \frac{G_m P_m^2}{q_m^2 G_m + \sigma_m^2} .

Given s the modalities are independent, so an absent one is left out of the sums :math:`\eta = \sum_m \eta_m`,
:math:`\Lambda = \sum_m \Lambda_m`, and integrating s out against :math:`N(\mu_y, \tau^2 I)` leaves

.. math::

    \log p(y \mid x) = \log \pi_y + \mu_y^\top (I + \tau^2 \Lambda)^{-1} \eta
                       - \tfrac12 \mu_y^\top (I + \tau^2 \Lambda)^{-1} \Lambda \mu_y + \text{const} .

It takes the features as written, before any normalisation.

With ``stay`` the labels of successive utterances are a Markov chain: :mod:`datamodules.linear_gaussian.memory`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from datamodules.conditions import CONDITION_TABLE, CONDITIONS
from datamodules.errors import InputError
from datamodules.linear_gaussian.features import FloatArray
from datamodules.linear_gaussian.memory import LabelChain
from datamodules.linear_gaussian.observation import BoolArray, IntArray, ObservedLatent, Sequences
from datamodules.linear_gaussian.views import OVERLAP, VIEWS, View

VERSION = 2
"""Raised whenever the same parameters would give other values."""

CLASS_NAMES: tuple[str, ...] = ("angry", "happy", "neutral", "sad")
"""The classes in label order, as in IEMOCAP."""

CLASS_COUNTS: tuple[int, ...] = (1103, 1636, 1708, 1084)
"""IEMOCAP's utterances per class; their shares are the priors."""

# Arousal, valence, dominance of each class: four corners of a cube, all equally far apart.
_EMOTIONS: FloatArray = np.array([[1, -1, -1], [1, 1, 1], [-1, 1, -1], [-1, -1, 1]], dtype=np.float64)

_CONDITION_TABLE: BoolArray = CONDITION_TABLE.numpy()


CUBE = math.sqrt(8)
"""Mutual distance of the classes' means where they are corners of the cube [-1, 1]^3."""


@dataclass(frozen=True)
class Sample:
    """Utterances drawn from the generator.

    Attributes:
        labels: int64 [N], positions in :data:`CLASS_NAMES`.
        frames: audio, visual and text of each utterance, features as written.
    """

    labels: IntArray
    frames: tuple[Sequences, Sequences, Sequences]


@dataclass(frozen=True)
class LinearGaussianCorpus(ObservedLatent):
    """The generator and its posterior; see the module's docstring for the equations.

    Attributes:
        seed: fixes the mixing matrices and the utterances that :func:`write_corpus` draws. The Bayes
            accuracy does not depend on it.
        overlap: tau.
        separation: mutual distance of the classes' means.
        gain_swing: a in [0, 1), how much the gain rises in the middle of an utterance.
        gain_decay: b, how much fainter longer utterances are.
        views: audio, visual, text.
        stay: r, the probability that the next turn of a dialogue has the same label; None: labels are independent.

    Raises:
        InputError: the parameters do not fit together.
    """

    title: ClassVar[str] = "ifmmin linear-Gaussian corpus"
    seed: int = 0
    overlap: float = OVERLAP
    separation: float = CUBE
    gain_swing: float = 0.5
    gain_decay: float = 0.1
    views: tuple[View, View, View] = VIEWS
    stay: float | None = None

    def __post_init__(self) -> None:
        """Check that the parameters fit together."""
        self.check(_EMOTIONS.shape[1])
        if not (self.overlap > 0 and self.separation > 0):
            raise InputError("linear-Gaussian corpus: overlap > 0 and separation > 0 must hold.")
        _ = self.chain  # refuses a stay that is out of range

    @property
    def meaning(self) -> dict[str, Any]:
        """What the labels are, for the description of the corpus."""
        return {"classes": CLASS_NAMES}

    @cached_property
    def priors(self) -> FloatArray:
        """pi, float64 [4]."""
        counts = np.array(CLASS_COUNTS, dtype=np.float64)
        priors: FloatArray = counts / counts.sum()
        return priors

    @cached_property
    def chain(self) -> LabelChain:
        """How labels follow each other."""
        return LabelChain(self.priors, self.stay)

    @cached_property
    def class_means(self) -> FloatArray:
        """mu, float64 [4, k]."""
        means = np.zeros((len(_EMOTIONS), self.latent_dim))
        means[:, : _EMOTIONS.shape[1]] = _EMOTIONS * (self.separation / CUBE)
        return means

    @property
    def semantic_power(self) -> FloatArray:
        """Mean square of each coordinate of s over the classes, float64 [k]."""
        power: FloatArray = self.overlap**2 + self.priors @ self.class_means**2
        return power

    def sample(self, count: int, rng: np.random.Generator, first: BoolArray | None = None) -> Sample:
        """Draw ``count`` utterances.

        Args:
            count: N.
            rng: of everything but the mixing.
            first: bool [N], where a dialogue begins, whose labels have a memory with ``stay``; None: they are one.
        """
        labels, seen = self._sample_views(count, rng, first)
        audio, visual, text = (self._sample_frames(m, z, rng) for m, z in enumerate(seen))
        return Sample(labels, (audio, visual, text))

    def draw(
        self, count: int, rng: np.random.Generator, first: BoolArray | None = None
    ) -> tuple[npt.NDArray[np.float64], tuple[Sequences, Sequences, Sequences]]:
        """Draw as :meth:`sample` does: one-hot labels float64 [N, 4], and frames."""
        sample = self.sample(count, rng, first)
        return np.eye(len(CLASS_NAMES))[sample.labels], sample.frames

    def log_posterior(self, frames: Sequence[npt.ArrayLike | None]) -> FloatArray:
        """Compute log p(y | what is available) of one utterance.

        Args:
            frames: audio, visual, text: [T_m, width_m], features as written, or None where the modality is absent.

        Returns:
            float64 [4], normalised, in the order of :data:`CLASS_NAMES`. With nothing available it is the prior.

        Raises:
            InputError: the frames of a modality do not have its width.
        """
        values = [
            np.zeros((0, view.width)) if given is None else np.asarray(given, dtype=np.float64)
            for given, view in zip(frames, self.views, strict=True)
        ]
        offsets = [np.array([0, len(value)]) for value in values]
        present = np.array([given is not None for given in frames])
        answer: FloatArray = self.log_posterior_batch(values, offsets, present[None, None])[0, 0]
        return answer

    def log_posterior_batch(
        self,
        values: Sequence[npt.NDArray[np.floating]],
        offsets: Sequence[npt.NDArray[np.integer]],
        present: BoolArray = _CONDITION_TABLE[:, None],
    ) -> FloatArray:
        """Compute log p(y | what is available) of N utterances under C conditions.

        Args:
            values: audio, visual, text: [F_m, width_m], the frames of all utterances one after the other, features
                as written.
            offsets: audio, visual, text: int [N + 1], utterance i holding ``values[m][o[i]:o[i + 1]]``; no
                frames at all are the same as an absent modality.
            present: bool [C, N, 3] or [C, 1, 3], what each condition shows. By default the seven conditions
                in the order of :data:`~datamodules.conditions.CONDITIONS`. What is absent does not matter,
                be it NaN.

        Returns:
            float64 [C, N, 4], normalised over the classes.

        Raises:
            InputError: the frames of a modality do not have its width, or the offsets do not end at their number.
        """
        return self._classify([self._evidence(m, values[m], offsets[m]) for m in range(3)], present)

    def bayes_accuracy(self, condition: str, count: int = 200_000, seed: int = 0) -> float:
        """Accuracy (WA) in [0, 1] of the Bayes rule under ``condition``, by Monte-Carlo.

        It draws the sufficient statistics rather than frames; the standard error is below ``0.5 / sqrt(count)``.

        Raises:
            InputError: ``condition`` is not one of the seven.
        """
        if condition not in CONDITIONS:
            raise InputError(f"condition {condition!r}: choose one of {', '.join(CONDITIONS)}.")
        rng = np.random.default_rng([seed, 2])
        labels, seen = self._sample_views(count, rng)
        drawn = [self._sample_evidence(m, z, rng) for m, z in enumerate(seen)]
        present = _CONDITION_TABLE[CONDITIONS.index(condition)][None, None]
        decision = self._classify(drawn, present)[0].argmax(axis=-1)
        return float(np.mean(decision == labels))

    def _sample_views(
        self, count: int, rng: np.random.Generator, first: BoolArray | None = None
    ) -> tuple[IntArray, list[FloatArray]]:
        """Draw y, int64 [N], and z_m, float64 [N, k], of the three modalities."""
        labels = self.chain.sample(count, rng, first)
        semantic = self.class_means[labels] + self.overlap * rng.standard_normal((count, self.latent_dim))
        return labels, self._seen(semantic, rng)

    def _classify(self, evidence: Sequence[tuple[FloatArray, FloatArray]], present: BoolArray) -> FloatArray:
        """Compute log p(y | x), float64 [C, N, 4], from three pairs (eta_m, Lambda_m) and bool [C, N or 1, 3]."""
        eta, precision = self.available(evidence, present)
        shrink = 1 + self.overlap**2 * precision
        logits = np.log(self.priors) + (eta / shrink) @ self.class_means.T
        logits -= 0.5 * (precision / shrink) @ (self.class_means**2).T
        logits -= logits.max(axis=-1, keepdims=True)
        normalised: FloatArray = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
        return normalised
