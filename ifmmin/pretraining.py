"""Stage 1, pretraining on complete data, and what a stage-2 model needs of it."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from datamodules.batch import COMPLETE, MODALITIES, Batch
from datamodules.errors import InputError
from datamodules.layouts import MSP_IMPROV_LAYOUT
from ifmmin.checkpoints import load_safely, published_architecture, read_published_parts
from ifmmin.encoders import InvarianceEncoder, ModalityEncoders, Pooling, initialise
from ifmmin.fusion import Fusion
from ifmmin.losses import central_moments, moment_discrepancy
from ifmmin.module import MissingModalityModule
from ifmmin.teacher import Teacher

if TYPE_CHECKING:
    from typing_extensions import Self


class Pretraining(Fusion):
    """Base of the stage-1 models: trained and selected on complete data."""

    monitored_row: ClassVar[str] = COMPLETE
    validation_conditions: ClassVar[tuple[str, ...]] = (COMPLETE,)
    log_prefix: ClassVar[str] = "stage1/"
    architecture: ClassVar[tuple[str, ...]] = (
        "embedding_dim",
        "pooling",
        "text_channels",
        "text_dropout",
        "absent_frames",
    )
    """Hyperparameters that stage 2 must share, since it starts from these encoders."""


class FusionPretraining(Pretraining):
    """Stage 1 of MMIN: cross entropy on classifier(h).

    Zhao et al., ACL 2021, section 3.1. Batch 128, lr 2e-4, 10+10 epochs, dropout 0.3; on MSP-IMPROV
    batch 64, lr 5e-4.

    Args:
        feature_dims: frame widths of audio, visual, text.
        class_names: in label order.
        corpus: name of the corpus.
        batch_size: None takes the paper's for this corpus (128; MSP-IMPROV 64).
        learning_rate: None takes the paper's for this corpus (2e-4; MSP-IMPROV 5e-4).
        constant_epochs: epochs at the full learning rate.
        decay_epochs: epochs of its linear decay to zero.
        clip_norm: largest gradient norm of each sub-network.
        **kwargs: of :class:`Pretraining`.
    """

    def __init__(
        self,
        feature_dims: list[int],
        class_names: list[str],
        corpus: str = "IEMOCAP",
        batch_size: int | None = None,
        learning_rate: float | None = None,
        constant_epochs: int = 10,
        decay_epochs: int = 10,
        clip_norm: float = 0.5,
        **kwargs: Any,
    ) -> None:
        on_msp = corpus == MSP_IMPROV_LAYOUT.name
        super().__init__(
            feature_dims,
            class_names,
            corpus=corpus,
            batch_size=(64 if on_msp else 128) if batch_size is None else batch_size,
            learning_rate=(5e-4 if on_msp else 2e-4) if learning_rate is None else learning_rate,
            constant_epochs=constant_epochs,
            decay_epochs=decay_epochs,
            clip_norm=clip_norm,
            **kwargs,
        )
        initialise(self)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Cross entropy on the complete utterances."""
        return {"cls": F.cross_entropy(self(batch.complete()), batch.labels)}


