"""Stage 1: pretraining on complete data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

from datamodules.batches.batch import Batch
from datamodules.conditions import COMPLETE
from datamodules.ranges import BELOW_ONE, COUNT
from ifmmin.base import MissingModalityModule
from ifmmin.cards import ModelCard
from ifmmin.fusion import Fusion
from ifmmin.nn.heads import InvarianceActivation, InvarianceEncoder
from ifmmin.nn.initialisation import initialise
from ifmmin.nn.losses import Discrepancy, invariance_discrepancy
from ifmmin.optimization import Recipe


class Stage1Module(MissingModalityModule):
    """Base of the stage-1 models, whatever their networks: trained and selected on complete data.

    Our choices: in a corpus with gaps it trains on every utterance with all that the corpus has of it, and reads what
    is lost as stage 2 does; complete utterances alone may be few. They alone select the epoch.
    """

    monitored_row: ClassVar[str] = COMPLETE
    validation_conditions: ClassVar[tuple[str, ...]] = (COMPLETE,)
    log_prefix = "stage1/"
    architecture: ClassVar[tuple[str, ...]]
    """Hyperparameters that stage 2 must share, since it starts from these networks."""


class Pretraining(Stage1Module, Fusion):
    """Base of the stage-1 models that are encoders and a classifier."""

    recipe: ClassVar[Recipe] = Recipe(constant_epochs=10, decay_epochs=10, clip_norm=0.5)
    architecture: ClassVar[tuple[str, ...]] = (
        "embedding_dim",
        "pooling",
        "text_channels",
        "text_dropout",
        "absent_frames",
    )


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

    Of the public code: the form of the shared encoder depends on the name of a run
    (:class:`~ifmmin.nn.heads.InvarianceEncoder`); which form gave the paper's numbers is unknown, and the default is
    that of a run without such a name. Its script selects the best epoch on the test split.

    Our choices: those of :class:`Stage1Module`; two modalities are compared over the utterances that have both.

    What to expect of H: with the published discrepancy it shrinks, with the default sizes to about 1 % of the spread of
    h; so it does with features of another scale, a smaller weight, or another initialisation. Nothing holds it: H =
    f(h) adds nothing to a classifier that reads h beside it, and CMD(αH) falls with every α < 1. What shrinks is its
    scale, not its content: standardised, H still tells the modality it comes from, and the emotion nearly as well as h.
    ``discrepancy="bounded"`` does not reward shrinking: H keeps its scale and tells the modality less. It makes the
    mechanism work and is not known to recognise emotions any better.

    Args:
        invariance_dropout: of the invariance encoder, after each activation.
        invariance_layers: its number of linear layers; the public code has 1, 2 or 4.
        invariance_activation: LeakyReLU after each of them, or a sigmoid after each but the last.
        discrepancy: between the modalities of H, as :mod:`ifmmin.nn.losses` defines it: ``published``; ``bounded``, of
            tanh of the standardised H; ``zellinger``, of tanh H; ``none``, the ablation without the term.
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
    architecture = (
        *Pretraining.architecture,
        "invariance_dropout",
        "invariance_layers",
        "invariance_activation",
    )

    def __init__(
        self,
        *,
        invariance_dropout: Annotated[float, BELOW_ONE] = 0.0,
        invariance_layers: Annotated[int, COUNT] = 2,
        invariance_activation: InvarianceActivation = "leaky_relu",
        discrepancy: Discrepancy = "published",
        moments: Annotated[int, COUNT] = 5,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.invariance = InvarianceEncoder(
            self.encoders.embedding_dim, invariance_dropout, invariance_layers, invariance_activation
        )
        self.discrepancy, self.moments = discrepancy, moments
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
        """Compute the task's loss, and the discrepancy between the modalities of H, on complete utterances."""
        h, H = self.embed(batch.unmasked())
        terms = {}
        if self.discrepancy != "none":
            terms["cmd"] = invariance_discrepancy(H, self.discrepancy, self.moments, batch.available)
        return {"cls": self.task.loss(self.classify(h, H), batch.targets), **terms}
