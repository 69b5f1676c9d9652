"""CMGA: modalities attend to each other in pairs, and a gate forgets what a source only disturbs."""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datamodules.batches.batch import Batch
from datamodules.batches.visible import visible
from datamodules.conditions import MODALITIES
from datamodules.errors import InputError
from datamodules.needs import DataNeeds
from datamodules.ranges import BELOW_ONE, WIDTH
from ifmmin.base import MissingModalityModule
from ifmmin.cards import ModelCard
from ifmmin.nn.cross_modal import CrossModalAttention, half_sinusoids
from ifmmin.nn.encoders import shown_frames
from ifmmin.nn.heads import Classifier
from ifmmin.nn.padding import frame_mask, kept_frames, mean_frame
from ifmmin.nn.rows import distinct

PAIRS = (("audio", "text"), ("visual", "text"), ("audio", "visual"))
"""Source and target of each interaction."""


class Interaction(NamedTuple):
    """What a target makes of a source.

    Attributes:
        h: [B, T, d], 0 behind the target's last frame.
        gate: f [B, T, d], in (0, 1).
    """

    h: Tensor
    gate: Tensor


class GatedAttention(nn.Module):
    r"""Attention of a target to a source, of which a gate lets through what the target needs.

    .. math::
        A = \mathrm{softmax}(Q_j K_i^T / \sqrt d) V_i, \quad f = σ(W_f [A; z_j] + b_f), \quad
            h = \mathrm{ReLU}(z_j + (W_m A + b_m) ⊙ f)

    Args:
        dim: d.

    Example:
        >>> import torch
        >>> lengths = torch.tensor([2]), torch.tensor([3])
        >>> GatedAttention(4)(torch.zeros(1, 2, 4), torch.zeros(1, 3, 4), *lengths).h.shape
        torch.Size([1, 3, 4])
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(dim, dim, bias=False) for _ in range(3))
        self.mix, self.gate = nn.Linear(dim, dim), nn.Linear(2 * dim, dim)

    def forward(self, source: Tensor, target: Tensor, source_lengths: Tensor, target_lengths: Tensor) -> Interaction:
        """Let z_j, the target [B, T, d], attend to z_i, the source [B, S, d], with lengths int64 [B], at least 1."""
        mask = frame_mask(source_lengths, source.shape[1])[:, None]
        read = self.query(target), self.key(source), self.value(source)
        attended = F.scaled_dot_product_attention(*read, attn_mask=mask)
        gate = self.gate(torch.cat([attended, target], dim=2)).sigmoid()
        h = (target + self.mix(attended) * gate).relu()
        return Interaction(h * frame_mask(target_lengths, target.shape[1])[..., None], gate)


class Tokens(NamedTuple):
    """Frames of a modality as rows read them.

    Attributes:
        z: [B, T, d], with positions.
        mean: h_m [B, d], without positions; zeros where absent.
        lengths: int64 [B], 0 where absent.
    """

    z: Tensor
    mean: Tensor
    lengths: Tensor


class CMGA(MissingModalityModule):
    r"""CMGA, cross-modality gated attention.

    Jiang, Ji: "Cross-modality gated attention fusion for multimodal sentiment analysis", arXiv 2208.11893, 2022.

    Frames of the target of a pair attend to those of its source, and a forget gate lets through what is neither noise
    nor known already (:class:`GatedAttention`). What all pairs give is read side by side by self-attention. With z_m
    the frames of modality m and h_m their mean, pairs audio to text, visual to text and audio to visual,

    .. math::
        h_{i → j} = \mathrm{gated}_{ij}(z_i, z_j), \quad u = \mathrm{mean}\, \mathrm{attention}([h_{a → t}; h_{v → t};
            h_{a → v}]), \quad ŷ = \mathrm{head}([u; h_a; h_v; h_t])

    L = L_cls, the task's loss under the training mask. A pair is there in a row that has both its modalities; a row
    with one modality is read by self-attention as it is. h_m is 0 where absent. Each pair is computed once for all
    conditions of an utterance.

    Files of predictions have a column ``gate_SOURCE_TARGET`` for each pair: the mean gate of a row, empty where there
    is no such pair. Near 0 the source is forgotten.

    Stated by the paper's abstract: interaction of pairs of modalities, and a forget gate that filters noise and
    redundancy. Of third parties' code after the paper: the equations of the gated attention, one direction for each
    pair, multi-head self-attention over all, then a projection; one of two has the gate outside of the brackets, which
    needs sequences of one length.

    Our choices: z_m a convolution over 3 frames with sinusoidal positions, d = 64, of frozen features; which direction
    each pair has; 4 heads; the mean over true frames; h_m beside it; a head of one hidden layer of 128; dropout 0.2 of
    attention weights and of the head; batch 128 and a linear schedule. Padding is never read.

    Published figures: of complete modalities, on sentiment; nothing to compare with.

    Args:
        steps: to which every sequence is pooled; None: every frame is read, in memory that grows with the square of
            an utterance's frames.
        dim: d.
        heads: of the self-attention; divides d.
        hidden_dim: of the head.
        dropout: of the weights of the self-attention, and of the head.
        **kwargs: of :class:`~ifmmin.base.MissingModalityModule`.

    Raises:
        InputError: ``heads`` does not divide ``dim``, or an option is out of range.
    """

    card = ModelCard(
        "CMGA",
        "modalities attend to each other in pairs, and a gate forgets what only disturbs",
        "Jiang, Ji, arXiv",
        2022,
        "https://arxiv.org/abs/2208.11893",
        None,
        "fusion",
        "after the abstract of the paper",
    )
    needs = DataNeeds(hidden_frames=False)

    def __init__(
        self,
        *,
        steps: Annotated[int, WIDTH] | None = None,
        dim: Annotated[int, WIDTH] = 64,
        heads: Annotated[int, WIDTH] = 4,
        hidden_dim: Annotated[int, WIDTH] = 128,
        dropout: Annotated[float, BELOW_ONE] = 0.2,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if dim % heads:
            raise InputError(f"heads {heads}: it must divide dim {dim}.")
        self.needs = DataNeeds(hidden_frames=False, steps=steps)
        self.steps = steps
        widths = zip(MODALITIES, self.feature_dims, strict=True)
        self.convolutions = nn.ModuleDict({name: nn.Conv1d(width, dim, 3, padding=1) for name, width in widths})
        self.pairs = nn.ModuleDict({f"{source}_{target}": GatedAttention(dim) for source, target in PAIRS})
        self.attention = CrossModalAttention(dim, heads, dropout)
        self.head = Classifier((1 + len(MODALITIES)) * dim, self.task.outputs, [hidden_dim], dropout)

    def tokens(self, batch: Batch) -> list[Tokens]:
        """Read audio, visual and text of each row, every stored sequence once."""
        found = []
        for m, convolution in enumerate(self.convolutions.values()):
            seen = visible(batch, m)
            frames, lengths = shown_frames(seen, self.steps)
            # Padding is zero: the last frame sees the same behind it as at the end of a batch.
            z = convolution(frames.transpose(1, 2)).transpose(1, 2)
            mean = mean_frame(z, lengths)
            z = z + half_sinusoids(z.shape[1], z.shape[2]).to(z)
            found.append(Tokens(*(seen.spread(part) for part in (z, mean, lengths))))
        return found

    def interact(self, pair: str, source: Tokens, target: Tokens, batch: Batch) -> Interaction:
        """Compute h and the gate [B, T, d] of a pair; 0 in rows that lack it."""
        module = self.pairs[pair]
        rows = ((source.lengths > 0) & (target.lengths > 0)).nonzero(as_tuple=True)[0]
        first, which = distinct(batch.row[rows])
        read = rows[first]
        if len(read):
            found = module(source.z[read], target.z[read], source.lengths[read], target.lengths[read])
        else:
            # A pair that no row has runs on zeros, so that its parameters have a gradient.
            one = source.lengths.new_ones(1)
            found = module(0.0 * source.z[:1], 0.0 * target.z[:1], one, one)
        return Interaction(
            *(part.new_zeros(len(batch), *part.shape[1:]).index_copy(0, rows, part[which]) for part in found)
        )

    def interactions(self, batch: Batch) -> tuple[list[Tokens], dict[str, Interaction]]:
        """Read each modality, and each pair by its name."""
        tokens = self.tokens(batch)
        of = dict(zip(MODALITIES, tokens, strict=True))
        pairs = {f"{source}_{target}": (of[source], of[target]) for source, target in PAIRS}
        return tokens, {name: self.interact(name, *pair, batch) for name, pair in pairs.items()}

    def side_by_side(
        self, tokens: list[Tokens], pairs: dict[str, Interaction], present: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Put what the pairs of a row give one after the other; of a row with one modality its tokens.

        Returns:
            frames [B, S, d] and their number, int64 [B].
        """
        parts, true = [], []
        for source, target in PAIRS:
            m, n = MODALITIES.index(source), MODALITIES.index(target)
            h = pairs[f"{source}_{target}"].h
            parts.append(h)
            true.append(frame_mask(tokens[n].lengths * present[:, m], h.shape[1]))
        alone = present.sum(dim=1) == 1
        for each in tokens:
            parts.append(each.z)
            true.append(frame_mask(each.lengths * alone, each.z.shape[1]))
        return kept_frames(torch.cat(parts, dim=1), torch.cat(true, dim=1))

    def forward(self, batch: Batch) -> Tensor:
        """Outputs [B, O]."""
        tokens, pairs = self.interactions(batch)
        joined, lengths = self.side_by_side(tokens, pairs, batch.present)
        mask = frame_mask(lengths, joined.shape[1])[:, None, None]
        u = mean_frame(self.attention(joined, joined, mask), lengths)
        outputs: Tensor = self.head(torch.cat([u, *(each.mean for each in tokens)], dim=1))
        return outputs

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """L_cls."""
        return {"cls": self.task.loss(self(batch), batch.target)}

    def modality_embeddings(self, batch: Batch) -> Tensor:
        """Compute h_m [B, 3, d], zeros where a modality is absent."""
        return torch.stack([each.mean for each in self.tokens(batch)], dim=1)

    def row_values(self, batch: Batch) -> dict[str, Tensor]:
        """Mean gate over frames and d of each pair that a row has."""
        tokens, pairs = self.interactions(batch)
        values = {}
        for source, target in PAIRS:
            m, n = MODALITIES.index(source), MODALITIES.index(target)
            mean = mean_frame(pairs[f"{source}_{target}"].gate, tokens[n].lengths).mean(dim=1)
            values[f"gate_{source}_{target}"] = mean.where(batch.present[:, m] & batch.present[:, n], torch.nan)
        return values
