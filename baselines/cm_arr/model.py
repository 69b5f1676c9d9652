"""CM-ARR: cross-modal alignment, reconstruction and refinement."""

from __future__ import annotations

from itertools import combinations
from typing import Annotated, Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from baselines.cm_arr.networks import (
    CrossModalAttention,
    GaussianEncoder,
    ModalityFlow,
    WassersteinContrast,
)
from datamodules.batches.batch import Batch
from datamodules.batches.visible import visible
from datamodules.conditions import MODALITIES
from datamodules.errors import InputError
from datamodules.ranges import BELOW_ONE, NOT_NEGATIVE, POSITIVE, WIDTH, Range
from ifmmin.base import MissingModalityModule
from ifmmin.cards import ModelCard
from ifmmin.nn.heads import Classifier
from ifmmin.nn.precision import full_precision
from ifmmin.optimization import Recipe

COUPLINGS = Range(2, 100)
"""With fewer than two couplings some dimensions of a flow stay as they are."""


class Encoded(NamedTuple):
    """What the encoders make of the rows of a batch; zeros where a modality is absent.

    Attributes:
        mean: μ, [B, 3, E].
        std: σ, [B, 3, E].
        embedding: [B, 3, E], a sample of the Gaussian in training, its mean otherwise.
        common: [B, 3, E], the embedding in the common space of the flows (zeros without them, or where not
            asked for).
    """

    mean: Tensor
    std: Tensor
    embedding: Tensor
    common: Tensor


