"""BIMHA: products of each two modalities, which multi-head attention weighs against each other."""

from __future__ import annotations

from itertools import combinations
from typing import Annotated, Any, NamedTuple

import torch
from torch import Tensor, nn

from datamodules.batches.batch import Batch
from datamodules.batches.visible import visible
from datamodules.conditions import MODALITIES
from datamodules.errors import InputError
from datamodules.needs import DataNeeds
from datamodules.ranges import BELOW_ONE, NOT_NEGATIVE, WIDTH
from ifmmin.base import MissingModalityModule
from ifmmin.cards import ModelCard
from ifmmin.nn.encoders import ModalityEncoders
from ifmmin.nn.heads import Classifier
from ifmmin.nn.rows import distinct

PAIRS = tuple(combinations(range(len(MODALITIES)), 2))
"""Audio and visual, audio and text, visual and text."""
NAMES = tuple(f"{MODALITIES[m]}_{MODALITIES[n]}" for m, n in PAIRS)


def available_pairs(present: Tensor) -> Tensor:
    """Bool [B, 3], which of the pairs av, at, vt have both their modalities, of bool ``present`` [B, 3].

    >>> available_pairs(torch.tensor([[True, False, True]])).tolist()
    [[False, True, False]]
    """
    return torch.stack([present[:, m] & present[:, n] for m, n in PAIRS], dim=1)


class PairToken(nn.Module):
    """A linear function of u ⊗ v, all products of two vectors.

    It is ``nn.Bilinear`` with its weights flattened, whose initial values suit D² products: their bound is 1 / D.

    Args:
        dim: D, width of u and of v.
        token_dim: E.

    Example:
        >>> PairToken(3, 4)(torch.zeros(5, 3), torch.zeros(5, 3)).shape
        torch.Size([5, 4])
    """

    def __init__(self, dim: int, token_dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim * dim, token_dim)

    def forward(self, u: Tensor, v: Tensor) -> Tensor:
        """Make a token [B, E] of u and v [B, D]."""
        token: Tensor = self.linear((u[:, :, None] * v[:, None, :]).flatten(1))
        return token


class Attended(NamedTuple):
    """What pairs make of each other.

    Attributes:
        tokens: [B, 3, E], 0 for a pair that is not there.
        weights: [B, 3, H, 3], of the pair that attends, by head, to each pair; the sum is 1 over the pairs that are
            there, and all is 0 for a pair that is not.
    """

    tokens: Tensor
    weights: Tensor


