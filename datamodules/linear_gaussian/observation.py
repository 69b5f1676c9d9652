"""Latents seen as frames, and what frames tell of a latent: shared by the generators of the built-in corpora.

The equations are in :mod:`datamodules.linear_gaussian.generator`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from datamodules.conditions import MODALITIES
from datamodules.errors import InputError
from datamodules.linear_gaussian.features import FloatArray, WrittenFeatures
from datamodules.linear_gaussian.views import View

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Sequences:
    """N sequences of one modality, one after the other.

    Attributes:
        values: float64 [F, D], all frames.
        offsets: int64 [N + 1]; sequence i is ``values[offsets[i]:offsets[i + 1]]``.
    """

    values: FloatArray
    offsets: IntArray


class ObservedLatent(ABC):
    """Three views of a latent s of mean square ``semantic_power``; subclasses draw s.

    Attributes:
        title: of the generator, which a folder that it wrote is known by.
        seed: of the mixing matrices.
        gain_swing: a.
        gain_decay: b.
        views: audio, visual, text.
    """

    title: ClassVar[str]
    seed: int
    gain_swing: float
    gain_decay: float
    views: tuple[View, View, View]

    @property
    @abstractmethod
    def meaning(self) -> dict[str, Any]:
        """What the labels are, for the description of the corpus."""

    @abstractmethod
    def draw(
        self, count: int, rng: np.random.Generator, first: BoolArray | None = None
    ) -> tuple[npt.NDArray[np.floating], tuple[Sequences, Sequences, Sequences]]:
        """Draw ``count`` utterances.

        Args:
            count: N.
            rng: of everything but the mixing.
            first: bool [N], where a dialogue begins; None: they are one.

        Returns:
            labels as they are written, floats [N] or [N, C]; frames of audio, visual and text, features as written.
        """

    @property
    @abstractmethod
    def semantic_power(self) -> FloatArray:
        """Mean square of each coordinate of s, float64 [k]."""

    def check(self, least: int) -> None:
        """Check that the shared parameters fit together, and that the latent has at least ``least`` coordinates.

        Raises:
            InputError: they do not.
        """
        sizes = {len(view.loadings) for view in self.views}
        if len(self.views) != 3 or len(sizes) != 1 or min(sizes) < least:
            raise InputError(f"linear-Gaussian corpus: give three views with as many loadings each, at least {least}.")
        if not isinstance(self.seed, int) or self.seed < 0:
            raise InputError(f"linear-Gaussian corpus: seed {self.seed!r}; give a whole number from 0 on.")
        if not (0 <= self.gain_swing < 1 and self.gain_decay >= 0):
            raise InputError("linear-Gaussian corpus: gain_swing in [0, 1) and gain_decay >= 0 must hold.")
        for view in self.views:
            view.check()

    @property
    def latent_dim(self) -> int:
        """k, the size of the semantic latent."""
        return len(self.views[0].loadings)

    @cached_property
    def mixing(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """W_m, float64 [D_m, k], for audio, visual, text."""
        audio, visual, text = (columns[:, : self.latent_dim] for columns in self._columns)
        return audio, visual, text

    @cached_property
    def distraction(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """B_m, float64 [D_m, distractors], for audio, visual, text."""
        audio, visual, text = (columns[:, self.latent_dim :] for columns in self._columns)
        return audio, visual, text

    @cached_property
    def _columns(self) -> list[FloatArray]:
        """[W_m B_m] of the three modalities."""
        rng = np.random.default_rng([self.seed, 0])
        found = []
        for view in self.views:
            columns, triangle = np.linalg.qr(rng.standard_normal((view.dim, self.latent_dim + view.distractors)))
            found.append(columns * np.sign(np.diag(triangle)))  # QR leaves the signs open; this makes them unique
        return found

    @cached_property
    def features(self) -> tuple[WrittenFeatures, WrittenFeatures, WrittenFeatures]:
        """How the linear features of audio, visual and text are written, and read again."""
        # The mean of g_t^2 over an utterance of the median length.
        gain = 1 + 4 * self.gain_swing / np.pi + self.gain_swing**2 / 2
        written = []
        for view in self.views:
            signal = gain * np.sum(np.square(view.loadings) * self.semantic_power + view.nuisance**2)
            power = (signal + view.distractors * view.distractor_std**2) / view.dim + view.noise**2
            written.append(WrittenFeatures.of_rms(view.dim, float(power), view.rms, view.split_signs, view.outliers))
        audio, visual, text = written
        return audio, visual, text

    def gains(self, modality: int, lengths: IntArray) -> FloatArray:
        """g_t(T), float64 [F], of every frame of sequences with ``lengths`` int64 [N], F their sum."""
        frames = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        length = np.repeat(lengths, lengths)
        level = (self.views[modality].median_length / length) ** self.gain_decay
        gain: FloatArray = (1 + self.gain_swing * np.sin(np.pi * (frames + 0.5) / length)) * level
        return gain

    def available(
        self, evidence: Sequence[tuple[FloatArray, FloatArray]], present: BoolArray
    ) -> tuple[FloatArray, FloatArray]:
        """Sum eta_m and Lambda_m, pairs of float64 [N, k], over what bool [C, N or 1, 3] shows: float64 [C, N, k]."""
        shown = present[..., None]
        # where, not a product: a NaN in what is absent must not get through.
        eta, precision = (
            np.where(shown, np.stack(part, axis=1), 0.0).sum(axis=2) for part in zip(*evidence, strict=True)
        )
        return eta, precision

    def _seen(self, semantic: FloatArray, rng: np.random.Generator) -> list[FloatArray]:
        """Draw z_m, float64 [N, k] of each modality, of latents s [N, k]."""
        return [semantic * view.loadings + view.nuisance * rng.standard_normal(semantic.shape) for view in self.views]

    def _sample_lengths(self, modality: int, count: int, rng: np.random.Generator) -> IntArray:
        view = self.views[modality]
        return self._clipped_lengths(
            modality, view.median_length * np.exp(view.length_spread * rng.standard_normal(count))
        )

    def _clipped_lengths(self, modality: int, drawn: FloatArray) -> IntArray:
        view = self.views[modality]
        return np.clip(np.rint(drawn), view.shortest, view.longest).astype(np.int64)

    def _sample_frames(self, modality: int, z: FloatArray, rng: np.random.Generator) -> Sequences:
        lengths = self._sample_lengths(modality, len(z), rng)
        view = self.views[modality]
        frames = self.gains(modality, lengths)[:, None] * np.repeat(z @ self.mixing[modality].T, lengths, axis=0)
        distractor = view.distractor_std * rng.standard_normal((len(z), view.distractors))
        frames += np.repeat(distractor @ self.distraction[modality].T, lengths, axis=0)
        frames += view.noise * rng.standard_normal(frames.shape)
        return Sequences(self.features[modality].write(frames), _offsets(lengths))

    def _sample_evidence(self, modality: int, z: FloatArray, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
        """Draw eta_m and the diagonal of Lambda_m, float64 [N, k] each, without drawing frames."""
        lengths = self._sample_lengths(modality, len(z), rng)
        energy = self._energy(modality, lengths)[:, None]
        # sum_t g_t W' x_t = G z + noise whose covariance is sigma^2 G I.
        noise = self.views[modality].noise * np.sqrt(energy) * rng.standard_normal(z.shape)
        return self._weigh(modality, energy * z + noise, energy)

    def _evidence(
        self, modality: int, values: npt.NDArray[np.floating], offsets: npt.NDArray[np.integer]
    ) -> tuple[FloatArray, FloatArray]:
        """eta_m and the diagonal of Lambda_m, float64 [N, k] each, of the frames."""
        name, width = MODALITIES[modality], self.views[modality].width
        if values.ndim != 2 or values.shape[1] != width:
            raise InputError(f"{name}: frames of shape {list(values.shape)}; the posterior needs [frames, {width}].")
        if offsets[0] != 0 or offsets[-1] != len(values):
            raise InputError(f"{name}: offsets {offsets[0]} .. {offsets[-1]}; they must span the {len(values)} frames.")
        lengths = np.diff(offsets).astype(np.int64)
        projected = self.features[modality].read(values) @ self.mixing[modality]
        projected *= self.gains(modality, lengths)[:, None]
        owner = np.repeat(np.arange(len(lengths)), lengths)
        sums = [np.bincount(owner, weights=column, minlength=len(lengths)) for column in projected.T]
        return self._weigh(modality, np.stack(sums, axis=1), self._energy(modality, lengths)[:, None])

    def _energy(self, modality: int, lengths: IntArray) -> FloatArray:
        """G_m, float64 [N]."""
        distinct, position = np.unique(lengths, return_inverse=True)
        owner = np.repeat(np.arange(len(distinct)), distinct)
        power = np.bincount(owner, weights=self.gains(modality, distinct) ** 2, minlength=len(distinct))
        energy: FloatArray = power[position].astype(np.float64)
        return energy

    def _weigh(self, modality: int, projected: FloatArray, energy: FloatArray) -> tuple[FloatArray, FloatArray]:
        """eta_m and the diagonal of Lambda_m from sum_t g_t W_m' x_t, [N, k], and G_m, [N, 1]."""
        view = self.views[modality]
        variance = view.nuisance**2 * energy + view.noise**2
        loadings = np.array(view.loadings)
        return loadings * projected / variance, loadings**2 * energy / variance


def _offsets(lengths: IntArray) -> IntArray:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
