"""Missing patterns inside sequences: frames that are lost, one by one or in bursts, and frames that are noisy.

A mask takes whole modalities away (:mod:`datamodules.batches.masks`); a pattern changes the frames of those that are
there. Like a mask it is a pure function of (seed, epoch, utterance id): workers, ranks, batch order and padding cannot
change it. What a row may see has the pattern, what a loss has as its target does not:
:meth:`~datamodules.batches.batch.Batch.unmasked` shows whole frames.

A lost frame is zero after normalisation, and the sequence keeps its length. This is the protocol of TFR-Net (Yuan et
al., ACM MM 2021) and EMT-DLFR (Sun et al., TAC 2023), so that figures are of the same kind as theirs, and what a
sensor delivers that goes on counting: a model knows how long the utterance was. Differs from theirs: at least one frame
of a modality that is there stays, or the modality would be absent, which is what masks are for; their text keeps its
first and last token, and shows another token as unknown, which frozen embeddings cannot.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from datamodules.batches.masks import Bits, BoolArray, random_bits, random_uniform, uniform_of
from datamodules.conditions import MODALITIES, per_modality
from datamodules.errors import InputError
from datamodules.text import printable

LongArray = npt.NDArray[np.int64]

MOST_NOISE = 1_000.0
"""Largest noise, in standard deviations; beyond it is a slip of the keyboard."""

LONGEST_BURST = 100_000.0
"""Largest mean length of a burst, in frames."""

BURST = 10.0
"""Mean length of a burst, in frames, where none is given."""

EVALUATED_WITH = "evaluated with"
"""How tables begin to say of a model which pattern its frames had; published figures are never beside it."""

# Streams of random bits, one for each modality; masks use those up to 4.
_FRAMES, _KEPT, _NOISE = 5, 8, 11


@dataclass(frozen=True)
class FramePattern(ABC):
    """Base of the patterns.

    Attributes:
        rates: of audio, visual and text; 0 leaves the frames of a modality as they are, to the bit.

    Raises:
        InputError: a rate is out of range.
    """

    rates: tuple[float, float, float]

    name: ClassVar[str]
    """As options and tables call it."""
    what: ClassVar[str]
    """What ``rates`` are."""
    most: ClassVar[float] = 1.0
    """The largest rate."""
    before_normalisation: ClassVar[bool] = False
    """Whether frames as stored are changed, not normalised ones."""

    def __post_init__(self) -> None:
        """Check the rates."""
        for modality, rate in zip(MODALITIES, self.rates, strict=True):
            if not 0.0 <= rate <= self.most:
                raise InputError(f"{self.what} {rate:g} of {modality}: it must be from 0 to {self.most:g}.")

    def __str__(self) -> str:
        """As an option gives it."""
        rates = self.rates[:1] if len(set(self.rates)) == 1 else self.rates
        return f"{self.name}:{','.join(f'{rate:g}' for rate in rates)}"

    @abstractmethod
    def apply(
        self, frames: Tensor, lengths: LongArray, keys: Bits, modality: int, seed: int, epoch: int, spread: Tensor
    ) -> Tensor:
        """Change the frames of one modality.

        Args:
            frames: float32 [K, T, D], padded; not changed.
            lengths: int64 [K].
            keys: uint64 [K], from :func:`~datamodules.batches.masks.utterance_keys`.
            modality: 0 audio, 1 visual, 2 text.
            seed: of the pattern.
            epoch: of training.
            spread: float32 [D], standard deviation of each value over the training frames, 0 of what does not vary;
                only noise reads it.

        Returns:
            float32 [K, T, D]; padding is as it was.
        """


@dataclass(frozen=True)
class LostFrames(FramePattern):
    r"""Each frame lost with probability ``rate``, whatever becomes of others.

    One of T frames at random stays where all would be lost, so that the expected share of lost frames is
    :math:`r - r^T / T`. But for that one, what is lost at one rate is lost at every higher one.
    """

    name = "frames"
    what = "rate"

    def lost(self, keys: Bits, lengths: LongArray, modality: int, seed: int, epoch: int) -> BoolArray:
        """Bool [K, T], T the largest of ``lengths`` [K]: which frames are lost; never all of a sequence."""
        true = np.arange(lengths.max(initial=0)) < lengths[:, None]
        lost = self._drawn(frame_uniform(keys, true.shape[1], seed, epoch, _FRAMES + modality), self.rates[modality])
        lost &= true
        nothing = np.flatnonzero((lost.sum(axis=1) == lengths) & (lengths > 0))
        stays = random_uniform(keys[nothing], seed, epoch, _KEPT + modality) * lengths[nothing]
        lost[nothing, stays.astype(np.int64)] = False
        return lost

    def _drawn(self, uniform: npt.NDArray[np.float64], rate: float) -> BoolArray:
        """Bool [K, T] of uniform numbers [K, T] in [0, 1)."""
        return uniform < rate

    def share(self, modality: int, length: int) -> float:
        """Expected share of lost frames of a sequence of ``length`` frames."""
        rate = self.rates[modality]
        return rate - rate * self._stays(rate) ** (length - 1) / length

    def _stays(self, rate: float) -> float:
        """Probability that a frame is lost after a lost one."""
        return rate

    def apply(
        self, frames: Tensor, lengths: LongArray, keys: Bits, modality: int, seed: int, epoch: int, spread: Tensor
    ) -> Tensor:
        """See :class:`FramePattern`."""
        lost = torch.from_numpy(self.lost(keys, lengths, modality, seed, epoch))
        changed = frames.clone()
        # By index: fewer values are written than by a mask over all of them.
        changed[:, : lost.shape[1]][lost] = 0.0
        return changed


@dataclass(frozen=True)
class LostBursts(LostFrames):
    r"""Frames lost in bursts of consecutive ones, the same expected share as :class:`LostFrames` at every frame.

    A Markov chain of two states (Gilbert, 1960): a lost frame is followed by a lost one with probability
    :math:`1 - 1/L`, a kept one by a lost one with :math:`r / (L (1 - r))`, and the first frame is lost with r. Bursts
    are geometric with mean L. At rates above :math:`1 - 1/L` independent frames have longer bursts than that,
    :math:`1 / (1 - r)`, and so have these.

    Attributes:
        length: L, in frames.

    Raises:
        InputError: ``length`` is out of range.
    """

    length: float = BURST

    name = "bursts"

    def __post_init__(self) -> None:
        """Check rates and length."""
        super().__post_init__()
        if not 1.0 <= self.length <= LONGEST_BURST:
            raise InputError(f"mean length {self.length:g}: it must be from 1 to {LONGEST_BURST:g}.")

    def __str__(self) -> str:
        """As an option gives it."""
        return f"{super().__str__()}:{self.length:g}"

    def _drawn(self, uniform: npt.NDArray[np.float64], rate: float) -> BoolArray:
        if rate == 1.0 or not uniform.size:
            return uniform < rate
        stays = self._stays(rate)
        begins = (1 - stays) * rate / (1 - rate)
        # Below ``begins`` a frame is lost and from ``stays`` on it is kept, whatever was before; between, it is as the
        # frame before. So each frame is as the last one that was decided.
        lost = uniform < begins
        lost[:, 0] = uniform[:, 0] < rate
        decided = lost | (uniform >= stays)
        decided[:, 0] = True
        last = np.maximum.accumulate(np.where(decided, np.arange(uniform.shape[1]), 0), axis=1)
        return np.take_along_axis(lost, last, axis=1)

    def _stays(self, rate: float) -> float:
        return 1.0 if rate == 1.0 else 1 - 1 / max(self.length, 1 / (1 - rate))


@dataclass(frozen=True)
class NoisyFrames(FramePattern):
    """Normal noise added to every frame, independent in each value.

    A rate is its standard deviation in units of that of the same value over the training split's frames. Frames are
    changed as they are stored, before they are normalised, by whatever: a value that does not vary gets no noise.
    """

    name = "noise"
    what = "standard deviation"
    most = MOST_NOISE
    before_normalisation = True

    def apply(
        self, frames: Tensor, lengths: LongArray, keys: Bits, modality: int, seed: int, epoch: int, spread: Tensor
    ) -> Tensor:
        """See :class:`FramePattern`."""
        noise = np.zeros(frames.shape, dtype=np.float32)
        names = random_bits(keys, seed, epoch, _NOISE + modality)
        # A generator for each utterance, named by its id: its numbers do not depend on its place in the batch.
        for row, (name, length) in enumerate(zip(names.tolist(), lengths.tolist(), strict=True)):
            random = np.random.Generator(np.random.SFC64(name))
            random.standard_normal(dtype=np.float32, out=noise[row, :length])
        return torch.from_numpy(noise).mul_(self.rates[modality] * spread).add_(frames)


PATTERNS: Mapping[str, type[FramePattern]] = {
    pattern.name: pattern for pattern in (LostFrames, LostBursts, NoisyFrames)
}
"""Patterns by name."""


def frame_uniform(keys: Bits, longest: int, *streams: int) -> npt.NDArray[np.float64]:
    """float64 [K, longest] in [0, 1) for each frame of each key; a frame's does not depend on ``longest``."""
    return uniform_of(random_bits(random_bits(keys, *streams)[:, None], np.arange(longest)))


