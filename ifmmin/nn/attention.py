"""Self-attention over sequences of different lengths, without computing on padding."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from ifmmin.nn.kernels import use_plain
from ifmmin.nn.padding import frame_mask
from ifmmin.nn.precision import full_precision

LONG = 1024
"""Frames above which a sequence is attended to by itself and in blocks, so that memory grows with its length alone."""

BLOCK = 2**19
"""Attention weights per head that a block computes at once."""


def attend(
    query: Tensor, key: Tensor, value: Tensor, heads: int, mask: Tensor | None = None, dropout: float = 0.0
) -> Tensor:
    """Multi-head attention of projected queries [B, T, d] to keys and values [B, C, d].

    Args:
        query: [B, T, d].
        key: [B, C, d].
        value: [B, C, d].
        heads: divides d.
        mask: bool [B, 1, T or 1, C], True where a query may attend; None: everywhere.
        dropout: of the attention weights.

    Returns:
        [B, T, d], the heads side by side.
    """
    q, k, v = (part.unflatten(2, (heads, -1)).transpose(1, 2) for part in (query, key, value))
    attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)
    return attended.transpose(1, 2).flatten(2)


def packed_layer(layer: nn.TransformerEncoderLayer, frames: Tensor, lengths: Tensor, together: int = 32) -> Tensor:
    """Run a transformer layer (ReLU, norm last) on true frames only.

    Only the attention itself pads frames, among sequences of similar length; those above :data:`LONG` frames are not
    padded, and never is their whole [T, T] of weights in memory.

    Args:
        layer: whose weights and dropout are used.
        frames: [F, E], one sequence after the other, the shortest first.
        lengths: int64 [K], ascending, at least 1; F is their sum.
        together: how many sequences are padded together.

    Returns:
        [F, E].
    """
    if use_plain("packed_layer"):
        return padded_layer(layer, frames, lengths)
    probability, attention = layer.dropout.p if layer.training else 0.0, layer.self_attn
    projected = F.linear(frames, attention.in_proj_weight, attention.in_proj_bias)
    short = int((lengths <= LONG).sum())
    groups = [*lengths[:short].split(together)] if short else []
    groups += lengths[short:].split(1) if short < len(lengths) else []
    mixed = []
    for group, part in zip(groups, projected.split([int(group.sum()) for group in groups]), strict=True):
        if len(part) > LONG and len(group) == 1:
            mixed.append(attend_in_blocks(part, attention.head_dim, probability))
            continue
        true = frame_mask(group, int(group[-1]))
        padded = part.new_zeros(*true.shape, part.shape[1])
        padded[true] = part
        bias = part.new_zeros(true.shape).masked_fill(~true, -torch.inf)[:, None]
        # Head by head, [k, T, E / heads] each: all heads in one product would have to be copied together first.
        query, key, value = (heads.split(attention.head_dim, dim=2) for heads in padded.chunk(3, dim=2))
        context = []
        for q, k, v in zip(query, key, value, strict=True):
            weights = torch.baddbmm(bias, q, k.transpose(1, 2), alpha=attention.head_dim**-0.5).softmax(dim=2)
            context.append(torch.bmm(F.dropout(weights, probability).to(v.dtype), v))
        mixed.append(torch.cat(context, dim=2)[true])
    states = layer.norm1(frames + F.dropout(attention.out_proj(torch.cat(mixed)), probability))
    hidden = F.dropout(layer.linear1(states).relu(), probability)
    result: Tensor = layer.norm2(states + F.dropout(layer.linear2(hidden), probability))
    return result


def attend_in_blocks(projected: Tensor, head_dim: int, probability: float) -> Tensor:
    """Self-attention of one long sequence, some queries at a time; always in full precision.

    Args:
        projected: [T, 3E], queries, keys and values of all heads, as an attention's input projection gives them.
        head_dim: width of a head.
        probability: of dropping a weight.

    Returns:
        [T, E].
    """
    exact = projected.to(torch.promote_types(projected.dtype, torch.float32))
    heads = [part.unflatten(1, (-1, head_dim)).transpose(0, 1).contiguous() for part in exact.chunk(3, dim=1)]
    context: Tensor = BlockAttention.apply(*heads, probability)  # type: ignore[no-untyped-call]
    return context.transpose(0, 1).flatten(1).to(projected.dtype)


class BlockAttention(torch.autograd.Function):
    """softmax(q kᵀ / √d) v of [H, T, d] each, with dropout of the weights, in memory that is linear in T.

    The gradient is written out so that it computes each block's weights anew: autograd would keep them all. Every
    block works in the same few buffers, since tensors that come and go between others fragment the heap.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, probability: float) -> Tensor:
        """Attend; keep inputs and the dropout's seed."""
        ctx.save_for_backward(query, key, value)
        ctx.probability, ctx.seed = probability, int(torch.randint(2**62, ())) if probability else 0
        with full_precision(query):
            context = torch.empty_like(query)
            for rows, weights, kept, _ in _blocks(query, key, probability, ctx.seed):
                context[:, rows] = torch.bmm(weights.mul_(kept) if probability else weights, value)
        return context

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        """With W the weights and P = dropout(W): dV = Pᵀ dO, dS = W (dW - Σ W dW), dQ = dS K, dK = dSᵀ Q."""
        query, key, value = ctx.saved_tensors
        with full_precision(query):
            d_query, d_key, d_value = torch.empty_like(query), torch.zeros_like(key), torch.zeros_like(value)
            for rows, weights, kept, spare in _blocks(query, key, ctx.probability, ctx.seed):
                incoming = gradient[:, rows]
                torch.bmm(incoming, value.transpose(1, 2), out=spare)
                if ctx.probability:
                    d_value += torch.bmm(torch.mul(weights, kept, out=kept).transpose(1, 2), incoming)
                    # kept is W times the mask now: where it is 0 so is the gradient of a dropped weight.
                    spare.mul_(kept)
                else:
                    d_value += torch.bmm(weights.transpose(1, 2), incoming)
                    spare.mul_(weights)
                spare.addcmul_(weights, spare.sum(dim=2, keepdim=True), value=-1).mul_(query.shape[2] ** -0.5)
                d_query[:, rows] = torch.bmm(spare, key)
                d_key += torch.bmm(spare.transpose(1, 2), query[:, rows])
        return d_query, d_key, d_value, None


