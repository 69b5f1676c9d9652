"""Predict single utterances with a trained model, from whatever modalities they have."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from datamodules.batches.batch import Batch
from datamodules.batches.loading import normalized
from datamodules.conditions import CONDITIONS, MODALITIES, present_under
from datamodules.errors import InputError
from datamodules.storage.features import LONGEST
from datamodules.storage.statistics import Statistics
from datamodules.text import printable
from ifmmin.base import MissingModalityModule
from ifmmin.checkpoints import load_model

if TYPE_CHECKING:
    from typing_extensions import Self

Features = Mapping[str, npt.ArrayLike | Tensor | None]


class Predictor:
    """Answers for single utterances, as ``predict`` on the command line does.

    To a model that reads a speaker's earlier turns (``needs.turns``) each of them is the first of its dialogue:
    ``predict --data.root`` reads dialogues.

    Args:
        model: a trained model; it is set to evaluation.
        trained_on: its checkpoint's record of the training data, from
            :meth:`~datamodules.base.EmotionDataModule.checkpoint_record`: frames are normalised as they were.
        source: the checkpoint, for messages.

    Attributes:
        model: the model.
        class_names: in label order, empty for a regression.
        feature_dims: frame widths of audio, visual, text.
    """

    def __init__(
        self, model: MissingModalityModule, trained_on: Mapping[str, Any], source: str = "the checkpoint"
    ) -> None:
        self.model = model.eval()
        self.class_names: list[str] = list(model.class_names)
        self.feature_dims: list[int] = list(model.feature_dims)
        self.source = source
        self._normalization = trained_on["normalization"]
        self._statistics = [
            Statistics(**found) if (found := trained_on["statistics"].get(name)) else None for name in MODALITIES
        ]

    @classmethod
    def load(
        cls,
        checkpoint: str | Path,
        device: str | torch.device = "cpu",
        model: type[MissingModalityModule] | None = None,
    ) -> Self:
        """Read a checkpoint that ``fit`` wrote; nothing in it is executed.

        Args:
            checkpoint: for instance ``runs/.../checkpoints/epoch017.ckpt``.
            device: where the model runs.
            model: the class, for a model of your own that is not among the installed ones.

        Raises:
            InputError: it cannot be read, something else wrote it, its model is not installed or another than
                ``model``, or its weights do not fit or are no finite numbers.
        """
        loaded, trained_on = load_model(checkpoint, model)
        return cls(loaded.to(device), trained_on, str(checkpoint))

    def predict(self, features: Features) -> dict[str, float]:
        """Predict from the modalities that are there: the probability of each class by name, or ``{"value": ...}``.

        Args:
            features: frames [T, D] of one utterance, as in the corpus (not normalised), under
                ``"audio"``, ``"visual"``, ``"text"``; an absent modality is left out or None. D is that
                of the training data, T at least 1.

        Raises:
            InputError: no modality is there, or only such as the model does not answer; a name is unknown;
                frames are empty, not finite, no real numbers, not [T, D], of the wrong width, or above
                :data:`~datamodules.storage.features.LONGEST`; the answer is not finite.
        """
        batch = self.batch(features)
        with torch.inference_mode():
            answers = self.model.task.answers(self.model(batch))
        if not bool(answers.isfinite().all()):
            raise InputError(f"{self.source}: no finite answer to these features; see that they are of the usual size.")
        return self.model.task.named(answers[0])

    def batch(self, features: Features) -> Batch:
        """Batch of one row that :meth:`predict` gives to the model; arguments and errors as there."""
        if not isinstance(features, Mapping):
            raise InputError(f"features: a {type(features).__name__}; give frames by name, {{'audio': frames, ...}}.")
        if unknown := sorted(printable(repr(name), 60) for name in features if name not in MODALITIES):
            raise InputError(f"{unknown[0]} is no modality: give {', '.join(MODALITIES)}, those that are there.")
        given = [features.get(name) for name in MODALITIES]
        present = tuple(frames is not None for frames in given)
        if not any(present):
            raise InputError(f"no modality is given: at least one of {', '.join(MODALITIES)} must be there.")
        condition = next(name for name in CONDITIONS if present_under(name) == present)
        if not self.model.answers(condition):
            answered = ", ".join(name for name in CONDITIONS if self.model.answers(name))
            raise InputError(f"{self.source}: {type(self.model).__name__} answers {answered}, not {condition}.")
        audio, visual, text = (self._frames(modality, frames) for modality, frames in enumerate(given))
        device = self.model.device
        return Batch(
            frames=(audio.to(device), visual.to(device), text.to(device)),
            lengths=torch.tensor([[audio.shape[1], visual.shape[1], text.shape[1]]], device=device),
            index=torch.zeros(1, dtype=torch.int64, device=device),
            labels=torch.full((1,), -1, device=device),
            utterances=[""],
            row=torch.zeros(1, dtype=torch.int64, device=device),
            present=torch.tensor([present], device=device),
            turn=torch.zeros(1, 3, dtype=torch.int64, device=device) if self.model.needs.turns else None,
        )

    def _frames(self, modality: int, given: npt.ArrayLike | Tensor | None) -> Tensor:
        """Float32 [1, T, D], normalised; no frames where the modality is absent."""
        name, dim = MODALITIES[modality], self.feature_dims[modality]
        if given is None:
            return torch.zeros(1, 0, dim)
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
        return normalized(frames[None], true, self._normalization[modality], self._statistics[modality])


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
