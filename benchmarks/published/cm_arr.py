"""CM-ARR as its networks would commonly be written, in plain PyTorch, to be measured against.

No code of it is public. Its habits are those of public code of its kind (DiCMoR, MulT, SupContrast): the
encoders attend over the padding of all three modalities of every row, whether they may be seen or not; every
pair of modalities has its own pass through a flow, for all rows, of which a mask takes the ones it needs;
each term of the loss runs the flows it needs again; and each modality attends to the two others in its own call.

Widths are the library's defaults.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from itertools import combinations

import torch
from pytorch_metric_learning.losses import SupConLoss
from torch import Tensor, nn
from torch.nn import functional as F
from zuko.flows import RealNVP
from zuko.transforms import MonotonicAffineTransform

from benchmarks.published.models import PlainModel, Utterance, classifier
from datamodules.conditions import MODALITIES

EMBEDDING, HEADS, FEEDFORWARD, ATTENTION_DROPOUT = 128, 4, 256, 0.1
COUPLINGS, FLOW_HIDDEN, LOG_SCALE_BOUND = 4, 128, 2.0
LOG_STD_BOUND = 3.0
TEMPERATURE = 0.1


class AttentionEncoder(nn.Module):
    """Self-attention over frames, mean over time, mean and deviation of a Gaussian."""

    def __init__(self, input_dim: int) -> None:
        super().__init__()
        self.project = nn.Linear(input_dim, EMBEDDING)
        self.attention = nn.TransformerEncoderLayer(EMBEDDING, HEADS, FEEDFORWARD, ATTENTION_DROPOUT, batch_first=True)
        self.mean = nn.Linear(EMBEDDING, EMBEDDING)
        self.log_std = nn.Linear(EMBEDDING, EMBEDDING)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Encode [B, T, D] to μ and σ, each [B, E]."""
        pooled = self.attention(self.project(frames)).mean(dim=1)
        log_std = LOG_STD_BOUND * torch.tanh(self.log_std(pooled) / LOG_STD_BOUND)
        return self.mean(pooled), log_std.exp()


class Flow(nn.Module):
    """RealNVP (of zuko) to a standard normal; ``prior`` is the logarithm of κ, over ten."""

    def __init__(self) -> None:
        super().__init__()
        affine = partial(MonotonicAffineTransform, slope=math.exp(-LOG_SCALE_BOUND))
        self.flow = RealNVP(EMBEDDING, transforms=COUPLINGS, hidden_features=(FLOW_HIDDEN,), univariate=affine)
        self.prior = nn.Parameter(torch.zeros(EMBEDDING))

    def forward(self, points: Tensor) -> Tensor:
        """Map [B, E] to [B, E]."""
        common: Tensor = self.flow().transform(points)
        return common

    def reverse(self, points: Tensor) -> Tensor:
        """Map [B, E] back."""
        embeddings: Tensor = self.flow().transform.inv(points)
        return embeddings

    def log_prob(self, points: Tensor) -> Tensor:
        """The log density [B] of [B, E]."""
        density: Tensor = self.flow().log_prob(points)
        return density


class Fusion(nn.Module):
    """Attention of each modality to the two others."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(EMBEDDING, HEADS, ATTENTION_DROPOUT, batch_first=True)
        self.norm = nn.LayerNorm(EMBEDDING)

    def forward(self, embeddings: Sequence[Tensor]) -> Tensor:
        """Fuse three [B, E] to [B, 3E]."""
        fused = []
        for modality, embedding in enumerate(embeddings):
            others = torch.stack([other for n, other in enumerate(embeddings) if n != modality], dim=1)
            attended, _ = self.attention(embedding[:, None], others, others)
            fused.append(self.norm(embedding + attended[:, 0]))
        return torch.cat(fused, dim=1)


class Contrast(nn.Module):
    """InfoNCE by the 2-Wasserstein distance of Gaussians, both ways."""

    def __init__(self) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(0.0))

    def forward(self, x: tuple[Tensor, Tensor], y: tuple[Tensor, Tensor]) -> Tensor:
        """Scalar, of two modalities' μ and σ [B, E]."""
        square = sum((left[:, None] - right).square().sum(dim=2) for left, right in zip(x, y, strict=True))
        assert isinstance(square, Tensor)
        logits = -self.log_scale.exp() * square.sqrt() / TEMPERATURE
        partner = torch.arange(len(logits), device=logits.device)
        return (F.cross_entropy(logits, partner) + F.cross_entropy(logits.T, partner)) / 2