def frame_pattern(text: str | None, option: str = "pattern") -> FramePattern | None:
    """Make the pattern that an option names; None of None, and of a pattern that changes nothing.

    >>> frame_pattern("frames:0.3")
    LostFrames(rates=(0.3, 0.3, 0.3))
    >>> print(frame_pattern("bursts:0.2,0.5,0.8:5"), frame_pattern("noise:0"))
    bursts:0.2,0.5,0.8:5 None

    Args:
        text: ``NAME:RATE``, or ``NAME:RATE,RATE,RATE`` for audio, visual and text; after bursts, ``:LENGTH``.
        option: that messages name.

    Raises:
        InputError: it is none of these.
    """
    if text is None:
        return None
    name, *parts = text.split(":")
    try:
        kind = PATTERNS[name]
        rates, *length = parts
        numbers = [float(part) for part in rates.split(",")]
        if len(numbers) not in (1, len(MODALITIES)) or len(length) > (kind is LostBursts):
            raise ValueError
        three = per_modality(numbers * 3 if len(numbers) == 1 else numbers)
        pattern = LostBursts(three, float(length[0])) if length else kind(three)
    except (KeyError, ValueError):
        raise InputError(
            f"{option} {printable(repr(text), 60)}: give frames:RATE, bursts:RATE, bursts:RATE:LENGTH or "
            "noise:DEVIATION, with one number or those of audio, visual and text, such as frames:0.2,0.5,0.8."
        ) from None
    except InputError as error:
        raise InputError(f"{option} {printable(repr(text), 60)}: {error}") from None
    return pattern if any(pattern.rates) else None