def _blocks(
    query: Tensor, key: Tensor, probability: float, seed: int
) -> Iterator[tuple[slice, Tensor, Tensor, Tensor]]:
    """Of some queries at a time: which, their weights [H, R, T], factors of dropout, and a buffer of that shape."""
    heads, frames, width = query.shape
    size = max(1, BLOCK // frames)
    # Factors of dropout are the same in the backward pass: drawn from the same seed, in the same order.
    generator = torch.Generator(query.device).manual_seed(seed)
    buffers = query.new_empty(3, heads * size * frames)
    for start in range(0, frames, size):
        rows = slice(start, min(start + size, frames))
        count = rows.stop - start
        spare, weights, kept = (buffer[: heads * count * frames].view(heads, count, frames) for buffer in buffers)
        torch.bmm(query[:, rows], key.transpose(1, 2), out=spare)
        torch.softmax(spare.mul_(width**-0.5), 2, out=weights)
        if probability:
            kept.bernoulli_(1 - probability, generator=generator).div_(1 - probability)
        yield rows, weights, kept, spare


def padded_layer(layer: nn.TransformerEncoderLayer, frames: Tensor, lengths: Tensor) -> Tensor:
    """Plain twin of :func:`packed_layer`: pad all sequences to the longest.

    >>> import torch
    >>> layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True)
    >>> frames, lengths = torch.randn(5, 4), torch.tensor([2, 3])
    >>> torch.allclose(padded_layer(layer, frames, lengths), packed_layer(layer, frames, lengths), atol=1e-5)
    True
    """
    true = frame_mask(lengths, int(lengths[-1]))
    padded = frames.new_zeros(*true.shape, frames.shape[1]).index_put((true,), frames)
    states: Tensor = layer(padded, src_key_padding_mask=~true)
    return states[true]
