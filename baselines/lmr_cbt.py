"""LMR-CBT: text whose steps the audio and the visual vector weigh, between local and global layers."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn

from datamodules.batches.batch import Batch
from datamodules.batches.pooling import pool_steps
from datamodules.batches.visible import Visible, visible
from datamodules.conditions import MODALITIES
from datamodules.errors import InputError
from datamodules.needs import DataNeeds
from datamodules.ranges import BELOW_ONE, COUNT, WIDTH, Range
from ifmmin.base import MissingModalityModule
from ifmmin.cards import ModelCard
from ifmmin.nn.cross_modal import AdditiveAttention, CrossModalTransformer
from ifmmin.nn.heads import Classifier
from ifmmin.nn.precision import in_autocast, lstm_states
from ifmmin.optimization import Recipe

KERNEL = 3
"""Steps of a convolution, without padding: it leaves ``KERNEL - 1`` fewer."""


class Convolution(nn.Module):
    """What is local in audio and visual: a convolution over three steps without bias, and a LayerNorm.

    Args:
        input_dim: D.
        dim: d.
    """

    def __init__(self, input_dim: int, dim: int) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv1d(input_dim, dim, KERNEL, bias=False), nn.LayerNorm(dim)

    def forward(self, frames: Tensor) -> Tensor:
        """Map frames [K, S, D] to [K, S - 2, d]."""
        local: Tensor = self.norm(self.convolution(frames.transpose(1, 2)).transpose(1, 2))
        return local


class Recurrence(nn.Module):
    """What is local in text: two bidirectional LSTMs, one on the other, and a LayerNorm.

    Args:
        input_dim: D.
        dim: d, even.
        input_dropout: of the frames.
        dropout: between the LSTMs.
    """

    def __init__(self, input_dim: int, dim: int, input_dropout: float, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(input_dropout)
        self.rnn = nn.LSTM(input_dim, dim // 2, num_layers=2, bidirectional=True, dropout=dropout)
        self.norm = nn.LayerNorm(dim)

    def forward(self, frames: Tensor) -> Tensor:
        """Map frames [K, S, D] to [K, S, d]."""
        states = lstm_states(self.rnn, self.dropout(in_autocast(frames)).transpose(0, 1))
        local: Tensor = self.norm(states.transpose(0, 1))
        return local


class GatedBlock(AdditiveAttention):
    r"""The cross-modal block: a vector y weighs the steps of a sequence x.

    .. math:: x_t' = x_t + w_t x_t

    with w of :class:`~ifmmin.nn.cross_modal.AdditiveAttention`.

    Args:
        dim: d, of x and y.
    """

    def forward(self, x: Tensor, y: Tensor, present: Tensor) -> Tensor:
        """Weigh x [B, S, d] by y [B, d]; x itself in rows where y is not ``present``, bool [B]."""
        return x + (self.weights(x, y) * present[:, None])[..., None] * x


class LMRCBT(MissingModalityModule):
    r"""LMR-CBT: modality-fused representations by a transformer with cross-modal blocks.

    Fu et al.: "LMR-CBT: Learning modality-fused representations with CB-Transformer for multimodal emotion recognition
    from unaligned multimodal sequences", arXiv:2112.01697, 2021.

    Three steps. Local: a convolution over audio and visual steps, a bidirectional LSTM over text. Cross-modal: the
    last state of a transformer over audio, h_a, and over visual, h_v, each weigh the steps of text. Global: a
    transformer over the text so weighed, whose last state is h_t; a classifier reads all three:

    .. math::
        x ← x + w(x, h_v)\,x, \quad x ← x + w(x, h_a)\,x, \quad h_t = \mathrm{transformer}(x)_S,
            \quad ŷ = \mathrm{classifier}([h_a; h_v; h_t]), \quad L = L_{cls}

    with w the softmax over steps of :class:`GatedBlock`. L_cls: the task's loss under the training mask. d = 40, 8
    heads, 5 layers, dropout 0.2 in attention, 0.1 in feed-forward parts, 0.2 of what is added, 0.3 of what a
    transformer reads, 0.5 between the LSTMs, 0.1 in the classifier; Adam, learning rate 1e-3, gradients clipped to 1.

    What to expect: w adds up to 1 over S steps, so that a block changes a step by 1/S of it on average. The blocks are
    the model's idea, and a small part of its answer.

    Our choices: h of an absent modality is 0; an absent h_a or h_v does not weigh the text; sequences are pooled to S =
    16 steps; LayerNorm after the convolutions, not batch normalisation; one hidden layer of 3 d before the output; no
    future mask; batch 128 and 5+5 epochs of a linear schedule, where the paper has 16 and 120.

    Differs from the published code (skeletonNN/LMR-CBT, without a licence): a block weighs the sequence, where theirs
    replaces it by a softmax over features of tanh(W x + b + U y) and has a scoring layer that nothing uses (its bias,
    which no softmax sees, is left out); the LSTM runs over steps, where theirs, told that the batch is first and given
    steps first, runs over the batch; the two last linear layers, with nothing between them, are one.

    Published figures: on complete, aligned or unaligned, data of MOSI, MOSEI and IEMOCAP (binary, for each emotion);
    none with missing modalities, so nothing to compare with.

    Args:
        steps: S.
        dim: d.
        heads: of each attention; divides d.
        layers: of each of the three transformers.
        blocks: whether h_a and h_v weigh the text; false leaves three unimodal networks and the classifier.
        attention_dropout: of attention weights.
        relu_dropout: inside feed-forward parts.
        residual_dropout: of what is added to a stream.
        embedding_dropout: of text frames, and of what a transformer reads.
        recurrent_dropout: between the two LSTMs.
        output_dropout: of the classifier's hidden layer.
        **kwargs: of :class:`~ifmmin.base.MissingModalityModule`.

    Raises:
        InputError: ``heads`` does not divide ``dim``, ``dim`` is odd, or an option is out of range.
    """

    card = ModelCard(
        "LMR-CBT",
        "audio and visual weigh the steps of text, between local and global layers",
        "Fu et al., arXiv",
        2021,
        "https://arxiv.org/abs/2112.01697",
        "https://github.com/skeletonNN/LMR-CBT",
        "fusion",
    )
    recipe: ClassVar[Recipe] = Recipe(learning_rate=1e-3, constant_epochs=5, decay_epochs=5)

    def __init__(
        self,
        *,
        steps: Annotated[int, Range(KERNEL, WIDTH.high)] = 16,
        dim: Annotated[int, WIDTH] = 40,
        heads: Annotated[int, WIDTH] = 8,
        layers: Annotated[int, COUNT] = 5,
        blocks: bool = True,
        attention_dropout: Annotated[float, BELOW_ONE] = 0.2,
        relu_dropout: Annotated[float, BELOW_ONE] = 0.1,
        residual_dropout: Annotated[float, BELOW_ONE] = 0.2,
        embedding_dropout: Annotated[float, BELOW_ONE] = 0.3,
        recurrent_dropout: Annotated[float, BELOW_ONE] = 0.5,
        output_dropout: Annotated[float, BELOW_ONE] = 0.1,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if dim % heads:
            raise InputError(f"heads {heads}: it must divide dim {dim}.")
        if dim % 2:
            raise InputError(f"dim {dim}: it must be even; each direction of the LSTM has half of it.")
        audio, visual, text = self.feature_dims
        self.local = nn.ModuleDict(
            {
                "audio": Convolution(audio, dim),
                "visual": Convolution(visual, dim),
                "text": Recurrence(text, dim, embedding_dropout, recurrent_dropout),
            }
        )
        rates = (attention_dropout, relu_dropout, residual_dropout, embedding_dropout)
        self.transformers = nn.ModuleDict(
            {name: CrossModalTransformer(dim, heads, layers, *rates) for name in MODALITIES}
        )
        self.blocks = nn.ModuleDict({name: GatedBlock(dim) for name in ("visual", "audio") if blocks})
        self.classifier = Classifier(len(MODALITIES) * dim, self.task.outputs, [len(MODALITIES) * dim], output_dropout)
        self.needs = DataNeeds(hidden_frames=False, steps=steps)
        self.steps = steps

    def pooled(self, seen: Visible) -> Tensor:
        """Frames [K, S, D], pooled here unless the datamodule has done it; zeros that no row reads if K is 0."""
        if not len(seen.lengths):  # in training every parameter has a gradient
            return seen.frames.new_zeros(1, self.steps, seen.frames.shape[2])
        return pool_steps(seen.frames, seen.lengths, self.steps)

    def vector(self, batch: Batch, modality: int) -> Tensor:
        """h_a (0) or h_v (1) [B, d], zeros where it is absent; of each stored utterance once."""
        seen, name = visible(batch, modality), MODALITIES[modality]
        return seen.spread(self.transformers[name](self.local[name](self.pooled(seen)), last=True))

    def modality_embeddings(self, batch: Batch) -> Tensor:
        """Compute h [B, 3, d], zeros where a modality is absent; h_t depends on which others are present."""
        vectors = {"audio": self.vector(batch, 0), "visual": self.vector(batch, 1)}
        seen = visible(batch, MODALITIES.index("text"))
        local, rows, slots = self.local["text"](self.pooled(seen)), seen.rows, seen.slots
        if not len(rows):
            rows = slots = rows.new_zeros(1)
        x = local[slots]
        for name, block in self.blocks.items():
            x = block(x, vectors[name][rows], batch.present[rows, MODALITIES.index(name)])
        h_t = self.transformers["text"](x, last=True)[: len(seen.rows)]
        text = h_t.new_zeros(len(batch), h_t.shape[1]).index_copy(0, seen.rows, h_t)
        return torch.stack([vectors["audio"], vectors["visual"], text], dim=1)

    def forward(self, batch: Batch) -> Tensor:
        """Outputs [B, O]."""
        outputs: Tensor = self.classifier(self.modality_embeddings(batch).flatten(1))
        return outputs

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """L_cls."""
        return {"cls": self.task.loss(self(batch), batch.target)}
