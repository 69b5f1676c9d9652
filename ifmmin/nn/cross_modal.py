"""Attention of a sequence, or of a vector, to the true frames of another one."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ifmmin.nn.attention import attend
from ifmmin.nn.padding import frame_mask


def half_sinusoids(steps: int, dim: int) -> Tensor:
    """Positions [steps, dim] of MulT, counted from 1: all sines, then all cosines, a zero last if ``dim`` is odd.

    >>> half_sinusoids(1, 3).tolist()
    [[0.8414709848078965, 0.5403023058681398, 0.0]]
    """
    half = dim // 2
    place = torch.arange(1, steps + 1, dtype=torch.float64)[:, None]
    angle = place * torch.exp(torch.arange(half, dtype=torch.float64) * (-math.log(1e4) / max(1, half - 1)))
    return F.pad(torch.cat([angle.sin(), angle.cos()], dim=1), (0, dim % 2))


class AdditiveAttention(nn.Module):
    r"""A vector y says by how much each step of a sequence x counts.

    .. math:: w = \mathrm{softmax}_t \bigl( u · \tanh(W x_t + b + U y) \bigr)

    Args:
        dim: d, of x and y.

    Example:
        >>> AdditiveAttention(4).weights(torch.zeros(1, 2, 4), torch.zeros(1, 4)).tolist()
        [[0.5, 0.5]]
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.sequence, self.vector = nn.Linear(dim, dim), nn.Linear(dim, dim, bias=False)
        self.score = nn.Linear(dim, 1, bias=False)

    def mix(self, x: Tensor, y: Tensor) -> Tensor:
        """Compute tanh(W x + b + U y) [B, T, d] of x [B, T, d] and y [B, d]."""
        return torch.tanh(self.sequence(x) + self.vector(y)[:, None])

    def scores(self, x: Tensor, y: Tensor) -> Tensor:
        """Compute what the softmax reads, [B, T]."""
        scores: Tensor = self.score(self.mix(x, y))[..., 0]
        return scores

    def weights(self, x: Tensor, y: Tensor, true: Tensor | None = None) -> Tensor:
        """Compute w [B, T], 0 where bool ``true`` [B, T], with a step in each row, is False; None: all are true."""
        scores = self.scores(x, y)
        return (scores if true is None else scores.masked_fill(~true, -torch.inf)).softmax(dim=1)


class CrossModalAttention(nn.Module):
    """Multi-head attention of a sequence to another, or to itself.

    Args:
        dim: d.
        heads: divides d.
        dropout: of the attention weights.
    """

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.project, self.output = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        for layer in (self.project, self.output):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, context: Tensor, mask: Tensor | None) -> Tensor:
        """Let x [B, T, d] attend to context [B, C, d] where bool ``mask`` [B, 1, T or 1, C] is True: [B, T, d]."""
        if x is context:
            query, key, value = self.project(x).chunk(3, dim=2)
        else:
            width = x.shape[2]
            weight, bias = self.project.weight, self.project.bias
            query = F.linear(x, weight[:width], bias[:width])
            key, value = F.linear(context, weight[width:], bias[width:]).chunk(2, dim=2)
        rate = self.dropout if self.training else 0.0
        mixed: Tensor = self.output(attend(query, key, value, self.heads, mask, rate))
        return mixed


class CrossModalLayer(nn.Module):
    """x attends to a context, then a feed-forward part; norms first, the first of them for x and context alike.

    Args:
        dim: d.
        heads: divides d.
        attention_dropout: of attention weights.
        relu_dropout: inside the feed-forward part, whose hidden width is 4 d.
        residual_dropout: of both parts, before they are added to x.
    """

    def __init__(
        self, dim: int, heads: int, attention_dropout: float, relu_dropout: float, residual_dropout: float
    ) -> None:
        super().__init__()
        self.norm, self.norm_feedforward = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = CrossModalAttention(dim, heads, attention_dropout)
        self.hidden, self.output = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)
        for layer in (self.hidden, self.output):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.relu_dropout, self.residual_dropout = nn.Dropout(relu_dropout), nn.Dropout(residual_dropout)

    def forward(self, x: Tensor, context: Tensor | None, mask: Tensor | None, at: Tensor | None = None) -> Tensor:
        """Run the layer.

        Args:
            x: [B, T, d].
            context: [B, C, d]; None: x itself.
            mask: bool [B, 1, T or 1, C], True where a step may be attended to; None: everywhere.
            at: int64 [B], the one step of each row that is wanted; None: all.

        Returns:
            [B, T, d], or [B, 1, d] with ``at``.
        """
        normed = self.norm(x if context is None else context)
        query = normed if context is None else self.norm(x)
        if at is not None:
            x, query = (_step(part, at) for part in (x, query))
            if mask is not None and mask.shape[2] > 1:
                mask = _step(mask[:, 0], at)[:, None]
        return self.attend(x, query, normed, mask)

    def attend(self, x: Tensor, query: Tensor, context: Tensor, mask: Tensor | None) -> Tensor:
        """Run the layer where x [B, T, d] has been normed to a query [B, T, d], and so has the context [B, C, d]."""
        x = x + self.residual_dropout(self.attention(query, context, mask))
        hidden = self.relu_dropout(self.hidden(self.norm_feedforward(x)).relu())
        result: Tensor = x + self.residual_dropout(self.output(hidden))
        return result