class PairAttention(nn.Module):
    """Multi-head attention of pairs to each other, added to them.

    A row without a pair is not attended to at all: with every key masked, gradients would be NaN.

    Args:
        dim: E.
        heads: H, divides E.

    Example:
        >>> PairAttention(4, 2)(torch.zeros(5, 3, 4), torch.ones(5, 3, dtype=torch.bool)).weights.shape
        torch.Size([5, 3, 2, 3])
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(dim, heads, batch_first=True)

    def forward(self, tokens: Tensor, available: Tensor) -> Attended:
        """Let tokens [B, 3, E] attend to those that are there, bool ``available`` [B, 3]."""
        rows = available.any(dim=1).nonzero(as_tuple=True)[0]
        there, own = available[rows], tokens[rows].where(available[rows][..., None], 0.0)
        if not len(rows):
            # A row of zeros that nobody reads, so that parameters have a gradient.
            there, own = torch.ones_like(available[:1]), 0.0 * tokens[:1]
        mixed, weights = self.attention(own, own, own, key_padding_mask=~there, average_attn_weights=False)
        found = (own + mixed).where(there[..., None], 0.0)
        weights = weights.transpose(1, 2).where(there[:, :, None, None], 0.0)
        parts = (part[: len(rows)] for part in (found, weights))
        return Attended(*(part.new_zeros(len(tokens), *part.shape[1:]).index_copy(0, rows, part) for part in parts))


class Features(NamedTuple):
    """What is read of rows; what a row lacks is 0.

    Attributes:
        u: [B, 3, D], of audio, visual, text.
        tokens: [B, 3, E], of the pairs av, at, vt.
    """

    u: Tensor
    tokens: Tensor


class BIMHA(MissingModalityModule):
    r"""BIMHA, multi-head attention with bimodal information.

    Wu, Peng, Zhang, Zhang, Ma, Huang: "Video sentiment analysis with bimodal information-augmented multi-head
    attention", Knowledge-Based Systems 235, 107676, 2022.

    Each two modalities give a token that is linear in all products of their values. Multi-head attention weighs the
    tokens against each other and is added to them, so that pairs count differently from utterance to utterance. With
    h_m of an encoder for each modality and u_m = linear(h_m),

    .. math::
        p_{mn} = W_{mn} (u_m ⊗ u_n) + b_{mn}, \quad q = p + \mathrm{attention}(p, p, p), \quad
            ŷ = \mathrm{head}([u_a; u_v; u_t; q_{av}; q_{at}; q_{vt}])

    L = L_cls + λ L_complete: the task's loss under the training mask, and on the complete utterance. A pair is there in
    a row that has both its modalities; u_m and q of what is absent are 0, so that of one modality the head reads u_m
    alone. Each utterance is encoded, and each of its pairs computed, once for all conditions.

    Files of predictions have a column ``pair_attention_NAME`` for each pair: the attention that it receives in a row,
    the mean over heads and over the pairs that attend, empty where there is no such pair. The sum of a row is 1. Where
    two modalities are there it is that of their one pair.

    Stated by the paper's abstract: features of the pairs av, at and vt that get different attention by multi-head
    attention, a residual structure, and that the contribution of each pair is shown. Of a third party's code after a
    sibling of the same group: the outer product of two vectors; that code attends over one token of all pairs, whose
    one weight is always 1: a linear map. Ours attends over three.

    Our choices: λ = 1, since with two modalities there is one pair, whose weight is 1, so that only complete utterances
    train queries and keys; h_m of MMIN's encoders, 128 wide, of frozen features (text: no BERT is fine-tuned); D = 32,
    so that a pair has 1024 products; E = 128 and 4 heads; no dropout of attention weights; a head of one hidden layer
    of 128 with dropout 0.3; batch 128 and a linear schedule. In a corpus with gaps L_complete is over the complete
    utterances. Padding is never read.

    What it costs: at IEMOCAP's sizes a training epoch takes some 2.3 times plain fusion's
    (``python -m benchmarks.speed.epochs``), since complete utterances are read as well.

    Published figures: of complete modalities, on sentiment; nothing to compare with.

    Args:
        embedding_dim: width of h_m.
        pair_dim: D, width of u_m; a pair has its square of products.
        token_dim: E.
        heads: of the attention; divides E.
        hidden_dim: of the head.
        dropout: of the head.
        text_channels: output channels of each convolution over text.
        text_dropout: of the text's encoder.
        lambda_complete: λ; with 0 complete utterances are not even loaded.
        **kwargs: of :class:`~ifmmin.base.MissingModalityModule`.

    Raises:
        InputError: ``heads`` does not divide ``token_dim``, or an option is out of range.
    """

    card = ModelCard(
        "BIMHA",
        "reads the products of each two modalities, weighed against each other by attention",
        "Wu et al., Knowledge-Based Systems",
        2022,
        "https://arxiv.org/abs/2103.02362",
        None,
        "fusion",
        "after the abstract of the paper",
    )

    def __init__(
        self,
        *,
        embedding_dim: Annotated[int, WIDTH] = 128,
        pair_dim: Annotated[int, WIDTH] = 32,
        token_dim: Annotated[int, WIDTH] = 128,
        heads: Annotated[int, WIDTH] = 4,
        hidden_dim: Annotated[int, WIDTH] = 128,
        dropout: Annotated[float, BELOW_ONE] = 0.3,
        text_channels: Annotated[int, WIDTH] = 128,
        text_dropout: Annotated[float, BELOW_ONE] = 0.5,
        lambda_complete: Annotated[float, NOT_NEGATIVE] = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if token_dim % heads:
            raise InputError(f"heads {heads}: it must divide token_dim {token_dim}.")
        self.encoders = ModalityEncoders.of_present(self.feature_dims, embedding_dim, text_channels, text_dropout)
        self.projections = nn.ModuleDict({name: nn.Linear(embedding_dim, pair_dim) for name in MODALITIES})
        self.pairs = nn.ModuleDict({name: PairToken(pair_dim, token_dim) for name in NAMES})
        self.attention = PairAttention(token_dim, heads)
        width = len(MODALITIES) * pair_dim + len(PAIRS) * token_dim
        self.head = Classifier(width, self.task.outputs, [hidden_dim], dropout)
        self.loss_weights = {"complete": lambda_complete}
        self.needs = DataNeeds(hidden_frames=lambda_complete > 0)

    def embed(self, batch: Batch) -> Tensor:
        """Compute u [B, 3, D], zeros where a modality is absent; each stored utterance is read once."""
        u = []
        for m, (encoder, project) in enumerate(zip(self.encoders.encoders(), self.projections.values(), strict=True)):
            seen = visible(batch, m)
            # A modality that nobody shows is run on zeros, so that its parameters have a gradient.
            h = encoder(seen.frames, seen.lengths) if len(seen.lengths) else encoder(*encoder.zero_frames())
            u.append(seen.spread(project(h)))
        return torch.stack(u, dim=1)

    def read(self, batch: Batch) -> Features:
        """Read what rows show; each pair of a stored utterance is computed once."""
        u, tokens = self.embed(batch), []
        available = available_pairs(batch.present)
        for place, ((m, n), pair) in enumerate(zip(PAIRS, self.pairs.values(), strict=True)):
            rows = available[:, place].nonzero(as_tuple=True)[0]
            first, which = distinct(batch.row[rows])
            token = pair(u[rows[first], m], u[rows[first], n])
            tokens.append(token.new_zeros(len(batch), token.shape[1]).index_copy(0, rows, token[which]))
        return Features(u, torch.stack(tokens, dim=1))

    def fuse(self, features: Features, present: Tensor) -> Tensor:
        """Fuse features of B rows, of which only bool ``present`` [B, 3] is read: [B, 3 D + 3 E]."""
        q = self.attention(features.tokens, available_pairs(present)).tokens
        u = features.u.where(present[..., None], 0.0)
        return torch.cat([u.flatten(1), q.flatten(1)], dim=1)

    def answer(self, features: Features, present: Tensor) -> Tensor:
        """Outputs [B, O] of features, as :meth:`fuse` reads them."""
        outputs: Tensor = self.head(self.fuse(features, present))
        return outputs

    def forward(self, batch: Batch) -> Tensor:
        """Outputs [B, O]."""
        return self.answer(self.read(batch), batch.present)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """L_cls under the training mask, and L_complete of the same features without it."""
        if not self.needs.hidden_frames:
            return {"cls": self.task.loss(self(batch), batch.target)}
        whole = self.read(batch.unmasked())
        shown = Features(*(part[batch.row] for part in whole))
        return {
            "cls": self.task.loss(self.answer(shown, batch.present), batch.target),
            "complete": self.loss_over(batch.available.all(dim=1), self.answer(whole, batch.available), batch.targets),
        }

    def modality_embeddings(self, batch: Batch) -> Tensor:
        """Compute u [B, 3, D], zeros where a modality is absent."""
        return self.embed(batch)

    def pair_attention(self, batch: Batch) -> Tensor:
        """Attention [B, 3] that each pair receives, the mean over heads and over the pairs that attend.

        0 for a pair that is not there; the sum of a row is 1, or 0 without a pair.
        """
        available = available_pairs(batch.present)
        weights = self.attention(self.read(batch).tokens, available).weights.mean(dim=2)
        received: Tensor = weights.sum(dim=1) / available.sum(dim=1, keepdim=True).clamp(min=1)
        return received

    def row_values(self, batch: Batch) -> dict[str, Tensor]:
        """``pair_attention_NAME``: see :meth:`pair_attention`; NaN for a pair that is not there."""
        values = self.pair_attention(batch).where(available_pairs(batch.present), torch.nan)
        return {f"pair_attention_{name}": column for name, column in zip(NAMES, values.unbind(dim=1), strict=True)}
