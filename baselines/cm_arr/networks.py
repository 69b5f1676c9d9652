"""The parts of CM-ARR: Gaussian encoders, Wasserstein contrast, flows and cross-modal attention.

Plain ``torch.nn``: nothing here knows Lightning.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datamodules.conditions import MODALITIES
from ifmmin.nn.attention import packed_layer
from ifmmin.nn.flows import Flow
from ifmmin.nn.losses import wasserstein2
from ifmmin.nn.padding import checked_lengths, frame_mask
from ifmmin.nn.precision import full_precision

LOG_STD_BOUND = 3.0
"""Bound of the absolute value of log σ: σ can neither vanish nor explode, in any precision."""

LOG_SCALE_BOUND = 2.0
"""Bound of the absolute log scale of an affine coupling: neither a flow nor its inverse can explode."""


class GaussianEncoder(nn.Module):
    """Self-attention over the frames of a modality; the pooled utterance is a diagonal Gaussian.

    The order of the frames is not encoded (the features carry their context), and nothing depends
    on the padding.

    Args:
        input_dim: D, the width of a frame.
        dim: E, the width of the Gaussian.
        heads: of the attention.
        feedforward_dim: hidden width of the feed-forward part.
        dropout: of attention and feed-forward part.
    """

    def __init__(self, input_dim: int, dim: int, heads: int, feedforward_dim: int, dropout: float) -> None:
        super().__init__()
        self.project = nn.Linear(input_dim, dim)
        self.attention = nn.TransformerEncoderLayer(dim, heads, feedforward_dim, dropout, batch_first=True)
        self.mean = nn.Linear(dim, dim)
        self.log_std = nn.Linear(dim, dim)

    def forward(self, frames: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Encode frames [K, T, D] with lengths int64 [K] in 1..T to μ and σ, each [K, E].

        Without lengths nothing is padding.

        Raises:
            InputError: shapes or lengths are others.
        """
        lengths = checked_lengths(frames, lengths, self.project.in_features)
        longest = frames.shape[1]
        ascending, order = lengths.sort()
        position = order[:, None] * longest + torch.arange(longest, device=order.device)
        true = position[frame_mask(ascending, longest)]
        states = packed_layer(self.attention, self.project(frames.flatten(0, 1).index_select(0, true)), ascending)
        with full_precision(states):
            states = states.to(self.mean.weight.dtype)
            total = states.new_zeros(len(lengths), states.shape[1]).index_add(0, true // longest, states)
            pooled = total / lengths[:, None]
            log_std = LOG_STD_BOUND * torch.tanh(self.log_std(pooled) / LOG_STD_BOUND)
            return self.mean(pooled), log_std.exp()


class WassersteinContrast(nn.Module):
    """InfoNCE over utterances between two modalities whose embeddings are diagonal Gaussians.

    The similarity is a·W₂ with a learnable a < 0; an offset, as in a·W₂ + b, would cancel in the
    softmax. The negatives are the other utterances on the same device. Oord et al., arXiv 1807.03748.

    Args:
        dim: E, the width of the Gaussians; a starts at -1/√E, since W₂ grows with √E.
        temperature: of the softmax.
    """

    def __init__(self, dim: int, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature
        self.log_scale = nn.Parameter(torch.tensor(-0.5 * math.log(dim)))

    def forward(self, mean_x: Tensor, std_x: Tensor, mean_y: Tensor, std_y: Tensor) -> Tensor:
        """Scalar, symmetric in x and y; all are [N, E], and row i of x and of y are one utterance."""
        with full_precision(mean_x):
            distance = wasserstein2(mean_x, std_x, mean_y, std_y)
            logits = -self.log_scale.exp() * distance / self.temperature
            partner = torch.arange(len(logits), device=logits.device)
            return (F.cross_entropy(logits, partner) + F.cross_entropy(logits.T, partner)) / 2


class ModalityFlow(Flow):
    """A RealNVP (of zuko) from the embeddings of a modality to the common standard-normal space.

    Dinh, Sohl-Dickstein, Bengio: "Density estimation using Real NVP", ICLR 2017.

    Args:
        dim: E.
        couplings: affine couplings, whose masks alternate.
        hidden_dim: width of the hidden layer of each coupling's network.
    """

    def __init__(self, dim: int, couplings: int, hidden_dim: int) -> None:
        super().__init__()
        # Imported here, since other models need not wait for it.
        from zuko.flows import RealNVP
        from zuko.transforms import MonotonicAffineTransform

        affine = partial(MonotonicAffineTransform, slope=math.exp(-LOG_SCALE_BOUND))
        self.flow = RealNVP(dim, transforms=couplings, hidden_features=(hidden_dim,), univariate=affine)
        for coupling in self.flow.transform.transforms:
            # Close to the identity: a random flow's inverse can be off by many orders of magnitude.
            nn.init.normal_(coupling.hyper[-1].weight, std=0.01)
            nn.init.zeros_(coupling.hyper[-1].bias)
        self.prior = nn.Parameter(torch.zeros(dim))

    def transform(self) -> Any:
        """See :class:`~ifmmin.nn.flows.Flow`."""
        return self.flow.transform()

    def with_density(self, embeddings: Tensor) -> tuple[Tensor, Tensor]:
        """Map embeddings [..., E] to the common space [..., E]; and their log density [...], in nats."""
        with full_precision(embeddings):
            common, volume = self.with_volume(embeddings)
            return common, self.flow.base().log_prob(common) + volume

    @property
    def prior_count(self) -> Tensor:
        """κ, positive, [E]; 1 before training."""
        # The factor lets it move as fast as an output to which many weights add up.
        return (10.0 * self.prior).exp()

    def recover(self, total: Tensor, count: Tensor) -> Tensor:
        """This modality's embedding where it is absent: the inverse at total / (count + κ).

        Args:
            total: [B, E], the sum of what the available modalities are in the common space.
            count: [B, 1], how many they are. As if the available modalities were noisy observations of one
                standard-normal value, κ is the variance of their noise.

        Returns:
            [B, E].
        """
        with full_precision(total):
            return self.inverse(total / (count + self.prior_count))


class CrossModalAttention(nn.Module):
    """Each modality attends to the two others, with a residual connection and layer norm.

    Args:
        dim: E.
        heads: of the attention.
        dropout: of the attention weights.
    """

    others: Tensor

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(dim, heads, dropout, batch_first=True)
        self.norm = nn.LayerNorm(dim)
        self.register_buffer("others", torch.eye(len(MODALITIES), dtype=torch.bool), persistent=False)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Map [B, 3, E] to [B, 3, E]."""
        attended, _ = self.attention(embeddings, embeddings, embeddings, attn_mask=self.others, need_weights=False)
        fused: Tensor = self.norm(embeddings + attended)
        return fused
