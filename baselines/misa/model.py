"""MISA: what modalities share, and what each has for itself, with losses over what is present."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn

from baselines.misa.networks import PresentAttention, original_encoders
from datamodules.batches.batch import Batch
from datamodules.errors import InputError
from datamodules.needs import DataNeeds
from datamodules.ranges import BELOW_ONE, COUNT, NOT_NEGATIVE, WIDTH
from ifmmin.base import MissingModalityModule
from ifmmin.cards import ModelCard
from ifmmin.nn.encoders import ModalityEncoders, Pooling
from ifmmin.nn.heads import Classifier, InvarianceEncoder
from ifmmin.nn.losses import known_mse
from ifmmin.nn.subspaces import ModalityLinear, Subspaces, present_mean, subspace_losses
from ifmmin.optimization import Recipe

WEIGHTS: dict[bool, dict[str, float]] = {
    False: {"diff": 0.06, "sim": 0.2, "recon": 0.2},
    True: {"diff": 0.3, "sim": 1.0, "recon": 1.0},
}
"""Of the losses, by whether the networks are the original ones."""

DROPOUT = {False: 0.5, True: 0.1}
"""Of the self-attention, likewise."""


class MISA(MissingModalityModule):
    r"""MISA: modality-invariant and modality-specific representations, with modalities missing.

    Hazarika, Zimmermann, Poria: "MISA: Modality-invariant and -specific representations for multimodal sentiment
    analysis", ACM Multimedia, 2020. IF-MMIN's repository trains it under masks, to compare with.

    An encoder of each modality m gives u_m. A linear layer and a sigmoid for each modality give p_m, what the modality
    has for itself, and one encoder for all gives s_m, what it shares. A transformer layer lets the tokens p_m and s_m
    attend to each other, and a classifier reads all of them. A linear function of p_m + s_m reconstructs u_m.

    .. math::
        L = L_{cls} + α L_{diff} + β L_{sim} + γ L_{recon}

    L_diff: the orthogonality (:func:`~ifmmin.nn.subspaces.orthogonality`) of p_m to s_m and of p_m to p_n, six
    terms; L_sim: the mean over the pairs of modalities of CMD_5 of s_m and s_n; L_recon: the mean squared error of the
    reconstruction. What is built by default is the form of IF-MMIN's repository for these features: its LSTMs and
    TextCNN, the shared encoder of IF-MMIN, α = 0.06, β = γ = 0.2; learning rate 2e-4, batch 64, 20+20 epochs, gradients
    clipped to 1 per sub-network. ``original`` has the paper's encoders, two bidirectional LSTMs as wide as the frames
    for audio and visual, LayerNorm between them, each modality projected, a sigmoid in the shared encoder, and its
    α = 0.3, β = γ = 1; its learning rate, 1e-4, is ``--model.learning_rate 1e-4``.

    Missing modalities: the two tokens of an absent one are no keys, and zero in what the classifier reads, so that
    nothing stands in for it. L_diff and L_sim are taken over the rows that have both of a pair, L_recon over what is
    present. ``lambda_missing`` adds L_missing, ours: the mean of s over what is present predicts s of each absent
    modality, as the whole utterance gives it and without a gradient, in mean squared error. It is IF-MMIN's idea on
    MISA, and 0 by default.

    What it costs: at IEMOCAP's sizes a training step takes some 1.4 times as long as plain fusion's, with
    ``lambda_missing`` 2.8 times, since utterances are then encoded whole, and ``original`` 8 times, since its LSTMs are
    as wide as the frames and read them four times.

    Our choices: what is done about missing modalities, above; gradients clipped by norm with ``original`` too, where
    the paper's code clips values; a fixed schedule instead of early stopping; with ``original`` the mean of frozen
    frames for text.

    Differs from the paper's code (MIT): padding is never read; the discriminator that no loss reads is not built,
    nor the decay of the learning rate that never acts.

    Differs from IF-MMIN's repository: there frames are masked and nothing else is done about what is missing, the
    optimiser steps twice for a batch, the similarity compares means alone, and the best epoch is selected on test.

    Published figures: MPLMM (ACL 2024) reports a mean of six conditions of 67.9 on MOSI for MISA trained on complete
    data; another corpus, trained BERT, and no masks in training: not to be compared with.

    Args:
        embedding_dim: E, of u, p and s.
        pooling: of the LSTM states over time; not of ``original``.
        text_channels: output channels of each TextCNN convolution; not of ``original``.
        text_dropout: of the TextCNN; not of ``original``.
        heads: of the self-attention; divides E.
        feedforward_dim: hidden width of its feed-forward part.
        fusion_dropout: of its layer; None: 0.5, with ``original`` 0.1.
        dropout: of the classifier, whose hidden layer has 3 E.
        lambda_diff: α; None: 0.06, with ``original`` 0.3.
        lambda_sim: β; None: 0.2, with ``original`` 1.
        lambda_recon: γ; None: 0.2, with ``original`` 1.
        lambda_missing: weight of L_missing; with 0, hidden frames are not read.
        original: build the paper's networks.
        **kwargs: of :class:`~ifmmin.base.MissingModalityModule`.

    Raises:
        InputError: ``heads`` does not divide ``embedding_dim``, or an option is out of range.
    """

    card = ModelCard(
        "MISA",
        "separates what modalities share from what each has for itself, over what is present",
        "Hazarika et al., ACM MM",
        2020,
        "https://arxiv.org/abs/2005.03545",
        "https://github.com/declare-lab/MISA",
        "alignment",
        seed=True,
    )
    recipe: ClassVar[Recipe] = Recipe(batch_size=64)

    def __init__(
        self,
        *,
        embedding_dim: Annotated[int, WIDTH] = 128,
        pooling: Pooling = "max",
        text_channels: Annotated[int, WIDTH] = 128,
        text_dropout: Annotated[float, BELOW_ONE] = 0.5,
        heads: Annotated[int, COUNT] = 2,
        feedforward_dim: Annotated[int, WIDTH] = 2048,
        fusion_dropout: Annotated[float, BELOW_ONE] | None = None,
        dropout: Annotated[float, BELOW_ONE] = 0.5,
        lambda_diff: Annotated[float, NOT_NEGATIVE] | None = None,
        lambda_sim: Annotated[float, NOT_NEGATIVE] | None = None,
        lambda_recon: Annotated[float, NOT_NEGATIVE] | None = None,
        lambda_missing: Annotated[float, NOT_NEGATIVE] = 0.0,
        original: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if embedding_dim % heads:
            raise InputError(f"heads {heads}: it must divide embedding_dim {embedding_dim}.")
        self.shared: nn.Module
        if original:
            self.encoders = ModalityEncoders(original_encoders(self.feature_dims, embedding_dim))
            self.shared = nn.Sequential(nn.Linear(embedding_dim, embedding_dim), nn.Sigmoid())
        else:
            self.encoders = ModalityEncoders.of_dims(
                self.feature_dims, embedding_dim, pooling, text_channels, text_dropout
            )
            self.shared = InvarianceEncoder(embedding_dim)
        self.private = ModalityLinear(embedding_dim)
        self.reconstruct = ModalityLinear(embedding_dim)
        rate = DROPOUT[original] if fusion_dropout is None else fusion_dropout
        self.fusion = PresentAttention(embedding_dim, heads, feedforward_dim, rate)
        self.classifier = Classifier(6 * embedding_dim, self.task.outputs, [3 * embedding_dim], dropout)
        given = {"diff": lambda_diff, "sim": lambda_sim, "recon": lambda_recon}
        chosen = {name: WEIGHTS[original][name] if weight is None else weight for name, weight in given.items()}
        self.loss_weights = {**chosen, "missing": lambda_missing}
        self.needs = DataNeeds(hidden_frames=lambda_missing > 0)

    def split(self, batch: Batch) -> Subspaces:
        """Encode what is present in each row, and split it."""
        u: Tensor = self.encoders(batch)
        return Subspaces(u, self.private(u).sigmoid(), self.shared(u))

    def fuse(self, parts: Subspaces, present: Tensor) -> Tensor:
        """Outputs [B, O] of rows that show bool ``present`` [B, 3]."""
        tokens = torch.cat([parts.private, parts.shared], dim=1)
        outputs: Tensor = self.classifier(self.fusion(tokens, present.repeat(1, 2)).flatten(1))
        return outputs

    def modality_embeddings(self, batch: Batch) -> Tensor:
        """Compute u [B, 3, E]; zeros where a modality is absent."""
        return self.split(batch).embeddings * batch.present[..., None]

    def invariant_features(self, batch: Batch) -> Tensor:
        """Compute s [B, 3, E]; zeros where a modality is absent."""
        return self.split(batch).shared * batch.present[..., None]

    def forward(self, batch: Batch) -> Tensor:
        """Outputs [B, O]."""
        return self.fuse(self.split(batch), batch.present)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """L_cls, L_diff, L_sim and L_recon over what is present, and L_missing if it has a weight."""
        present = batch.present
        if self.needs.hidden_frames:
            parts = Subspaces(*(part[batch.row] for part in self.split(batch.unmasked())))
        else:
            parts = self.split(batch)
        losses = {
            "cls": self.task.loss(self.fuse(parts, present), batch.target),
            **subspace_losses(parts, self.reconstruct, present),
        }
        if self.needs.hidden_frames:
            absent = batch.available[batch.row] & ~present
            losses["missing"] = known_mse(predicted(parts.shared, present), parts.shared.detach(), absent)
        return losses


def predicted(shared: Tensor, present: Tensor) -> Tensor:
    """Mean of s [B, 3, E] over what is ``present``, bool [B, 3], at least one True in a row; for each modality."""
    return present_mean(shared, present)[:, None].expand_as(shared)
