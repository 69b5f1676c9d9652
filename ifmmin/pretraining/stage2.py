"""Stage 2: what models that start from stage 1 share."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from datamodules.base import EmotionDataModule
from datamodules.errors import InputError
from datamodules.needs import DataNeeds
from datamodules.ranges import declared_options
from datamodules.text import printable
from ifmmin.base import MissingModalityModule
from ifmmin.checkpoints.compatibility import check_same_fold
from ifmmin.checkpoints.parts import load_part, read_stage1
from ifmmin.checkpoints.published import published_architecture, read_published_parts
from ifmmin.fusion import EmbeddingModule
from ifmmin.pretraining.stage1 import Pretraining, Stage1Module
from ifmmin.pretraining.teacher import Teacher

if TYPE_CHECKING:
    from typing_extensions import Self


class Stage2Module(MissingModalityModule):
    """Base of the stage-2 models, whatever their networks: some of their parts start from stage 1.

    Args:
        pretrained: a stage-1 checkpoint of ours, or a folder of ``<epoch>_net_<NET>.pth`` files of
            the published code; None trains stage 1 first.
        pretraining: options of the stage-1 model that differ from its defaults, by name; on the command line one by
            one, ``--model.pretraining.learning_rate 1e-3``. ``fit --model.help STAGE1`` lists them.
        **kwargs: of :class:`~ifmmin.base.MissingModalityModule`.

    Raises:
        InputError: ``pretraining`` has an unknown name, a value out of range, or another architecture than stage 2.
    """

    stage1: ClassVar[type[Stage1Module]]
    """The stage-1 model."""

    stage1_parts: ClassVar[tuple[str, ...]]
    """The parts that start from stage 1."""

    @classmethod
    def stage1_of(cls, options: Mapping[str, Any]) -> type[MissingModalityModule]:
        """The model that is trained before one with these options."""
        return cls.stage1

    def __init__(
        self, *, pretrained: str | None = None, pretraining: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.pretrained = pretrained
        self.pretraining = dict(pretraining or {})
        self.taught = False
        """Whether stage 1 has been loaded."""
        if self.pretraining:
            self._check_pretraining()

    @property
    def stage1_class(self) -> type[MissingModalityModule]:
        """The model that is trained before this one."""
        return self.stage1_of(self.hparams)

    def _check_pretraining(self) -> None:
        """Refuse what stage 1 would refuse, and what would not fit stage 2, before anything is trained."""
        known = declared_options(self.stage1_class).keys() - {
            "feature_dims",
            "class_names",
            "task",
            "return",
            "args",
            "kwargs",
        }
        first = self.stage1_class.__name__
        for name, value in self.pretraining.items():
            if name not in known:
                near = difflib.get_close_matches(str(name), known, n=1)
                hint = f" Did you mean {near[0]}?" if near else f" fit --model.help {first} lists them."
                raise InputError(f"pretraining {name!r}: {first} has no such option.{hint}")
            if name in self._shared_options() and value != self.hparams.get(name, value):
                raise InputError(
                    f"pretraining {name} {value}: stage 2 starts from these encoders, so give {name} to "
                    f"{type(self).__name__} itself."
                )
        try:
            self.stage1_for_a_look()
        except InputError as error:
            raise InputError(f"pretraining: {error}") from error

    def _shared_options(self) -> list[str]:
        """Options that decide what stage 1's weights compute; a rate of dropout does not, and may differ."""
        return [name for name in self.stage1.architecture if not name.endswith("_dropout")]

    def stage1_module(self) -> MissingModalityModule:
        """Make a fresh stage-1 model of the architecture that this model starts from."""
        shared = {name: self.hparams[name] for name in self.stage1.architecture if name in self.hparams}
        common = {name: self.hparams[name] for name in ("corpus", "monitor", "task") if name in self.hparams}
        return self.stage1(
            feature_dims=self.feature_dims, class_names=self.class_names, **(common | shared | self.pretraining)
        )

    def stage1_for_a_look(self) -> MissingModalityModule:
        """Make one that is not trained: the weights that follow are those of a run without it."""
        with torch.random.fork_rng(devices=[]):
            return self.stage1_module()

    def load_stage1(self, parts: Mapping[str, Mapping[str, Tensor]], source: str = "stage 1") -> None:
        """Load stage 1 into the parts that start from it.

        Args:
            parts: state dicts of the ``stage1_parts``.
            source: where they come from, for messages.

        Raises:
            InputError: a part is missing or its shapes are those of another architecture or corpus.
        """
        for name in self.stage1_parts:
            if name not in parts:
                raise InputError(
                    f"{source}: no {name} in it; {type(self).__name__} starts from {self.stage1_class.__name__}."
                )
            load_part(getattr(self, name), parts[name], f"{source}: {name}")
        self.taught = True

    def load_pretrained(self, data: EmotionDataModule | None) -> None:
        """Load the stage 1 that this model was given as ``pretrained``.

        Args:
            data: what the model is to be trained on, None if unknown.

        Raises:
            InputError: it cannot be read, does not fit, or was trained with other shared options or on another fold of
                this corpus.
        """
        assert self.pretrained is not None
        found = read_stage1(self.pretrained, self.stage1_class)
        if data is not None and found.data is not None:
            check_same_fold(data, found.data, self.pretrained)
        self._check_trained_options(found.options)
        self.load_stage1(found.parts, self.pretrained)

    def _check_trained_options(self, options: Mapping[str, Any]) -> None:
        """Refuse a ``pretrained`` stage 1 whose shared options, of those its checkpoint tells, are others."""
        for name in self._shared_options():
            ours, trained = self.hparams.get(name), options.get(name)
            if trained is not None and trained != (list(ours) if isinstance(ours, tuple) else ours):
                shown = printable(f"{name} {trained}", 60)
                raise InputError(f"{self.pretrained}: stage 1 has {shown}; give that to {type(self).__name__} too.")

    def setup(self, stage: str) -> None:
        """Load ``pretrained``, unless a checkpoint of this very stage is about to be restored."""
        super().setup(stage)
        if stage == "fit" and self.pretrained and not self.taught and self.trainer.ckpt_path is None:
            self.load_pretrained(self.datamodule)

    def on_fit_start(self) -> None:
        """Refuse to train without a stage 1."""
        if not self.taught:
            raise InputError(
                f"{type(self).__name__} starts from stage 1: train {self.stage1_class.__name__} first "
                "and give its checkpoint as `pretrained`."
            )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Record whether stage 1 has been loaded."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["ifmmin"]["taught"] = self.taught

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore whether stage 1 has been loaded."""
        super().on_load_checkpoint(checkpoint)
        self.taught = bool(checkpoint.get("ifmmin", {}).get("taught", False))


class PretrainedModule(Stage2Module, EmbeddingModule):
    """Base of the stage-2 models whose encoders start from stage 1, and whose frozen teacher stage 1 is.

    Args:
        **kwargs: of :class:`Stage2Module` and :class:`~ifmmin.fusion.EmbeddingModule`.

    Raises:
        InputError: ``pretraining`` has an unknown name, a value out of range, or another architecture than stage 2.
    """

    # The teacher remembers its embeddings of the complete utterances.
    needs = DataNeeds(hidden_frames=False)

    stage1: ClassVar[type[Pretraining]]
    """The stage-1 model."""

    stage1_parts: ClassVar[tuple[str, ...]] = ("encoders",)
    """The parts that start from stage 1; the encoders are the teacher's too."""

    published_networks: ClassVar[Mapping[str, str]] = {}
    """Parts by the names of their networks in released checkpoints of the published code."""

    optional_networks: ClassVar[tuple[str, ...]] = ()
    """Those that a released checkpoint may lack."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.teacher = Teacher(self.new_encoders())

    def load_stage1(self, parts: Mapping[str, Mapping[str, Tensor]], source: str = "stage 1") -> None:
        """See :meth:`Stage2Module.load_stage1`; the encoders are the teacher's too."""
        super().load_stage1(parts, source)
        load_part(self.teacher.encoders, parts["encoders"], f"{source}: encoders")

    @classmethod
    def from_published(
        cls,
        folder: str | Path,
        class_names: list[str],
        epoch: str | None = None,
        teacher: str | Path | None = None,
        **options: Any,
    ) -> Self:
        """Make a model with the weights of a released checkpoint of the published code.

        Args:
            folder: with ``<epoch>_net_<NET>.pth`` of the model's networks (``published_networks``).
            class_names: in label order; a checkpoint only tells their number.
            epoch: which epoch, if the folder has several.
            teacher: folder of the stage-1 networks; needed for training on, not for prediction.
            **options: of the model, where the weights do not tell them, such as ``cascade_form``.

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
        model = cls(class_names=class_names, **(settings | options))
        model.load_stage1(read_published_parts(teacher, 1) if teacher else parts, str(teacher or folder))
        for name, state in parts.items():
            load_part(getattr(model, name), state, f"{folder}: {name}")
        model.taught = teacher is not None
        return model

    @classmethod
    def published_settings(cls, parts: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Any]:
        """Read off the hyperparameters that a released checkpoint implies."""
        return published_architecture(parts)

    def on_fit_start(self) -> None:
        """Let the teacher embed the training utterances once."""
        super().on_fit_start()
        datamodule = self.datamodule
        if datamodule is not None:
            self.teacher.remember(datamodule.in_order("train"), datamodule.corpus_size)

    def on_fit_end(self) -> None:
        """Free the teacher's memory."""
        self.teacher.forget()
