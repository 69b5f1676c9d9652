"""Self-attention over sequences of different lengths, without computing on padding."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ifmmin.nn.kernels import use_plain
from ifmmin.nn.padding import frame_mask


def packed_layer(layer: nn.TransformerEncoderLayer, frames: Tensor, lengths: Tensor, together: int = 32) -> Tensor:
    """Run a transformer layer (ReLU, norm last) on true frames only.

    Only the attention itself pads frames, among sequences of similar length.

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
    groups = lengths.split(together)
    mixed = []
    for group, part in zip(groups, projected.split([int(group.sum()) for group in groups]), strict=True):
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