class CMARR(MissingModalityModule):
    """CM-ARR.

    Sun, Zhao, Li, Kong, Wang, Kong, Zhou, Chen, Zeng, Qin: "Enhancing emotion recognition in incomplete
    data: a novel cross-modal alignment, reconstruction, and refinement framework", arXiv 2407.09029, 2024.

    What it does:

    1. Alignment: attention over a modality's frames gives a Gaussian N(μ, σ²) per utterance; InfoNCE by
       their 2-Wasserstein distance pulls the modalities of an utterance together.
    2. Reconstruction: a normalising flow per modality maps its embedding to a common standard-normal
       space; an absent modality is its flow's inverse of the mean of what the available ones give there.
    3. Refinement: supervised contrastive learning on real and reconstructed embeddings.
    4. Cross-modal attention fuses the three real or reconstructed embeddings for the classifier.

    L = L_cls + λ_align L_align + λ_nll L_nll + λ_recovery L_recovery + λ_refine L_refine, by default each λ = 0.1:

    - ``cls``: cross entropy under the training mask.
    - ``align``: symmetric InfoNCE, mean over the three pairs of modalities.
    - ``nll``: negative log-likelihood of an embedding under its flow, in nats.
    - ``recovery``: squared distance of the recovered embedding of what the mask took away from its μ.
    - ``refine``: SupCon (of pytorch-metric-learning), over utterances and modalities together.

    Stated by the paper: the three phases, Gaussians by attention, InfoNCE by 2-Wasserstein distance, flows
    that recover, supervised contrast, fusion. Our choices, since no code is public:

    - every size, weight and temperature, the optimiser and its schedule; all phases train together;
      one attention layer and the mean over time; RealNVP; PyTorch's own initialisation.
    - The embedding is a sample of the Gaussian in training, its mean otherwise.
    - ``nll`` and ``recovery`` train the flows alone. Through embeddings they could be lowered by letting these
      collapse, and ``recovery`` was seen to inflate their offsets.
    - The mean counts κ > 0 further observations (learnt, per dimension) at the origin, the mean of the
      common space. At κ = 0 what is recovered is spread as widely as what is real, so that its error
      is 2 (1 - ρ) of the variance if the modalities correlate by ρ: below ρ = 1/2 worse than to
      recover the average embedding.

    - In a corpus with gaps ``align`` compares two modalities over the utterances that have both, ``nll`` is over what
      there is, and ``recovery`` and ``refine`` know what the mask took away, not what is lost. For the classifier what
      is lost is recovered as what is masked.

    Each phase can be switched off, which removes its losses and what only it needs. Without
    reconstruction the embedding of an absent modality is zero.

    Args:
        embedding_dim: E, the width of frames after projection and of the Gaussians.
        heads: of every attention; divides E.
        feedforward_dim: of the encoders.
        encoder_dropout: of the encoders and of the fusion's attention.
        couplings: affine couplings of each flow, at least 2, so that every dimension is transformed.
        flow_hidden_dim: width of the hidden layer of a coupling's network.
        hidden_dims: of the classifier.
        dropout: of the classifier.
        alignment: whether there is the alignment phase.
        reconstruction: whether there is the reconstruction phase.
        refinement: whether there is the refinement phase.
        lambda_align: weight of ``align``.
        lambda_nll: weight of ``nll``.
        lambda_recovery: weight of ``recovery``.
        lambda_refine: weight of ``refine``.
        align_temperature: of InfoNCE.
        refine_temperature: of SupCon.
        **kwargs: of :class:`~ifmmin.base.MissingModalityModule`.

    Raises:
        InputError: ``heads`` does not divide ``embedding_dim``, or an option is out of range.
    """

    card = ModelCard(
        "CM-ARR",
        "aligns the modalities, reconstructs what is missing by flows, and refines by contrast",
        "Sun et al., arXiv",
        2024,
        "https://arxiv.org/abs/2407.09029",
        None,
        "alignment",
        "after the abstract of the paper",
        seed=True,
    )
    recipe: ClassVar[Recipe] = Recipe(learning_rate=5e-4, constant_epochs=10, decay_epochs=10)
    tasks: ClassVar[tuple[str, ...]] = ("classification",)  # refinement contrasts classes

    def __init__(
        self,
        *,
        embedding_dim: Annotated[int, WIDTH] = 128,
        heads: Annotated[int, WIDTH] = 4,
        feedforward_dim: Annotated[int, WIDTH] = 256,
        encoder_dropout: Annotated[float, BELOW_ONE] = 0.1,
        couplings: Annotated[int, COUPLINGS] = 4,
        flow_hidden_dim: Annotated[int, WIDTH] = 128,
        hidden_dims: Annotated[list[int], WIDTH] = [128, 128],
        dropout: Annotated[float, BELOW_ONE] = 0.3,
        alignment: bool = True,
        reconstruction: bool = True,
        refinement: bool = True,
        lambda_align: Annotated[float, NOT_NEGATIVE] = 0.1,
        lambda_nll: Annotated[float, NOT_NEGATIVE] = 0.1,
        lambda_recovery: Annotated[float, NOT_NEGATIVE] = 0.1,
        lambda_refine: Annotated[float, NOT_NEGATIVE] = 0.1,
        align_temperature: Annotated[float, POSITIVE] = 0.1,
        refine_temperature: Annotated[float, POSITIVE] = 0.1,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if embedding_dim % heads:
            raise InputError(f"heads {heads}: it must divide embedding_dim {embedding_dim}.")
        self.encoders = nn.ModuleDict(
            {
                name: GaussianEncoder(width, embedding_dim, heads, feedforward_dim, encoder_dropout)
                for name, width in zip(MODALITIES, self.feature_dims, strict=True)
            }
        )
        self.fusion = CrossModalAttention(embedding_dim, heads, encoder_dropout)
        self.classifier = Classifier(3 * embedding_dim, self.task.outputs, hidden_dims, dropout)
        if alignment:
            self.contrast = WassersteinContrast(embedding_dim, align_temperature)
        if reconstruction:
            self.flows = nn.ModuleDict(
                {name: ModalityFlow(embedding_dim, couplings, flow_hidden_dim) for name in MODALITIES}
            )
        if refinement:
            from pytorch_metric_learning.losses import SupConLoss  # as zuko

            self.supcon = SupConLoss(temperature=refine_temperature)
        self.alignment = alignment
        self.reconstruction = reconstruction
        self.refinement = refinement
        self.loss_weights = {
            "align": lambda_align,
            "nll": lambda_nll,
            "recovery": lambda_recovery,
            "refine": lambda_refine,
        }

    def flow(self, modality: int) -> ModalityFlow:
        """The flow of audio (0), visual (1) or text (2)."""
        flow = self.flows[MODALITIES[modality]]
        assert isinstance(flow, ModalityFlow)
        return flow

    def encode(self, batch: Batch, mapped: bool = True) -> Encoded:
        """Encode what is present in each row; each stored utterance once per modality.

        Args:
            batch: B rows.
            mapped: whether to map to the common space too.
        """
        columns = [self._encode(batch, modality, mapped) for modality in range(len(MODALITIES))]
        return Encoded(*(torch.stack(parts, dim=1) for parts in zip(*columns, strict=True)))

    def _encode(self, batch: Batch, modality: int, mapped: bool) -> Encoded:
        name, seen = MODALITIES[modality], visible(batch, modality)
        absent = self.classifier.output.weight.new_zeros(len(batch), self.fusion.norm.normalized_shape[0])
        encoder = self.encoders[name]
        if not len(seen.rows):
            if torch.is_grad_enabled():  # each parameter has a gradient all the same: devices would wait for it
                absent = absent + 0.0 * torch.stack([each.sum() for each in encoder.parameters()]).sum()
            return Encoded(absent, absent, absent, absent)
        mean, std = encoder(seen.frames, seen.lengths)
        embedding = mean + std * torch.randn_like(mean) if self.training else mean
        common = self.flow(modality)(embedding) if mapped and self.reconstruction else torch.zeros_like(mean)
        return Encoded(*(seen.spread(part) for part in (mean, std, embedding, common)))

    def reconstruct(self, embedding: Tensor, common: Tensor, present: Tensor) -> Tensor:
        """Embeddings [B, 3, E] with those not ``present`` (bool [B, 3]) recovered from the others.

        Args:
            embedding: [B, 3, E]; read where present.
            common: [B, 3, E], the same in the common space; read where present.
            present: bool [B, 3].
        """
        shown = present[..., None]
        embedding = embedding.masked_fill(~shown, 0.0)
        if not self.reconstruction:
            return embedding
        # What is not present is filled before it is summed: it may be anything.
        total, count = common.masked_fill(~shown, 0.0).sum(dim=1), shown.sum(dim=1)
        columns = []
        for modality, column in enumerate(embedding.unbind(dim=1)):
            absent = (~present[:, modality]).nonzero(as_tuple=True)[0]
            # Nothing to recover; in training each parameter has a gradient all the same: devices would wait for it.
            if not len(absent) and not torch.is_grad_enabled():
                columns.append(column)
                continue
            recovered = self.flow(modality).recover(total[absent], count[absent])
            columns.append(column.index_copy(0, absent, recovered))
        return torch.stack(columns, dim=1)

    def classify(self, embeddings: Tensor) -> Tensor:
        """Outputs [B, O] of real or recovered embeddings [B, 3, E]."""
        logits: Tensor = self.classifier(self.fusion(embeddings).flatten(1))
        return logits

    def modality_embeddings(self, batch: Batch) -> Tensor:
        """Embeddings [B, 3, E], those of absent modalities recovered by the flows."""
        encoded = self.encode(batch, mapped=not bool(batch.present.all()))
        return self.reconstruct(encoded.embedding, encoded.common, batch.present)

    def imagined_embeddings(self, batch: Batch) -> tuple[Tensor, Tensor] | None:
        """Recovered embeddings and the means μ of the complete utterances, each [B, 3, E]; None without the phase."""
        if not self.reconstruction:
            return None
        true = self.encode(batch.unmasked(), mapped=False).mean[batch.row]
        return self.modality_embeddings(batch), true.detach()

    def forward(self, batch: Batch) -> Tensor:
        """Outputs [B, O]."""
        return self.classify(self.modality_embeddings(batch))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Classification, and the terms of the phases that are switched on."""
        complete = batch.unmasked()
        # A modality's encoding depends on that modality alone: encoded complete, and masked afterwards.
        real, there = self.encode(complete), complete.present
        taken = there[batch.row] & ~batch.present
        if self.reconstruction:
            embedding, flow_losses = self._recover(real, batch, taken)
        else:
            flow_losses = {}
            embedding = self.reconstruct(real.embedding[batch.row], real.common[batch.row], batch.present)
        losses = {"cls": self.task.loss(self.classify(embedding), batch.target), **flow_losses}
        if self.alignment:
            losses["align"] = self._align(real, there)
        if self.refinement:
            points, labels = [real.embedding[there]], [batch.labels[:, None].expand(-1, 3)[there]]
            if self.reconstruction:
                points.append(embedding[taken])
                labels.append(batch.label[:, None].expand(-1, 3)[taken])
            with full_precision(embedding):
                losses["refine"] = self.supcon(torch.cat(points), torch.cat(labels))
        return losses

    def _align(self, real: Encoded, there: Tensor) -> Tensor:
        """Mean InfoNCE over the pairs of modalities, each over the utterances that have both, if there are any."""
        terms = []
        for m, n in combinations(range(len(MODALITIES)), 2):
            both = there[:, m] & there[:, n]
            mean, std = real.mean[both], real.std[both]
            if len(mean):
                terms.append(self.contrast(mean[:, m], std[:, m], mean[:, n], std[:, n]))
        return torch.stack(terms).mean() if terms else 0.0 * (real.mean.sum() + self.contrast.log_scale)

    def _recover(self, real: Encoded, batch: Batch, taken: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The embeddings [B, 3, E] under the mask; likelihood and recovery of fixed ones, to train the flows alone."""
        rows, there, fixed = batch.row, batch.available, real.embedding.detach()
        mapped = [self.flow(modality).with_density(fixed[:, modality]) for modality in range(len(MODALITIES))]
        common, density = (torch.stack(parts, dim=1) for parts in zip(*mapped, strict=True))
        # Each row twice, in one pass of the inverses: as encoded, and fixed.
        embedding, recovered = self.reconstruct(
            torch.cat([real.embedding[rows], fixed[rows]]),
            torch.cat([real.common[rows], common[rows]]),
            batch.present.repeat(2, 1),
        ).chunk(2)
        distance = (recovered - real.mean.detach()[rows]).square().sum(dim=-1)
        likelihood = density.masked_fill(~there, 0.0).sum(dim=0) / there.sum(dim=0).clamp(min=1)
        return embedding, {
            "nll": -likelihood[there.any(dim=0)].mean(),
            "recovery": distance.masked_fill(~taken, 0.0).sum() / taken.sum().clamp(min=1),
        }
