"""Answers of a trained model for utterances of any modalities."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from datamodules.batches.batch import Batch
from datamodules.batches.visible import under_conditions
from datamodules.conditions import CONDITIONS, MODALITIES
from datamodules.errors import InputError
from ifmmin.base import MissingModalityModule
from ifmmin.calibration.shapley import shapley_values, uninformed
from ifmmin.calibration.temperatures import calibrated as tempered
from ifmmin.calibration.temperatures import check_confidence, check_temperatures
from ifmmin.checkpoints import load_model
from ifmmin.checkpoints.loading import load_saved
from ifmmin.inference.answer import Answer
from ifmmin.inference.batching import batch_of, by_length
from ifmmin.inference.description import description
from ifmmin.inference.explanation import Explanation
from ifmmin.inference.features import Features, FrameReader, ReadFrames
from ifmmin.inference.stream import Stream
from ifmmin.sharing.methods import Shared

if TYPE_CHECKING:
    from typing_extensions import Self

POOL = 16
"""Batches' worth of utterances that are sorted by length together."""


class Predictor(Shared):
    """Answers for utterances, as ``predict`` on the command line does.

    To a model that reads a speaker's earlier turns (``needs.turns``) each of them is the first of its dialogue:
    ``predict --data.root`` reads dialogues.

    Args:
        model: a trained model; it is set to evaluation.
        trained_on: its checkpoint's record of the training data, from
            :meth:`~datamodules.base.EmotionDataModule.checkpoint_record`: frames are normalised as they were. None:
            they are normalised already.
        source: the checkpoint, for messages.

    Attributes:
        model: the model.
        class_names: in label order, empty for a regression.
        feature_dims: frame widths of audio, visual, text.
        trained_on: the record; empty without one.
        source: the checkpoint.
        reader: checks and normalises frames.

    Raises:
        InputError: ``model`` is no model, or the record lacks how frames were normalised.
    """

    def __init__(
        self,
        model: MissingModalityModule,
        trained_on: Mapping[str, Any] | None = None,
        source: str = "the checkpoint",
    ) -> None:
        given: object = model
        if not isinstance(given, MissingModalityModule):
            what = given.__name__ if isinstance(given, type) else type(given).__name__
            raise InputError(f"model: {what} is no trained model; give an instance, or a file to Predictor.load.")
        self.model = model.eval()
        self.class_names: list[str] = list(model.class_names)
        self.feature_dims: list[int] = list(model.feature_dims)
        self.trained_on: Mapping[str, Any] = trained_on or {}
        self.source = source
        self.reader = FrameReader(self.feature_dims, trained_on, source)

    def __repr__(self) -> str:
        """Model, task, training data, frames and device, in a few lines."""
        return description(self.model, self.trained_on, self.reader.normalization, self.source)

    @classmethod
    def load(
        cls,
        checkpoint: str | Path,
        device: str | torch.device = "cpu",
        model: type[MissingModalityModule] | None = None,
    ) -> Self:
        """Read a checkpoint that ``fit`` wrote, or a folder of ``save_pretrained``; nothing in it is executed.

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

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        device: str | torch.device = "cpu",
        model: type[MissingModalityModule] | None = None,
        *,
        revision: str | None = None,
        token: str | None = None,
        local_files_only: bool = False,
    ) -> Self:
        """Load a predictor or model that ``save_pretrained`` wrote; nothing in it is executed.

        Args:
            source: see :meth:`~ifmmin.base.MissingModalityModule.from_pretrained`.
            device: see :meth:`load`.
            model: see :meth:`load`.
            revision: branch, tag or commit on the Hub.
            token: of the Hub, for private models.
            local_files_only: ask no network.

        Raises:
            InputError: it is not there or damaged, its model is not installed, or it has no record of its training
                data.
        """
        from ifmmin.sharing.hub import located

        folder = located(source, revision=revision, token=token, local_files_only=local_files_only)
        made = load_saved(folder, model)
        if made.trained_on is None:
            raise InputError(f"{source}: saved without its training data's statistics, so frames cannot be normalised.")
        return cls(made.to(device), made.trained_on, str(source))

    def _saved(self) -> tuple[MissingModalityModule, Mapping[str, Any] | None]:
        return self.model, self.trained_on or None

    def predict(self, features: Features, *, calibrated: bool = False, abstain_below: float | None = None) -> Answer:
        """Predict from the modalities that are there.

        A frame with a NaN is lost: it is read as zeros after normalisation, and counted in the answer's ``lost``. A
        modality of which every frame is lost is absent.

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
                frames are empty, infinite, no real numbers, not [T, D], of the wrong width, or above
                :data:`~datamodules.storage.features.LONGEST`; the answer is not finite; the model is of a
                regression, or its checkpoint has no temperatures, but calibration is asked for.
        """
        check_confidence(self.model.task, calibrated, abstain_below)
        return self.answer_read([self._read(features)], calibrated, abstain_below)[0]

    def predict_many(
        self,
        utterances: Iterable[Features],
        batch_size: int = 64,
        *,
        calibrated: bool = False,
        abstain_below: float | None = None,
    ) -> list[Answer]:
        """Predict many utterances, batched by length so that little padding is computed.

        The answers are those of :meth:`predict`, up to rounding.

        Args:
            utterances: each as in :meth:`predict`, whatever modalities it has; a generator is read as it goes.
            batch_size: utterances at a time at most.
            calibrated: see :meth:`predict`.
            abstain_below: see :meth:`predict`.

        Returns:
            an answer to each, in their order.

        Raises:
            InputError: as in :meth:`predict`, for one of them, which the message names by its position from 0.
        """
        check_confidence(self.model.task, calibrated, abstain_below)
        if isinstance(utterances, Mapping):
            raise InputError("utterances: a single one; give a list of them, or call predict.")
        if batch_size < 1:
            raise InputError(f"batch_size {batch_size}: give at least 1.")
        given, answers = enumerate(utterances), []
        # As in training: among so many batches' worth of utterances, lengths are similar once sorted.
        while pool := [*islice(given, POOL * batch_size)]:
            read = [self._read(features, f"utterances[{position}]: ") for position, features in pool]
            found: dict[int, Answer] = {}
            for batch in by_length([each.lengths for each in read], self.feature_dims, batch_size):
                answered = self.answer_read([read[position] for position in batch], calibrated, abstain_below)
                found |= zip(batch, answered, strict=True)
            answers += [found[position] for position in range(len(pool))]
        return answers

    def stream(
        self, every: float = 1.0, rate: Mapping[str, float] | None = None, window_seconds: float | None = None
    ) -> Stream:
        """Start a stream: frames arrive, and an answer comes every ``every`` seconds.

        Args:
            every: seconds from answer to answer.
            rate: frames a second of the modalities that tell the time, at least of one; see
                :class:`~ifmmin.inference.Stream`.
            window_seconds: how far back an answer looks; None: to the start.

        Raises:
            InputError: there is no rate, or a number is out of range.
        """
        return Stream(self, every, rate or {}, window_seconds)

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
        read = self._read(features)
        batch = self._batch([read])
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
        answer = Answer(task.named(values[0, condition[-1].cpu()]), frames=read.seen, lost=read.lost)
        return Explanation(answer, task.named(nothing), shares.numpy())

    def batch(self, features: Features) -> Batch:
        """Batch of one row that :meth:`predict` gives to the model; arguments and errors as there."""
        return self._batch([self._read(features)])

    def _read(self, features: Features, where: str = "") -> ReadFrames:
        """Frames of an utterance that the model can answer; ``where`` begins an error's message."""
        try:
            read = self.reader.read(features)
            self.check_answered(read)
        except InputError as error:
            raise InputError(f"{where}{error}") from error
        return read

    def check_answered(self, read: ReadFrames) -> None:
        """Refuse a condition that the model does not answer.

        Raises:
            InputError: it is one.
        """
        condition = read.condition
        if not self.model.answers(condition):
            answered = ", ".join(name for name in CONDITIONS if self.model.answers(name))
            gone = [
                name for name, there in zip(MODALITIES, read.present, strict=True) if name in read.lost and not there
            ]
            why = f": every frame of {' and '.join(gone)} is NaN" if gone else ""
            raise InputError(f"{self.source}: {type(self.model).__name__} answers {answered}, not {condition}{why}.")

    def _batch(self, utterances: Sequence[ReadFrames]) -> Batch:
        return batch_of(utterances, self.feature_dims, self.model.device, self.model.needs.turns)

    def answer_read(
        self,
        utterances: Sequence[ReadFrames],
        calibrated: bool = False,
        abstain_below: float | None = None,
        model: MissingModalityModule | None = None,
    ) -> list[Answer]:
        """Answer utterances that were read, in one batch.

        Args:
            utterances: at least one, under conditions that the model answers.
            calibrated: see :meth:`predict`.
            abstain_below: see :meth:`predict`.
            model: a view of the model to ask instead.
        """
        temperatures = self._temperatures([read.condition for read in utterances]) if calibrated else None
        answers = self._answers(self._batch(utterances), model)
        if temperatures is not None:
            answers = tempered(answers, temperatures)
        return [
            Answer(
                self.model.task.named(values),
                frames=read.seen,
                lost=read.lost,
                abstained=abstain_below is not None and bool(float(values.max()) < abstain_below),
            )
            for values, read in zip(answers, utterances, strict=True)
        ]

    def _answers(self, batch: Batch, model: MissingModalityModule | None = None) -> Tensor:
        """Answers [B, P] of the task, on the CPU."""
        with torch.inference_mode():
            answers = self.model.task.answers((model or self.model)(batch))
        if not bool(answers.isfinite().all()):
            raise InputError(f"{self.source}: no finite answer to these features; see that they are of the usual size.")
        return answers.cpu()

    def _temperatures(self, conditions: Sequence[str]) -> Tensor:
        """Temperature of each of ``conditions``, float64 [B]."""
        check_temperatures(self.model.temperatures, conditions, self.source)
        return torch.tensor([self.model.temperatures[name] for name in conditions], dtype=torch.float64)
