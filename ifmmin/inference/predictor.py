"""Answers of a trained model for utterances of any modalities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from datamodules.batches.batch import Batch
from datamodules.batches.visible import under_conditions
from datamodules.conditions import CONDITIONS, MODALITIES, present_under
from datamodules.errors import InputError
from ifmmin.base import MissingModalityModule
from ifmmin.calibration.shapley import shapley_values, uninformed
from ifmmin.calibration.temperatures import calibrated as tempered
from ifmmin.calibration.temperatures import check_confidence, check_temperatures
from ifmmin.checkpoints import load_model
from ifmmin.inference.answer import Answer
from ifmmin.inference.explanation import Explanation
from ifmmin.inference.features import Features, FrameReader

if TYPE_CHECKING:
    from typing_extensions import Self


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
        self._reader = FrameReader(self.feature_dims, trained_on, source)

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

    def predict(self, features: Features, *, calibrated: bool = False, abstain_below: float | None = None) -> Answer:
        """Predict from the modalities that are there.

        Args:
            features: frames [T, D] of one utterance, as in the corpus (not normalised), under
                ``"audio"``, ``"visual"``, ``"text"``; an absent modality is left out or None. D is that
                of the training data, T at least 1.
            calibrated: give probabilities at the temperature of the condition, which ``fit`` found on validation.
            abstain_below: abstain where no class is at least this probable.

        Returns:
            the probability of each class by name, or ``{"value": ...}`` from a regression.

        Raises:
            InputError: no modality is there, or only such as the model does not answer; a name is unknown;
                frames are empty, not finite, no real numbers, not [T, D], of the wrong width, or above
                :data:`~datamodules.storage.features.LONGEST`; the answer is not finite; the model is of a
                regression, or its checkpoint has no temperatures, but calibration is asked for.
        """
        check_confidence(self.model.task, calibrated, abstain_below)
        batch = self.batch(features)
        frames = _frames(batch)
        temperatures = self._temperatures(["".join(name[0] for name in frames)]) if calibrated else None
        answers = self._answers(batch)
        if temperatures is not None:
            answers = tempered(answers, temperatures)
        return Answer(
            self.model.task.named(answers[0]),
            frames=frames,
            abstained=abstain_below is not None and float(answers[0].max()) < abstain_below,
        )

    def explain(self, features: Features, *, calibrated: bool = False) -> Explanation:
        """Predict, and say how much each modality gave to the answer: exact Shapley values, in one pass.

        They rest on the answers from every part of what is there, and on the probability 1 / C of every class (or the
        middle of a regression's scale) from nothing.

        Args:
            features: see :meth:`predict`.
            calibrated: explain probabilities at the temperature of each condition.

        Raises:
            InputError: see :meth:`predict`; or the model does not answer from some part of what is there.
        """
        check_confidence(self.model.task, calibrated, None)
        batch = self.batch(features)
        rows, condition = under_conditions(batch, CONDITIONS)
        parts = [CONDITIONS[place] for place in condition.tolist()]
        if unanswered := [part for part in parts if not self.model.answers(part)]:
            name = type(self.model).__name__
            raise InputError(
                f"{self.source}: {name} does not answer {', '.join(unanswered)}, which shares of {parts[-1]} rest on; "
                "give fewer modalities, or choose another model."
            )
        temperatures = self._temperatures(parts) if calibrated else None
        answers = self._answers(rows)
        if temperatures is not None:
            answers = tempered(answers, temperatures)
        task, nothing = self.model.task, uninformed(self.model.task)
        values = answers.new_full((1, len(CONDITIONS), answers.shape[1]), torch.nan)
        values[0, condition.cpu()] = answers
        shares = shapley_values(values, batch.available.cpu(), nothing)[0]
        answer = Answer(task.named(values[0, condition[-1].cpu()]), frames=_frames(batch))
        return Explanation(answer, task.named(nothing), shares.numpy())

    def _answers(self, batch: Batch) -> Tensor:
        """Answers [B, P] of the task, on the CPU."""
        with torch.inference_mode():
            answers = self.model.task.answers(self.model(batch))
        if not bool(answers.isfinite().all()):
            raise InputError(f"{self.source}: no finite answer to these features; see that they are of the usual size.")
        return answers.cpu()

    def _temperatures(self, conditions: Sequence[str]) -> Tensor:
        """Temperature of each of ``conditions``, float64 [B]."""
        check_temperatures(self.model.temperatures, conditions, self.source)
        return torch.tensor([self.model.temperatures[name] for name in conditions], dtype=torch.float64)

    def batch(self, features: Features) -> Batch:
        """Batch of one row that :meth:`predict` gives to the model; arguments and errors as there."""
        given = self._reader.read(features)
        present = tuple(frames is not None for frames in given)
        if not any(present):
            raise InputError(f"no modality is given: at least one of {', '.join(MODALITIES)} must be there.")
        condition = next(name for name in CONDITIONS if present_under(name) == present)
        if not self.model.answers(condition):
            answered = ", ".join(name for name in CONDITIONS if self.model.answers(name))
            raise InputError(f"{self.source}: {type(self.model).__name__} answers {answered}, not {condition}.")
        audio, visual, text = (
            torch.zeros(1, 0, dim) if frames is None else frames[None]
            for frames, dim in zip(given, self.feature_dims, strict=True)
        )
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


def _frames(batch: Batch) -> dict[str, int]:
    """Number of frames of each modality of a batch of one utterance, of those that are there."""
    lengths = batch.lengths[0].tolist()
    return {name: length for name, length in zip(MODALITIES, lengths, strict=True) if length}
