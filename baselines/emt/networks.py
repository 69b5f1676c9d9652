"""The parts of EMT-DLFR: mutual promotion units, their fusion, what encodes a modality, and the attraction of views.

Plain ``torch.nn``: nothing here knows Lightning.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datamodules.conditions import MODALITIES
from ifmmin.nn.attention import attend
from ifmmin.nn.normalisation import BatchNorm
from ifmmin.nn.precision import in_autocast, lstm_states


class Attention(nn.Module):
    """Multi-head attention whose queries, keys and values have no bias.

    Args:
        dim: d.
        heads: divides d.
        dropout: of the attention weights.
    """

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query = nn.Linear(dim, dim, bias=False)
        self.key_value = nn.Linear(dim, 2 * dim, bias=False)
        self.output = nn.Linear(dim, dim)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Let x [B, T, d] attend to context [B, C, d]: [B, T, d]."""
        key, value = self.key_value(context).chunk(2, dim=2)
        rate = self.dropout if self.training else 0.0
        mixed: Tensor = self.output(attend(self.query(x), key, value, self.heads, dropout=rate))
        return mixed


class GatedFeedForward(nn.Module):
    """Linear to twice ``expansion`` d, one half times the GELU of the other, linear back to d (GEGLU).

    Args:
        dim: d.
        expansion: of the hidden width.
        dropout: of the hidden values.
    """

    def __init__(self, dim: int, expansion: int, dropout: float) -> None:
        super().__init__()
        self.hidden, self.output = nn.Linear(dim, 2 * expansion * dim), nn.Linear(expansion * dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., d] to [..., d]."""
        value, gate = self.hidden(x).chunk(2, dim=-1)
        mapped: Tensor = self.output(self.dropout(value * F.gelu(gate)))
        return mapped


class MutualPromotionUnit(nn.Module):
    """MPU(x ← c): x attends to c, then to itself, then a gated feed-forward part; norms first, each added to x.

    Args:
        dim: d.
        heads: of both attentions; divides d.
        expansion: of the feed-forward part.
        attention_dropout: of both attentions.
        feedforward_dropout: of the feed-forward part.
    """

    def __init__(
        self, dim: int, heads: int, expansion: int, attention_dropout: float, feedforward_dropout: float
    ) -> None:
        super().__init__()
        self.norm, self.norm_context = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.cross = Attention(dim, heads, attention_dropout)
        self.norm_self = nn.LayerNorm(dim)
        self.itself = Attention(dim, heads, attention_dropout)
        self.norm_feedforward = nn.LayerNorm(dim)
        self.feedforward = GatedFeedForward(dim, expansion, feedforward_dropout)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Promote x [B, T, d] by context [B, C, d]: [B, T, d]."""
        x = x + self.cross(self.norm(x), self.norm_context(context))
        normed = self.norm_self(x)
        x = x + self.itself(normed, normed)
        promoted: Tensor = x + self.feedforward(self.norm_feedforward(x))
        return promoted


class AttentionPool(nn.Module):
    """Σ_m w_m x_m with w = softmax over m of a linear function of tanh of another.

    Args:
        width: of each x_m.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.score = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Pool [B, M, width] to [B, width]."""
        pooled: Tensor = (self.score(x).softmax(dim=1) * x).sum(dim=1)
        return pooled


def sinusoids(steps: int, dim: int) -> Tensor:
    """Positions [steps, dim] of Vaswani et al. (NeurIPS 2017), sine and cosine of a frequency side by side.

    >>> sinusoids(2, 2).tolist()
    [[0.0, 1.0], [0.8414709848078965, 0.5403023058681398]]
    """
    place = torch.arange(steps, dtype=torch.float64)[:, None]
    angle = place * torch.exp(torch.arange(0, dim, 2, dtype=torch.float64) * (-math.log(1e4) / dim))
    return torch.stack([angle.sin(), angle.cos()], dim=2).flatten(1)[:, :dim]


