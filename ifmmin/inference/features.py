"""From the frames that a program gives to frames that a model reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from datamodules.batches.loading import normalized
from datamodules.conditions import MODALITIES
from datamodules.errors import InputError
from datamodules.storage.features import LONGEST
from datamodules.storage.statistics import Statistics
from datamodules.text import printable

Features = Mapping[str, npt.ArrayLike | Tensor | None]
"""Frames [T, D] of one utterance under ``"audio"``, ``"visual"``, ``"text"``; what is absent is left out or None."""


class FrameReader:
    """Checks and normalises frames, as those of a model's training data were.

    Args:
        feature_dims: frame widths of audio, visual, text.
        trained_on: a checkpoint's record of the training data.
        source: the checkpoint, for messages.
    """

    def __init__(self, feature_dims: list[int], trained_on: Mapping[str, Any], source: str) -> None:
        self.feature_dims = feature_dims
        self.source = source
        self.normalization = trained_on["normalization"]
        self.statistics = [
            Statistics(**found) if (found := trained_on["statistics"].get(name)) else None for name in MODALITIES
        ]

    def read(self, features: Features) -> list[Tensor | None]:
        """Float32 [T, D] of audio, visual and text, normalised; None where one is absent.

        Raises:
            InputError: see :meth:`ifmmin.Predictor.predict`.
        """
        if not isinstance(features, Mapping):
            raise InputError(f"features: a {type(features).__name__}; give frames by name, {{'audio': frames, ...}}.")
        if unknown := sorted(printable(repr(name), 60) for name in features if name not in MODALITIES):
            raise InputError(f"{unknown[0]} is no modality: give {', '.join(MODALITIES)}, those that are there.")
        given = [features.get(name) for name in MODALITIES]
        return [None if frames is None else self._frames(modality, frames) for modality, frames in enumerate(given)]

    def _frames(self, modality: int, given: npt.ArrayLike | Tensor) -> Tensor:
        """Float32 [T, D], normalised."""
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
        if not bool(frames.isfinite().all()):
            raise InputError(f"{name}: NaN or infinite values; correct the features, or leave {name} out.")
        true = torch.ones(1, len(frames), dtype=torch.bool)
        return normalized(frames[None], true, self.normalization[modality], self.statistics[modality])[0]


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