def _step(values: Tensor, at: Tensor) -> Tensor:
    """Step ``at`` [B] of values [B, T, ...]: [B, 1, ...]."""
    return values[torch.arange(len(at), device=at.device), at][:, None]


def _lengths(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Lengths int64 [B] of x [B, T, d], T where none are given."""
    return torch.full((len(x),), x.shape[1], device=x.device) if lengths is None else lengths


class CrossModalTransformer(nn.Module):
    r"""Layers in which a sequence attends to the same context again and again, and a last norm.

    .. math:: x_0 = \sqrt d\,x + p, \quad c = \sqrt d\,\mathrm{context} + p, \quad
        x_i = \mathrm{layer}_i(x_{i-1} ← c)

    Tsai et al., "Multimodal transformer for unaligned multimodal language sequences", ACL 2019. Without a context each
    layer attends to its own input: a transformer with norms first. Padding is never attended to, where the published
    code attends to it.

    Args:
        dim: d.
        heads: divides d.
        layers: their number.
        attention_dropout: of attention weights.
        relu_dropout: inside feed-forward parts.
        residual_dropout: of what is added to the stream.
        embedding_dropout: of x_0 and c.
        future_mask: step i of T attends to the first i + 1 + abs(T - C) steps of C only, T and C being the row's own
            lengths.

    Example:
        >>> transformer = CrossModalTransformer(dim=8, heads=2, layers=1)
        >>> transformer(torch.zeros(5, 4, 8), torch.zeros(5, 6, 8)).shape
        torch.Size([5, 4, 8])
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        layers: int,
        attention_dropout: float = 0.1,
        relu_dropout: float = 0.1,
        residual_dropout: float = 0.1,
        embedding_dropout: float = 0.25,
        future_mask: bool = False,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            CrossModalLayer(dim, heads, attention_dropout, relu_dropout, residual_dropout) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(dim)
        self.embedding_dropout = nn.Dropout(embedding_dropout)
        self.future_mask = future_mask

    def embed(self, x: Tensor) -> Tensor:
        """√d x + p of x [B, T, d]."""
        positions = half_sinusoids(x.shape[1], x.shape[2]).to(x)
        embedded: Tensor = self.embedding_dropout(math.sqrt(x.shape[2]) * x + positions)
        return embedded

    def forward(
        self,
        x: Tensor,
        context: Tensor | None = None,
        lengths: Tensor | None = None,
        context_lengths: Tensor | None = None,
        last: bool = False,
    ) -> Tensor:
        """Run all layers.

        Args:
            x: [B, T, d].
            context: [B, C, d]; None: x itself.
            lengths: int64 [B] in 1..T, of x; None: all T.
            context_lengths: int64 [B] in 1..C; None: all C.
            last: only the last true step of each row is wanted: the last layer computes no other.

        Returns:
            [B, T, d], meaningless behind a row's length; [B, d] if ``last``.
        """
        if context is None:
            mask = self.mask(x, lengths, x, lengths)
        else:
            mask = self.mask(x, lengths, context, context_lengths)
            context = self.embed(context)
        x, at = self.embed(x), None
        for place, layer in enumerate(self.layers, start=1):
            if last and place == len(self.layers):
                at = _lengths(x, lengths) - 1
            x = layer(x, context, mask, at)
        normed: Tensor = self.norm(x)
        return normed[:, 0] if last else normed

    def mask(self, x: Tensor, lengths: Tensor | None, context: Tensor, context_lengths: Tensor | None) -> Tensor | None:
        """Bool [B, 1, T or 1, C], which steps of the context each step attends to; None: all."""
        T, C = x.shape[1], context.shape[1]
        shown = None if context_lengths is None else frame_mask(context_lengths, C)[:, None, None]
        if not self.future_mask:
            return shown
        step, key = torch.arange(T, device=x.device)[:, None], torch.arange(C, device=x.device)
        further = (_lengths(x, lengths) - _lengths(context, context_lengths)).abs()
        past = (key <= step + further[:, None, None])[:, None]
        return past if shown is None else past & shown
