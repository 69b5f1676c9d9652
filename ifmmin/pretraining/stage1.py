"""Stage 1: pretraining on complete data."""

from __future__ import annotations

from itertools import combinations
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from datamodules.batches.batch import Batch
from datamodules.conditions import COMPLETE, MODALITIES
from datamodules.storage.layouts import MSP_IMPROV_LAYOUT
from ifmmin.fusion import Fusion
from ifmmin.nn.heads import InvarianceEncoder
from ifmmin.nn.initialisation import initialise
from ifmmin.nn.losses import central_moments, moment_discrepancy


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
