"""Training masks: what each utterance shows in each epoch.

A training mask is a pure function of (seed, epoch, utterance id): workers, ranks, batch order and
resuming cannot change it. A permanent one is that of epoch 0 in every epoch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from datamodules.conditions import CONDITION_TABLE, CONDITIONS, MISSING_CONDITIONS, MODALITIES, per_modality
from datamodules.errors import InputError
from datamodules.text import printable

Bits = npt.NDArray[np.uint64]


BoolArray = npt.NDArray[np.bool_]


# The constants of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
_GAMMA = np.uint64(0x9E3779B97F4A7C15)


_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)


_MIX_2 = np.uint64(0x94D049BB133111EB)


def utterance_keys(utterances: Sequence[str]) -> Bits:
    """Hash utterance ids to uint64 [N], equal on every machine and in every process.

    >>> utterance_keys(["u1"]).tolist() == utterance_keys(["u1", "u2"])[:1].tolist()
    True
    """
    digests = (hashlib.blake2b(name.encode(), digest_size=8).digest() for name in utterances)
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)


def _mix(bits: Bits) -> Bits:
    """The SplitMix64 finaliser: every output bit depends on every input bit."""
    with np.errstate(over="ignore"):
        bits = (bits ^ (bits >> np.uint64(30))) * _MIX_1
        bits = (bits ^ (bits >> np.uint64(27))) * _MIX_2
    return bits ^ (bits >> np.uint64(31))


def random_bits(keys: Bits, *streams: int | npt.NDArray[np.int64]) -> Bits:
    """uint64 [N]: independent uniform bits for each key and each tuple of integers ``streams``.

    An array of streams broadcasts: [N, 1] keys and [T] streams give [N, T] bits.
    """
    bits = keys
    with np.errstate(over="ignore"):
        for stream in streams:
            bits = _mix(bits + _GAMMA * np.asarray(stream + 1).astype(np.uint64))
    return bits


def uniform_of(bits: Bits) -> npt.NDArray[np.float64]:
    """float64 in [0, 1), of the shape of uniform bits."""
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def random_uniform(keys: Bits, *streams: int) -> npt.NDArray[np.float64]:
    """float64 [N] in [0, 1), as :func:`random_bits`."""
    return uniform_of(random_bits(keys, *streams))


class MaskSampler(Protocol):
    """Draws what each utterance shows in an epoch."""

    def __call__(self, keys: Bits, seed: int, epoch: int) -> BoolArray:
        """Give bool [N, 3], at least one True in each row, for ``keys`` from :func:`utterance_keys`."""


DEFAULT_MASK = "uniform"
"""The protocol of the papers."""

_PATTERNS: BoolArray = CONDITION_TABLE.numpy()


@dataclass(frozen=True)
class UniformConditions:
    """One of the six missing conditions, each with probability 1/6: the protocol of the papers."""

    def __call__(self, keys: Bits, seed: int, epoch: int) -> BoolArray:
        """See :class:`MaskSampler`."""
        drawn = random_uniform(keys, seed, epoch) * len(MISSING_CONDITIONS)
        return _PATTERNS[drawn.astype(np.int64)]


@dataclass(frozen=True)
class MissingRate:
    """Each modality absent with probability ``rate``; a row that would show nothing keeps one at random.

    Raises:
        InputError: ``rate`` is outside [0, 1).
    """

    rate: float

    def __post_init__(self) -> None:
        """Check the rate."""
        if not 0.0 <= self.rate < 1.0:
            raise InputError(f"missing rate {self.rate}: it must be in [0, 1).")

    def __call__(self, keys: Bits, seed: int, epoch: int) -> BoolArray:
        """See :class:`MaskSampler`."""
        kept = np.stack([random_uniform(keys, seed, epoch, m) >= self.rate for m in range(3)], axis=1)
        saved = (random_uniform(keys, seed, epoch, 3) * 3).astype(np.int64)
        nothing = ~kept.any(axis=1)
        kept[nothing, saved[nothing]] = True
        return kept


@dataclass(frozen=True)
class MissingRates:
    r"""Each modality absent with a rate of its own; a row that would show nothing is drawn again.

    A condition's probability is in proportion to the product of 1 - r_m over what it shows and of r_m over what it
    hides. So with :math:`R = r_a r_v r_t`, modality m is absent with probability :math:`(r_m - R) / (1 - R)`.

    Attributes:
        rates: r of audio, visual and text.

    Raises:
        InputError: one of them is outside [0, 1).
    """

    rates: tuple[float, float, float]

    def __post_init__(self) -> None:
        """Check the rates."""
        for name, rate in zip(MODALITIES, self.rates, strict=True):
            if not 0.0 <= rate < 1.0:
                raise InputError(f"missing rate {rate} of {name}: it must be in [0, 1).")

    def __call__(self, keys: Bits, seed: int, epoch: int) -> BoolArray:
        """See :class:`MaskSampler`."""
        rates = np.array(self.rates)
        ends = np.where(_PATTERNS, 1 - rates, rates).prod(axis=1).cumsum()
        drawn = random_uniform(keys, seed, epoch) * ends[-1]
        # Rounded up, the largest number would be past the end.
        condition: npt.NDArray[np.int64] = np.searchsorted(ends, drawn, side="right").clip(max=len(ends) - 1)
        return _PATTERNS[condition]


@dataclass(frozen=True)
class MissingShare:
    """One modality at random stays, and the others are dropped so that ``share`` of all modalities is absent.

    The protocol of GCNet (Lian et al., TPAMI 2023): each of the other two is absent with probability 1.5 ``share``, and
    at 2/3 and above, which their tables call 0.7, one modality alone is left.

    Raises:
        InputError: ``share`` is outside [0, 1).
    """

    share: float

    def __post_init__(self) -> None:
        """Check the share."""
        if not 0.0 <= self.share < 1.0:
            raise InputError(f"missing share {self.share}: it must be in [0, 1).")

    def __call__(self, keys: Bits, seed: int, epoch: int) -> BoolArray:
        """See :class:`MaskSampler`."""
        kept = np.stack([random_uniform(keys, seed, epoch, m) >= 1.5 * self.share for m in range(3)], axis=1)
        stays = (random_uniform(keys, seed, epoch, 3) * 3).astype(np.int64)
        kept[np.arange(len(keys)), stays] = True
        return kept


@dataclass(frozen=True)
class FixedCondition:
    """The same condition for every utterance; ``"avt"`` trains on complete data.

    Raises:
        InputError: ``condition`` is not one of the seven.
    """

    condition: str

    def __post_init__(self) -> None:
        """Check the condition."""
        if self.condition not in CONDITIONS:
            raise InputError(f"condition {self.condition!r}: choose one of {', '.join(CONDITIONS)}.")

    def __call__(self, keys: Bits, seed: int, epoch: int) -> BoolArray:
        """See :class:`MaskSampler`."""
        return np.tile(_PATTERNS[CONDITIONS.index(self.condition)], (len(keys), 1))


def mask_sampler(name: str) -> MaskSampler:
    """Make the sampler that a configuration names.

    >>> mask_sampler("0.3")
    MissingRate(rate=0.3)
    >>> mask_sampler("0.2,0.5,0.8")
    MissingRates(rates=(0.2, 0.5, 0.8))
    >>> mask_sampler("share:0.3")
    MissingShare(share=0.3)

    Args:
        name: ``"uniform"``, a missing rate such as ``"0.3"``, those of audio, visual and text such as
            ``"0.2,0.5,0.8"``, a missing share such as ``"share:0.3"``, or one of the seven conditions.

    Raises:
        InputError: it is none of these.
    """
    try:
        return _sampler(name)
    except InputError as error:
        raise InputError(f"--data.train_mask {printable(repr(name), 60)}: {error}") from None


def _sampler(name: str) -> MaskSampler:
    if name == DEFAULT_MASK:
        return UniformConditions()
    if name in CONDITIONS:
        return FixedCondition(name)
    is_share = name.startswith("share:")
    try:
        rates = [float(part) for part in name.removeprefix("share:").split(",")]
    except ValueError:
        rates = []
    if len(rates) == 1:
        return MissingShare(rates[0]) if is_share else MissingRate(rates[0])
    if len(rates) == len(MODALITIES) and not is_share:
        return MissingRates(per_modality(rates))
    raise InputError(
        "give 'uniform', a missing rate in [0, 1) such as 0.3, "
        f"those of audio, visual and text such as 0.2,0.5,0.8, share:0.3, or one of {', '.join(CONDITIONS)}."
    )


_AGAIN = 4
"""The stream of conditions that are drawn again; :class:`MissingRate` uses those up to 3."""


def restrict(drawn: BoolArray, available: BoolArray, keys: Bits, seed: int, epoch: int) -> BoolArray:
    """Show what is both drawn and available.

    Where that is nothing, one of the conditions that are possible for the utterance is drawn again: of an utterance
    of audio and text {a}, {t} or {a,t}, each with probability 1/3. Like the first draw, it is a pure function of
    (seed, epoch, utterance id).

    Args:
        drawn: bool [N, 3], from a :class:`MaskSampler`.
        available: bool [N, 3], what the corpus has.
        keys: uint64 [N], from :func:`utterance_keys`.
        seed: of the mask.
        epoch: of training.

    Returns:
        bool [N, 3], at least one True in each row in which something is available.

    >>> drawn, available = np.eye(3, dtype=bool)[[0, 0]], np.array([[True, False, True], [False, True, False]])
    >>> restrict(drawn, available, utterance_keys(["u1", "u2"]), seed=0, epoch=0).tolist()
    [[True, False, False], [False, True, False]]
    """
    shown = drawn & available
    nothing = np.flatnonzero(~shown.any(axis=1) & available.any(axis=1))
    if len(nothing):
        possible = ~(_PATTERNS[None] & ~available[nothing, None]).any(axis=2)
        chosen = random_uniform(keys[nothing], seed, epoch, _AGAIN) * possible.sum(axis=1)
        # The first condition at which as many possible ones as were drawn have been passed.
        shown[nothing] = _PATTERNS[(possible.cumsum(axis=1) > chosen.astype(np.int64)[:, None]).argmax(axis=1)]
    return shown
