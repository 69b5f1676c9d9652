"""From the frames that a program gives to frames that a model reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from datamodules.batches.loading import normalized
from datamodules.conditions import CONDITIONS, MODALITIES, present_under
from datamodules.errors import InputError
from datamodules.storage.features import LONGEST
from datamodules.storage.statistics import Statistics
from datamodules.text import printable

Features = Mapping[str, npt.ArrayLike | Tensor | None]
"""Frames [T, D] of one utterance under ``"audio"``, ``"visual"``, ``"text"``; what is absent is left out or None."""

_RAW: Mapping[str, Any] = {"normalization": ["none"] * len(MODALITIES), "statistics": {}}


class ReadFrames(NamedTuple):
    """Frames of one utterance as a model reads them.

    Attributes:
        frames: float32 [T, D] of audio, visual and text, normalised; None where one is absent.
        lost: how many frames have a NaN, by modality, of those that have any.
    """

    frames: list[Tensor | None]
    lost: dict[str, int]

    @property
    def present(self) -> tuple[bool, ...]:
        """What there is of audio, visual and text."""
        return tuple(frames is not None for frames in self.frames)

    @property
    def lengths(self) -> tuple[int, ...]:
        """How many frames there are of audio, visual and text, lost ones included."""
        return tuple(0 if frames is None else len(frames) for frames in self.frames)

    @property
    def seen(self) -> dict[str, int]:
        """How many frames that are not lost there are of each modality that is present."""
        lengths = zip(MODALITIES, self.lengths, strict=True)
        return {name: length - self.lost.get(name, 0) for name, length in lengths if length}

    @property
    def condition(self) -> str:
        """What is present, as a name of :data:`~datamodules.conditions.CONDITIONS`."""
        return next(name for name in CONDITIONS if present_under(name) == self.present)


class FrameReader:
    """Checks and normalises frames, as those of a model's training data were.

    Args:
        feature_dims: frame widths of audio, visual, text.
        trained_on: a checkpoint's record of the training data; None: frames are normalised already.
        source: the checkpoint, for messages.
    """

    def __init__(self, feature_dims: list[int], trained_on: Mapping[str, Any] | None, source: str) -> None:
        self.feature_dims = feature_dims
        self.source = source
        trained_on = _RAW if trained_on is None else trained_on
        if missing := [name for name in _RAW if name not in trained_on]:
            raise InputError(
                f"{source}: the record of the training data has no {missing[0]}; give datamodule.checkpoint_record(), "
                "or none for frames that are normalised already."
            )
        self.normalization = trained_on["normalization"]
        self.statistics = [
            Statistics(**found) if (found := trained_on["statistics"].get(name)) else None for name in MODALITIES
        ]

    def read(self, features: Features) -> ReadFrames:
        """Check and normalise the frames of one utterance.

        Raises:
            InputError: see :meth:`ifmmin.Predictor.predict`.
        """
        found: list[Tensor | None] = [None, None, None]
        lost: dict[str, int] = {}
        for modality, frames in self.check(features).items():
            name, count = MODALITIES[modality], count_lost(frames)
            if count:
                lost[name] = count
            if count < len(frames):
                found[modality] = self.normalise(modality, frames)
        if not any(frames is not None for frames in found):
            if lost:
                raise InputError(f"every frame of {' and '.join(lost)} is NaN, so that none is left to answer from.")
            raise InputError(f"no modality is given: at least one of {', '.join(MODALITIES)} must be there.")
        return ReadFrames(found, lost)

    def check(self, features: Features) -> dict[int, Tensor]:
        """Float32 [T, D] by position in :data:`~datamodules.conditions.MODALITIES`, a copy, as given; lost frames NaN.

        Raises:
            InputError: see :meth:`ifmmin.Predictor.predict`.
        """
        if not isinstance(features, Mapping):
            raise InputError(f"features: a {type(features).__name__}; give frames by name, {{'audio': frames, ...}}.")
        if unknown := sorted(printable(repr(name), 60) for name in features if name not in MODALITIES):
            raise InputError(f"{unknown[0]} is no modality: give {', '.join(MODALITIES)}, those that are there.")
        given = {modality: features.get(name) for modality, name in enumerate(MODALITIES)}
        return {modality: self._checked(modality, frames) for modality, frames in given.items() if frames is not None}

    def normalise(self, modality: int, frames: Tensor) -> Tensor:
        """Normalise frames [T, D] of one modality, at least one of which is not lost; lost ones become zeros.

        So they are where a corpus is read with lost frames: zero after normalisation, in their place.
        """
        lost = frames.isnan().any(dim=1)
        how, statistics = self.normalization[modality], self.statistics[modality]
        if not bool(lost.any()):
            return normalized(frames[None], ~lost[None], how, statistics)[0]
        kept = frames[~lost]
        true = torch.ones(1, len(kept), dtype=torch.bool)
        # An utterance's own mean is of the frames that are left.
        normal = normalized(kept[None], true, how, statistics)[0]
        return torch.zeros_like(frames).index_copy(0, (~lost).nonzero()[:, 0], normal)

    def _checked(self, modality: int, given: npt.ArrayLike | Tensor) -> Tensor:
        name, dim = MODALITIES[modality], self.feature_dims[modality]
        try:
            array = _numbers(given)
            if array.ndim != 2 or array.shape[1] != dim:
                shape = list(array.shape)
                raise InputError(f"{name}: shape {shape}, but {self.source} was trained on frames [T, {dim}].")
            if not 0 < len(array) <= LONGEST:
                what = f"{len(array)} frames, more than {LONGEST}" if len(array) else "no frames"
                raise InputError(f"{name}: {what}; leave {name} out where it is absent, and cut what is long.")
            frames = _copied(array)
        except (TypeError, ValueError, OverflowError, RuntimeError) as error:
            reason = printable(str(error).partition("\n")[0])
            raise InputError(f"{name}: not an array of numbers ({reason}); give frames [T, {dim}].") from error
        if bool(frames.isinf().any()):
            raise InputError(f"{name}: infinite values; correct the features, or give NaN for frames that are lost.")
        return frames


def count_lost(frames: Tensor) -> int:
    """How many of the frames [T, D] have a NaN."""
    return int(frames.isnan().any(dim=1).sum())


def _numbers(given: npt.ArrayLike | Tensor) -> npt.NDArray[Any] | Tensor:
    """An array or tensor of real numbers, dense and on the CPU; masked values are NaN.

    Raises:
        TypeError: it is text, complex, or no array.
    """
    if isinstance(given, Tensor):
        if given.is_complex():
            raise TypeError(f"{given.dtype}")
        return given.detach().cpu().to_dense()
    array: npt.NDArray[Any] = np.ma.filled(given, np.nan)
    if array.dtype.kind not in "biufO":
        raise TypeError(f"{array.dtype}")
    return array


def _copied(array: npt.NDArray[Any] | Tensor) -> Tensor:
    """Float32; a copy, for normalisation works in place."""
    if isinstance(array, Tensor):
        return array.to(torch.float32, copy=True)
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused
        return torch.from_numpy(np.array(array, dtype=np.float32))
