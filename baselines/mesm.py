"""MESM's sparse cross-modal attention: text keeps the frames of audio and visual that count, and drops the others."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datamodules.batches.batch import Batch
from datamodules.batches.visible import visible
from datamodules.conditions import MODALITIES
from datamodules.errors import InputError
from datamodules.needs import DataNeeds
from datamodules.ranges import BELOW_ONE, COUNT, WIDTH, Range
from ifmmin.base import MissingModalityModule
from ifmmin.cards import ModelCard
from ifmmin.nn.cross_modal import AdditiveAttention, CrossModalLayer, half_sinusoids
from ifmmin.nn.encoders import TextCNN, shown_frames
from ifmmin.nn.padding import frame_mask, kept_frames, mean_frame
from ifmmin.nn.rows import distinct
from ifmmin.optimization import Recipe

SELECTED = ("audio", "visual")
TEXT = MODALITIES.index("text")


def top_mass(weights: Tensor, true: Tensor, threshold: float) -> Tensor:
    """Choose the fewest of the largest weights whose sum reaches a threshold: bool [B, T], at least one in a row.

    Args:
        weights: [B, T], not negative, with the sum 1 in a row, 0 where not true.
        true: bool [B, T], steps that may be chosen, at least one in a row.
        threshold: above 0; 1 chooses all.

    >>> import torch
    >>> top_mass(torch.tensor([[0.3, 0.1, 0.6]]), torch.ones(1, 3, dtype=torch.bool), 0.8).tolist()
    [[True, False, True]]
    """
    if threshold >= 1:  # whatever the sum is rounded to
        return true
    exact = weights.detach().to(torch.promote_types(weights.dtype, torch.float32))
    largest, order = exact.sort(dim=1, descending=True, stable=True)
    before = F.pad(largest.cumsum(dim=1)[:, :-1], (1, 0))
    return torch.zeros_like(true).scatter(1, order, before < threshold) & true


class SparseBlock(nn.Module):
    r"""A vector keeps the steps of a sequence that count, and a transformer layer reads them.

    .. math::
        w = \mathrm{softmax}(s), \quad K = \mathrm{top}_θ(w), \quad x_i' = |K|\, \mathrm{softmax}_K(s)_i\, x_i,
            \quad i ∈ K

    with the scores s of :class:`~ifmmin.nn.cross_modal.AdditiveAttention` and K of :func:`top_mass`.

    Args:
        dim: d.
        heads: divides d.
        dropout: of the layer.
    """

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention = AdditiveAttention(dim)
        self.layer = CrossModalLayer(dim, heads, dropout, dropout, dropout)

    def select(self, x: Tensor, lengths: Tensor, y: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
        """Choose steps of x [P, T, d], by lengths int64 [P] and y [P, d]: bool [P, T], and softmax_K(s) [P, T]."""
        true, scores = frame_mask(lengths, x.shape[1]), self.attention.scores(x, y)
        kept = top_mass(scores.detach().masked_fill(~true, -torch.inf).softmax(dim=1), true, threshold)
        return kept, scores.masked_fill(~kept, -torch.inf).softmax(dim=1)

    def forward(self, x: Tensor, lengths: Tensor, y: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
        """Give what the layer makes of the kept steps, [P, S, d], and how many they are, int64 [P]."""
        kept, shares = self.select(x, lengths, y, threshold)
        x, lengths = kept_frames(x * (kept.sum(dim=1, keepdim=True) * shares)[..., None], kept)
        return self.layer(x, None, frame_mask(lengths, x.shape[1])[:, None, None]), lengths


class Reading(NamedTuple):
    """What rows read of a modality.

    Attributes:
        vector: [B, d], 0 where absent.
        share: [B], the part of the frames that is left after all blocks; NaN where absent.
    """

    vector: Tensor
    share: Tensor


class MESM(MissingModalityModule):
    r"""MESM's sparse cross-modal attention, on sequences of features.

    Dai, Cahyawijaya, Liu, Fung: "Multimodal end-to-end sparse model for emotion recognition", NAACL 2021. Theirs is
    trained end to end, and selects pixels of faces and of spectrograms; this is its selection alone, of frames.

    Most of what audio and visual show tells nothing. A vector of the text says by how much each frame counts; the
    fewest frames whose weights reach a sum θ are kept, and nothing computes on the others any more. Of three such
    blocks (:class:`SparseBlock`) each selects among what the one before has left. Each modality then answers by itself.
    With y the vector of the text, or a learnt one if there is no text, z_m the frames of m and M what is present,

    .. math::
        (x_m, K_m) = \mathrm{blocks}_m(z_m; y), \quad f_m = V_m \operatorname*{mean}_{K_m} x_m \ (m = a, v), \quad
            f_t = V_t y, \quad ŷ = \sum_{m ∈ M} ω_m f_m, \quad L = L_{cls}

    L_cls: the task's loss under the training mask. An utterance is read once with its text and once without, for all
    conditions. ``predictions.csv`` has columns ``kept_audio`` and ``kept_visual``: the part of a row's frames that is
    left, empty where absent. With θ = 0.8 and weights all alike it is 0.51; after a fit on the built-in corpus it is
    0.40 of audio and 0.52 of visual (fold 1, seed 0).

    Stated by the abstract: sparse cross-modal attention, with about half of the computation of features. Of the
    published code (wenliangdai/Multimodal-End2end-Sparse, whose README shows CC BY 4.0): the scores, the rule of
    selection, a dense layer and three blocks, θ = 0.8 of its command, a linear layer without bias over the answers of
    the modalities, width 64 and 4 heads of its transformers.

    Our choices: frozen features, every frame; y by the TextCNN of MMIN, for ALBERT's class token; z_m a convolution
    over 3 frames, a ReLU and sinusoidal positions; a transformer layer in each block, for sparse convolutions; without
    text a learnt query, so that frames are selected then as well, by what tells most in general (the paper's model
    needs text); an absent modality is left out of the sum; ω starts at 1; learning rate 1e-3, batch 128 and a linear
    schedule.

    Differs from the published code: there a selection is a mask without a gradient, so that the parameters of the
    attention never change from what they were drawn as. Here a kept frame is multiplied by its weight among the kept,
    times their number, which is 1 on average. The published form is no option: half of its parameters would be dead.

    Published figures: of complete modalities, each emotion a binary task, end to end; nothing to compare with.

    Args:
        threshold: θ; 1 keeps all frames.
        steps: to which audio and visual are pooled; None: every frame is read, in memory that grows with the square of
            what is kept of an utterance's frames.
        dim: d.
        heads: of each layer; divides d.
        blocks: their number.
        block_dropout: of the layers.
        text_channels: output channels of each convolution over text.
        text_dropout: of the text's encoder.
        **kwargs: of :class:`~ifmmin.base.MissingModalityModule`.

    Raises:
        InputError: ``heads`` does not divide ``dim``, or an option is out of range.
    """

    card = ModelCard(
        "MESM's sparse cross-modal attention",
        "MESM's sparse cross-modal attention, on features: text selects the frames of audio and visual that are read",
        "Dai et al., NAACL",
        2021,
        "https://arxiv.org/abs/2103.09666",
        "https://github.com/wenliangdai/Multimodal-End2end-Sparse",
        "fusion",
        "the selection of a model of pixels, after its abstract and code",
    )
    recipe: ClassVar[Recipe] = Recipe(learning_rate=1e-3, constant_epochs=5, decay_epochs=5)
    needs = DataNeeds(hidden_frames=False)

    def __init__(
        self,
        *,
        threshold: Annotated[float, Range(0, 1, above=True)] = 0.8,
        steps: Annotated[int, WIDTH] | None = None,
        dim: Annotated[int, WIDTH] = 64,
        heads: Annotated[int, WIDTH] = 4,
        blocks: Annotated[int, COUNT] = 3,
        block_dropout: Annotated[float, BELOW_ONE] = 0.1,
        text_channels: Annotated[int, WIDTH] = 128,
        text_dropout: Annotated[float, BELOW_ONE] = 0.5,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if dim % heads:
            raise InputError(f"heads {heads}: it must divide dim {dim}.")
        self.needs = DataNeeds(hidden_frames=False, steps=steps)
        self.threshold, self.steps = threshold, steps
        widths = zip(SELECTED, self.feature_dims, strict=False)
        self.convolutions = nn.ModuleDict({name: nn.Conv1d(width, dim, 3, padding=1) for name, width in widths})
        self.blocks = nn.ModuleDict(
            {name: nn.ModuleList(SparseBlock(dim, heads, block_dropout) for _ in range(blocks)) for name in SELECTED}
        )
        self.norms = nn.ModuleDict({name: nn.LayerNorm(dim) for name in SELECTED})
        self.text = TextCNN(self.feature_dims[TEXT], dim, text_channels, dropout=text_dropout, absent_frames=1)
        self.heads = nn.ModuleDict({name: nn.Linear(dim, self.task.outputs) for name in MODALITIES})
        self.learnt = nn.ParameterDict(
            {"query": dim**-0.5 * torch.randn(dim), "weights": torch.ones(len(MODALITIES))}  # a part, to be clipped
        )

    def embed_text(self, batch: Batch) -> Tensor:
        """Vector of the text [B, d], 0 where absent."""
        seen = visible(batch, TEXT)
        return seen.spread(self.text(*shown_frames(seen, self.steps)))

    def read(self, batch: Batch, m: int, query: Tensor) -> Reading:
        """Read modality m (0 audio, 1 visual) as the query [B, d] of each row selects."""
        seen, name = visible(batch, m), MODALITIES[m]
        frames, lengths = shown_frames(seen, self.steps)
        # Padding is zero: the last frame sees the same behind it as at the end of a batch.
        z = self.convolutions[name](frames.transpose(1, 2)).transpose(1, 2).relu()
        z = z + half_sinusoids(z.shape[1], z.shape[2]).to(z)
        # A sequence is read once for all rows that have the text, and once for all that lack it.
        first, which = distinct(2 * seen.slots + batch.present[seen.rows, TEXT])
        read, slots = seen.rows[first], seen.slots[first]
        if not len(read):
            # A modality that nobody shows is run on a zero frame, so that its parameters have a gradient.
            read = slots = seen.slots.new_zeros(1)
        x, kept, blocks = z[slots], lengths[slots], self.blocks[name]
        assert isinstance(blocks, nn.ModuleList)
        for block in blocks:
            x, kept = block(x, kept, query[read], self.threshold)
        found = mean_frame(self.norms[name](x), kept)
        vector = found.new_zeros(len(batch), found.shape[1]).index_copy(0, seen.rows, found[which])
        share = torch.full_like(vector[:, 0].detach(), torch.nan)
        return Reading(vector, share.index_copy(0, seen.rows, (kept / lengths[slots]).to(share)[which]))

    def readings(self, batch: Batch) -> tuple[list[Reading], Tensor]:
        """Read audio and visual, and the vector of the text [B, d]."""
        text = self.embed_text(batch)
        query = text.where(batch.present[:, TEXT, None], self.learnt["query"].to(text))
        return [self.read(batch, m, query) for m in range(len(SELECTED))], text

    def modality_embeddings(self, batch: Batch) -> Tensor:
        """Compute the vector of each modality [B, 3, d], 0 where absent; audio's and visual's depend on the text."""
        readings, text = self.readings(batch)
        return torch.stack([*(each.vector for each in readings), text], dim=1)

    def forward(self, batch: Batch) -> Tensor:
        """Outputs [B, O]."""
        vectors = self.modality_embeddings(batch).unbind(dim=1)
        answers = torch.stack([f(h) for f, h in zip(self.heads.values(), vectors, strict=True)], dim=1)
        outputs: Tensor = (self.learnt["weights"] * batch.present)[..., None].mul(answers).sum(dim=1)
        return outputs

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """L_cls."""
        return {"cls": self.task.loss(self(batch), batch.target)}

    def row_values(self, batch: Batch) -> dict[str, Tensor]:
        """``kept_audio`` and ``kept_visual``: part of a row's frames left after all blocks; NaN where absent."""
        readings, _ = self.readings(batch)
        return {f"kept_{name}": each.share for name, each in zip(SELECTED, readings, strict=True)}