class InvariantPretraining(Pretraining):
    """Stage 1 of IF-MMIN: cross entropy on classifier([h; H]) and CMD between the modalities of H.

    Zuo et al., "Exploiting modality-invariant feature for robust multimodal emotion recognition
    with missing modalities", ICASSP 2023, section 2.1. Batch 64, lr 2e-4, 10+10 epochs, dropout 0.3.

    Args:
        feature_dims: frame widths of audio, visual, text.
        class_names: in label order.
        invariance_dropout: of the invariance encoder.
        moments: K of CMD_K.
        batch_size: utterances per optimiser step.
        constant_epochs: epochs at the full learning rate.
        decay_epochs: epochs of its linear decay to zero.
        clip_norm: largest gradient norm of each sub-network.
        **kwargs: of :class:`Pretraining`.
    """

    architecture = (*Pretraining.architecture, "invariance_dropout")

    def __init__(
        self,
        feature_dims: list[int],
        class_names: list[str],
        invariance_dropout: float = 0.0,
        moments: int = 5,
        batch_size: int = 64,
        constant_epochs: int = 10,
        decay_epochs: int = 10,
        clip_norm: float = 0.5,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            feature_dims,
            class_names,
            batch_size=batch_size,
            constant_epochs=constant_epochs,
            decay_epochs=decay_epochs,
            clip_norm=clip_norm,
            **kwargs,
        )
        self.invariance = InvarianceEncoder(self.encoders.embedding_dim, invariance_dropout)
        self.moments = moments
        initialise(self)

    @staticmethod
    def fused_dim(embedding_dim: int) -> int:
        """Width of [h; H]."""
        return 6 * embedding_dim

    def embed(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The embeddings h and invariant features H, each [B, 3, E]."""
        h = self.encoders(batch)
        return h, self.invariance(h)

    def classify(self, h: Tensor, H: Tensor) -> Tensor:
        """Logits [B, C] = classifier([h; H])."""
        logits: Tensor = self.classifier(torch.cat([h.flatten(1), H.flatten(1)], dim=1))
        return logits

    def forward(self, batch: Batch) -> Tensor:
        """Logits [B, C] = classifier([h; H])."""
        return self.classify(*self.embed(batch))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Cross entropy, and the mean CMD over the three pairs of modalities, on complete utterances."""
        h, H = self.embed(batch.complete())
        moments = central_moments(H, self.moments)
        left, right = zip(*combinations(range(len(MODALITIES)), 2), strict=True)
        cmd = moment_discrepancy(moments[:, left], moments[:, right]).mean()
        return {"cls": F.cross_entropy(self.classify(h, H), batch.labels), "cmd": cmd}


class PretrainedModule(MissingModalityModule):
    """Base of the stage-2 models: encoders start from stage 1, and stage 1 is the frozen teacher.

    Args:
        feature_dims: frame widths of audio, visual, text.
        class_names: in label order.
        embedding_dim: E, the width of each utterance embedding h_m.
        pooling: of the LSTM states over time.
        text_channels: output channels of each TextCNN convolution.
        text_dropout: of the TextCNN.
        absent_frames: how many zero frames an absent audio, visual, text stands for.
        pretrained: a stage-1 checkpoint of ours, or a folder of ``<epoch>_net_<NET>.pth`` files of
            the published code; None trains stage 1 first.
        pretraining: settings of the stage-1 model that differ from its defaults.
        **kwargs: of :class:`~ifmmin.module.MissingModalityModule`.
    """

    reads_complete: ClassVar[bool] = False  # the teacher remembers what it was shown before

    stage1: ClassVar[type[Pretraining]]
    """The stage-1 model."""

    taught_parts: ClassVar[tuple[str, ...]] = ("encoders",)
    """The parts that start from stage 1; the encoders are the teacher's too."""

    published_networks: ClassVar[Mapping[str, str]] = {}
    """Parts by the names of their networks in released checkpoints of the published code."""

    optional_networks: ClassVar[tuple[str, ...]] = ()
    """Those that a released checkpoint may lack."""

    def __init__(
        self,
        feature_dims: list[int],
        class_names: list[str],
        embedding_dim: int = 128,
        pooling: Pooling = "max",
        text_channels: int = 128,
        text_dropout: float = 0.5,
        absent_frames: list[int] = [40, 50, 22],  # noqa: B006 - a plain default that --help can show
        pretrained: str | None = None,
        pretraining: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(feature_dims, class_names, **kwargs)

        def encoders() -> ModalityEncoders:
            return ModalityEncoders.of_dims(
                feature_dims, embedding_dim, pooling, text_channels, text_dropout, absent_frames
            )

        self.encoders = encoders()
        self.teacher = Teacher(encoders())
        self.pretrained = pretrained
        self.pretraining = dict(pretraining or {})
        self.taught = False
        """Whether stage 1 has been loaded."""

    def stage1_module(self) -> Pretraining:
        """A fresh stage-1 model of the architecture that this model starts from."""
        shared = {name: self.hparams[name] for name in self.stage1.architecture if name in self.hparams}
        common = {name: self.hparams[name] for name in ("corpus", "monitor") if name in self.hparams}
        return self.stage1(
            feature_dims=self.feature_dims, class_names=self.class_names, **(common | shared | self.pretraining)
        )

    def start_from(self, parts: Mapping[str, Mapping[str, Tensor]], source: str = "stage 1") -> None:
        """Load stage 1 into the student's parts and the teacher.

        Args:
            parts: state dicts of ``encoders`` and the other ``taught_parts``.
            source: where they come from, for messages.

        Raises:
            InputError: a part is missing or its shapes are those of another architecture or corpus.
        """
        for name in self.taught_parts:
            if name not in parts:
                raise InputError(
                    f"{source}: no {name} in it; {type(self).__name__} starts from {self.stage1.__name__}."
                )
            load_part(getattr(self, name), parts[name], f"{source}: {name}")
        load_part(self.teacher.encoders, parts["encoders"], f"{source}: encoders")
        self.taught = True

    @classmethod
    def from_published(
        cls, folder: str | Path, class_names: list[str], epoch: str | None = None, teacher: str | Path | None = None
    ) -> Self:
        """A model with the weights of a released checkpoint of the published code.

        Args:
            folder: holds ``<epoch>_net_<NET>.pth`` of the model's networks (``published_networks``).
            class_names: in label order; the checkpoint only says how many there are.
            epoch: which epoch, where the folder holds several.
            teacher: folder of the stage-1 networks; needed for training on, not for prediction.

        Raises:
            InputError: a network is missing, unreadable, or of another model or architecture.
        """
        parts = read_published_parts(folder, 2, epoch)
        needed = ", ".join(cls.published_networks.values())
        for part, network in cls.published_networks.items():
            if part not in parts and part not in cls.optional_networks:
                raise InputError(f"{folder}: no network {network}; {cls.__name__} needs {needed}.")
        if foreign := parts.keys() - cls.published_networks:
            raise InputError(
                f"{folder}: holds a network for the {min(foreign)}, so it is of another model; "
                f"{cls.__name__} has {needed}."
            )
        try:
            settings = cls.published_settings(parts)
        except KeyError as error:
            raise InputError(f"{folder}: no parameter {error}; the networks are of another architecture.") from error
        model = cls(class_names=class_names, **settings)
        model.start_from(read_published_parts(teacher, 1) if teacher else parts, str(teacher or folder))
        for name, state in parts.items():
            load_part(getattr(model, name), state, f"{folder}: {name}")
        model.taught = teacher is not None
        return model

    @classmethod
    def published_settings(cls, parts: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Any]:
        """The hyperparameters that a released checkpoint implies."""
        return published_architecture(parts)

    def setup(self, stage: str) -> None:
        """Load ``pretrained``, unless a checkpoint of this very stage is about to be restored."""
        super().setup(stage)
        if stage == "fit" and self.pretrained and not self.taught and self.trainer.ckpt_path is None:
            self.start_from(read_stage1(self.pretrained, self.stage1), self.pretrained)

    def on_fit_start(self) -> None:
        """Let the teacher embed the training utterances once."""
        if not self.taught:
            raise InputError(
                f"{type(self).__name__} starts from stage 1: train {self.stage1.__name__} first "
                "and give its checkpoint as `pretrained`."
            )
        datamodule = self.datamodule
        if datamodule is not None:
            self.teacher.remember(datamodule.in_order("train"), datamodule.corpus_size)

    def on_fit_end(self) -> None:
        """Free the teacher's memory."""
        self.teacher.forget()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Record that stage 1 is inside."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["ifmmin"]["taught"] = self.taught

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Know that stage 1 is inside."""
        super().on_load_checkpoint(checkpoint)
        self.taught = bool(checkpoint.get("ifmmin", {}).get("taught", False))


def load_part(part: torch.nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """``load_state_dict`` whose error is one line.

    Raises:
        InputError: a parameter is missing, unknown or of another shape.
    """
    try:
        part.load_state_dict(state)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:]] or [str(error)]
        raise InputError(f"{source} does not fit this model and corpus: {lines[0]}") from error


def read_stage1(path: str | Path, stage1: type[Pretraining]) -> dict[str, dict[str, Tensor]]:
    """The parts of a stage-1 checkpoint of ours, or of a folder of the published code.

    Raises:
        InputError: it cannot be read, or is a checkpoint of another model.
    """
    path = Path(path)
    if path.is_dir():
        return read_published_parts(path, stage=1)
    checkpoint = load_safely(path)
    record = checkpoint.get("ifmmin", {}) if isinstance(checkpoint, dict) else {}
    trained = str(record.get("model", "unknown")).rpartition(".")[2]
    if trained != stage1.__name__:
        raise InputError(f"{path}: a checkpoint of {trained}, but stage 1 of this model is {stage1.__name__}.")
    return split_parts(checkpoint["state_dict"])


def split_parts(state: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Group a state dict by its first name: ``encoders.audio.x`` is ``{"encoders": {"audio.x": …}}``."""
    parts: dict[str, dict[str, Tensor]] = {}
    for key, value in state.items():
        part, _, rest = key.partition(".")
        parts.setdefault(part, {})[rest] = value
    return parts
