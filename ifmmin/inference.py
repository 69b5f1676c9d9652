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
from datamodules.storage.statistics import Statistics
from ifmmin.base import MissingModalityModule
from ifmmin.checkpoints import load_model

if TYPE_CHECKING:
    from typing_extensions import Self

Features = Mapping[str, npt.ArrayLike | Tensor | None]


class Predictor:
    """Answers for single utterances, as ``predict`` on the command line does.

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
                frames are empty, not finite, not [T, D], or of the wrong width.
        """
        batch = self.batch(features)
        with torch.inference_mode():
            answers = self.model.task.answers(self.model(batch))
        return self.model.task.named(answers[0])

    def batch(self, features: Features) -> Batch:
        """Batch of one row that :meth:`predict` gives to the model; arguments and errors as there."""
        if unknown := features.keys() - set(MODALITIES):
            raise InputError(f"{min(unknown)!r} is no modality: give {', '.join(MODALITIES)}, those that are there.")
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
        )

    def _frames(self, modality: int, given: npt.ArrayLike | Tensor | None) -> Tensor:
        """Float32 [1, T, D], normalised; no frames where the modality is absent."""
        name, dim = MODALITIES[modality], self.feature_dims[modality]
        if given is None:
            return torch.zeros(1, 0, dim)
        try:
            frames = _copied(given)
        except (TypeError, ValueError) as error:
            raise InputError(f"{name}: not an array of numbers ({error}); give frames [T, {dim}].") from error
        if frames.dim() != 2 or frames.shape[1] != dim:
            shape = list(frames.shape)
            raise InputError(f"{name}: shape {shape}, but {self.source} was trained on frames [T, {dim}].")
        if not len(frames):
            raise InputError(f"{name}: no frames; leave {name} out where it is absent.")
        if not bool(frames.isfinite().all()):
            raise InputError(f"{name}: NaN or infinite values; correct the features, or leave {name} out.")
        true = torch.ones(1, len(frames), dtype=torch.bool)
        return normalized(frames[None], true, self._normalization[modality], self._statistics[modality])


def _copied(given: npt.ArrayLike | Tensor) -> Tensor:
    """Float32 on the CPU; a copy, for normalisation works in place."""
    if isinstance(given, Tensor):
        return given.detach().to("cpu", torch.float32, copy=True)
    return torch.from_numpy(np.array(given, dtype=np.float32))
