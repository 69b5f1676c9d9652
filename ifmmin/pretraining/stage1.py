"""Stage 1: pretraining on complete data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

from datamodules.batches.batch import Batch
from datamodules.conditions import COMPLETE, MODALITIES
from datamodules.ranges import BELOW_ONE, COUNT
from ifmmin.cards import ModelCard
from ifmmin.fusion import Fusion
from ifmmin.nn.heads import InvarianceEncoder
from ifmmin.nn.initialisation import initialise
from ifmmin.nn.losses import central_moments, moment_discrepancy
from ifmmin.optimization import Recipe


class Pretraining(Fusion):
    """Base of the stage-1 models: trained and selected on complete data."""

    recipe: ClassVar[Recipe] = Recipe(constant_epochs=10, decay_epochs=10, clip_norm=0.5)
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

    Zhao et al., ACL 2021, section 3.1. Batch 128, learning rate 2e-4, 10+10 epochs, dropout 0.3; on MSP-IMPROV
    batch 64, learning rate 5e-4.

    Args:
        **kwargs: of :class:`~ifmmin.fusion.Fusion`.
    """

    card = ModelCard(
        "MMIN, stage 1",
        "fusion on complete data, from which MMIN starts",
        "Zhao et al., ACL",
        2021,
        "https://aclanthology.org/2021.acl-long.203/",
        "https://github.com/AIM3-RUC/MMIN",
        "pretraining",
    )
    recipes: ClassVar[Mapping[str, Recipe]] = {
        "MSP-IMPROV": replace(Pretraining.recipe, batch_size=64, learning_rate=5e-4)
    }

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        initialise(self)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the task's loss on complete utterances."""
        return {"cls": self.task.loss(self(batch.unmasked()), batch.targets)}


class InvariantPretraining(Pretraining):
    """Stage 1 of IF-MMIN: cross entropy on classifier([h; H]) and CMD between the modalities of H.

    Zuo et al., "Exploiting modality-invariant feature for robust multimodal emotion recognition
    with missing modalities", ICASSP 2023, section 2.1. Batch 64, learning rate 2e-4, 10+10 epochs, dropout 0.3.

    Args:
        invariance_dropout: of the invariance encoder.
        moments: K of CMD_K.
        **kwargs: of :class:`~ifmmin.fusion.Fusion`.
    """

    card = ModelCard(
        "IF-MMIN, stage 1",
        "modality-invariant features on complete data, from which IF-MMIN starts",
        "Zuo et al., ICASSP",
        2023,
        "https://arxiv.org/abs/2210.15359",
        "https://github.com/ZhuoYulang/IF-MMIN",
        "pretraining",
    )
    recipe: ClassVar[Recipe] = replace(Pretraining.recipe, batch_size=64)
    architecture = (*Pretraining.architecture, "invariance_dropout")

    def __init__(
        self,
        *,
        invariance_dropout: Annotated[float, BELOW_ONE] = 0.0,
        moments: Annotated[int, COUNT] = 5,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.invariance = InvarianceEncoder(self.encoders.embedding_dim, invariance_dropout)
        self.moments = moments
        initialise(self)

    @staticmethod
    def fused_dim(embedding_dim: int) -> int:
        """Width of [h; H]."""
        return 6 * embedding_dim

    def embed(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Compute the embeddings h and invariant features H, each [B, 3, E]."""
        h = self.encoders(batch)
        return h, self.invariance(h)

    def invariant_features(self, batch: Batch) -> Tensor:
        """Compute H [B, 3, E]."""
        return self.embed(batch)[1]

    def classify(self, h: Tensor, H: Tensor) -> Tensor:
        """Outputs [B, O] = classifier([h; H])."""
        outputs: Tensor = self.classifier(torch.cat([h.flatten(1), H.flatten(1)], dim=1))
        return outputs

    def forward(self, batch: Batch) -> Tensor:
        """Outputs [B, O] = classifier([h; H])."""
        return self.classify(*self.embed(batch))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the task's loss, and the mean CMD over the three pairs of modalities, on complete utterances."""
        h, H = self.embed(batch.unmasked())
        moments = central_moments(H, self.moments)
        left, right = zip(*combinations(range(len(MODALITIES)), 2), strict=True)
        cmd = moment_discrepancy(moments[:, left], moments[:, right]).mean()
        return {"cls": self.task.loss(self.classify(h, H), batch.targets), "cmd": cmd}