class MutualPromotion(nn.Module):
    r"""The efficient multimodal transformer: a few global tokens G exchange with the frames X_m of each modality.

    .. math::
        X_m' = MPU(X_m ← G), \quad G_m = MPU(G ← X_m), \quad G' = \mathrm{pool}_m(G_m)

    in each layer, with one unit and one pool for all directions, modalities and layers; the cost is linear in the
    frames of a modality, but for their attention to themselves.

    Args:
        dim: d.
        heads: of each attention; divides d.
        layers: how often it is done.
        expansion: of the feed-forward parts.
        attention_dropout: of attention weights.
        feedforward_dropout: of the feed-forward parts.
    """

    def __init__(
        self,
        dim: int = 128,
        heads: int = 4,
        layers: int = 3,
        expansion: int = 4,
        attention_dropout: float = 0.3,
        feedforward_dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.layers = layers
        self.unit = MutualPromotionUnit(dim, heads, expansion, attention_dropout, feedforward_dropout)
        self.pool = AttentionPool(len(MODALITIES) * dim)

    def forward(
        self, tokens: Tensor, frames: Sequence[Tensor], wanted: Sequence[Tensor] | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """Run all layers on G [B, 3, d] and X_m [B, T_m, d], positions included.

        Args:
            tokens: G.
            frames: X_m of each modality.
            wanted: int64 [n_m], the rows whose X_m of the last layer are returned. G of the last layer does not read
                them: others are not computed; None: none.

        Returns:
            G [B, 3, d] and X_m [n_m, T_m, d] after the last layer.
        """
        X = list(frames)
        for layer in range(self.layers):
            promoted = torch.stack([self.unit(tokens, x).flatten(1) for x in X], dim=1)
            if layer < self.layers - 1:
                X = [self.unit(x, tokens) for x in X]
            elif wanted is None:
                X = []
            else:
                X = [self.unit(x[rows], tokens[rows]) for x, rows in zip(X, wanted, strict=True)]
            tokens = self.pool(promoted).unflatten(1, tokens.shape[1:])
        return tokens, X


class FrameEncoder(nn.Module, ABC):
    """Turns the frames [K, S, D] of a modality into frames [K, S, E] and an utterance vector [K, E]."""

    @abstractmethod
    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Encode [K, S, D], every frame a true one."""


class RecurrentFrames(FrameEncoder):
    """A linear function of LSTM states; the last is the utterance vector (audio and visual).

    Args:
        input_dim: D.
        hidden_dim: width of the states.
        embedding_dim: E.
    """

    def __init__(self, input_dim: int, hidden_dim: int, embedding_dim: int) -> None:
        super().__init__()
        self.rnn, self.linear = nn.LSTM(input_dim, hidden_dim), nn.Linear(hidden_dim, embedding_dim)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """See :class:`FrameEncoder`."""
        encoded = self.linear(lstm_states(self.rnn, in_autocast(frames).transpose(0, 1))).transpose(0, 1)
        return encoded, encoded[:, -1]


class ProjectedFrames(FrameEncoder):
    """A linear function of each frame; tanh of another of their mean is the utterance vector (text).

    Args:
        input_dim: D.
        embedding_dim: E.
    """

    def __init__(self, input_dim: int, embedding_dim: int) -> None:
        super().__init__()
        self.linear, self.utterance = nn.Linear(input_dim, embedding_dim), nn.Linear(input_dim, embedding_dim)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """See :class:`FrameEncoder`."""
        return self.linear(frames), self.utterance(frames.mean(dim=1)).tanh()


class Attraction(nn.Module):
    r"""Similarity of two views by SimSiam: predictions of each against the other's projection, without its gradient.

    .. math::
        \tfrac12 \cos(p^{inc}, sg\,z^{cmp}) + \tfrac12 \cos(p^{cmp}, sg\,z^{inc})

    with z = linear and batch normalisation of a view, p = linear, batch normalisation, ReLU and linear of z. Chen and
    He, "Exploring simple Siamese representation learning", CVPR 2021.

    Args:
        width: of a view.
        bottleneck: hidden width of p.
    """

    def __init__(self, width: int, bottleneck: int) -> None:
        super().__init__()
        self.projector = nn.Sequential(nn.Linear(width, width), BatchNorm(width, affine=False))
        self.predictor = nn.Sequential(
            nn.Linear(width, bottleneck, bias=False),
            BatchNorm(bottleneck),
            nn.ReLU(),
            nn.Linear(bottleneck, width),
        )

    def forward(self, incomplete: Tensor, complete: Tensor) -> Tensor:
        """Similarity [B], in [-1, 1], of two views [B, width] of each row."""
        z = [self.projector(view) for view in (incomplete, complete)]
        p = [self.predictor(projected) for projected in z]
        pairs = ((p[0], z[1]), (p[1], z[0]))
        return torch.stack([F.cosine_similarity(one, other.detach(), dim=1) for one, other in pairs]).mean(dim=0)