class PlainCMARR(PlainModel):
    """CM-ARR, all phases."""

    def __init__(self, feature_dims: Sequence[int], classes: int) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict(
            {name: AttentionEncoder(dim) for name, dim in zip(MODALITIES, feature_dims, strict=True)}
        )
        self.fusion = Fusion()
        self.classifier = classifier(3 * EMBEDDING, classes, dropout=0.3)
        self.contrast = Contrast()
        self.flows = nn.ModuleDict({name: Flow() for name in MODALITIES})
        self.supcon = SupConLoss(temperature=TEMPERATURE)

    def each_flow(self) -> list[Flow]:
        """Of audio, visual and text."""
        return [flow for flow in self.flows.values() if isinstance(flow, Flow)]

    def encode(self, frames: Sequence[Tensor]) -> tuple[list[tuple[Tensor, Tensor]], list[Tensor]]:
        """μ and σ of each modality, and its embedding, a sample in training."""
        gaussians = [encoder(each) for encoder, each in zip(self.encoders.values(), frames, strict=True)]
        if not self.training:
            return gaussians, [mean for mean, _ in gaussians]
        return gaussians, [mean + std * torch.randn_like(std) for mean, std in gaussians]

    def recover(self, embeddings: Sequence[Tensor], present: Tensor) -> list[Tensor]:
        """The embeddings with those not present [B, 3] recovered from the others."""
        recovered = []
        for target, flow in enumerate(self.each_flow()):
            total, count = torch.zeros_like(embeddings[target]), 0.0 * present[:, :1]
            for source, other in enumerate(self.each_flow()):
                if source != target:
                    shown = present[:, source, None]
                    total, count = total + shown * other(embeddings[source]), count + shown
            imagined = flow.reverse(total / (count + (10 * flow.prior).exp()))
            recovered.append(torch.where(present[:, target, None] > 0, embeddings[target], imagined))
        return recovered

    def forward(self, batch: Utterance) -> Tensor:
        """See :class:`PlainModel`."""
        _, embeddings = self.encode(batch.masked(batch.present))
        logits: Tensor = self.classifier(self.fusion(self.recover(embeddings, batch.present)))
        return logits

    def losses(self, batch: Utterance) -> dict[str, Tensor]:
        """Classification, alignment, likelihood, recovery and refinement."""
        gaussians, real = self.encode(batch.frames)
        embeddings = self.recover(real, batch.present)
        fixed = [embedding.detach() for embedding in real]
        absent = 1 - batch.present
        recovered = self.recover(fixed, batch.present)
        errors = [
            (imagined - mean.detach()).square().sum(dim=1)
            for imagined, (mean, _) in zip(recovered, gaussians, strict=True)
        ]
        densities = [flow.log_prob(each).mean() for flow, each in zip(self.each_flow(), fixed, strict=True)]
        taken = [embedding[gone > 0] for embedding, gone in zip(embeddings, absent.T, strict=True)]
        labels = [batch.label] * 3 + [batch.label[gone > 0] for gone in absent.T]
        return {
            "cls": F.cross_entropy(self.classifier(self.fusion(embeddings)), batch.label),
            "align": torch.stack([self.contrast(x, y) for x, y in combinations(gaussians, 2)]).mean(),
            "nll": -torch.stack(densities).mean(),
            "recovery": (torch.stack(errors, dim=1) * absent).sum() / absent.sum(),
            "refine": self.supcon(torch.cat([*real, *taken]), torch.cat(labels)),
        }
