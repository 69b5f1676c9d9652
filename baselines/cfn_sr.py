"""CFN-SR's residual cross-modal block: the steps of a modality are weighed by another one, and added to themselves."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from datamodules.batches.batch import Batch
from datamodules.batches.visible import visible
from datamodules.conditions import MODALITIES
from datamodules.errors import InputError
from datamodules.needs import DataNeeds
from datamodules.ranges import BELOW_ONE, COUNT, WIDTH
from ifmmin.base import MissingModalityModule
from ifmmin.cards import ModelCard
from ifmmin.nn.cross_modal import AdditiveAttention, CrossModalTransformer
from ifmmin.nn.encoders import shown_frames
from ifmmin.nn.heads import Classifier
from ifmmin.nn.padding import frame_mask, mean_frame
from ifmmin.nn.rows import distinct
from ifmmin.optimization import Recipe


class Reading(NamedTuple):
    """A modality as it is read, each stored sequence once.

    Attributes:
        x: [K, T, d], after self-attention; meaningless behind a sequence's length.
        lengths: int64 [K].
        original: o [B, d] of each row, before self-attention; 0 where absent.
        mean: mean of the true steps of x, [B, d]; 0 where absent.
        slots: int64 [B], which of the K a row reads; 0 where absent.
    """

    x: Tensor
    lengths: Tensor
    original: Tensor
    mean: Tensor
    slots: Tensor


class CFNSR(MissingModalityModule):
    r"""CFN-SR's residual cross-modal block, on sequences of features.

    Fu, Liu, Wang, Qi, Fu, Zhou, Li: "A cross-modal fusion network based on self-attention and residual structure for
    multimodal emotion recognition", arXiv:2111.02172, 2021. Theirs is trained end to end, from the pixels of a video
    and the MFCCs of its sound; this is its fusion alone.

    Self-attention reads each modality by itself. In a cross-modal block one modality, by its last state, weighs the
    steps of another one, which are added to themselves as weighed: nothing of either is lost. What is so fused is
    spliced with what was there before. With z_m the steps of modality m, T_m their number and w of
    :class:`~ifmmin.nn.cross_modal.AdditiveAttention`,

    .. math::
        x_m = \mathrm{transformer}_m(z_m), \quad
        x_{mt}' = x_{mt} + \operatorname*{mean}_{n ≠ m} T_m w_{mn,t}\, x_{mt}, \quad
            w_{mn} = \mathrm{softmax}_t \bigl( u · \tanh(W x_{mt} + b + U x_{n T_n}) \bigr)

    .. math::
        f_m = \mathrm{mean}_t\, x_{mt}', \quad o_m = \mathrm{mean}_t\, z_{mt}, \quad
            ŷ = \mathrm{classifier}([f_a; f_v; f_t; o_a; o_v; o_t]), \quad L = L_{cls}

    L_cls: the task's loss under the training mask. The mean over n is that of the modalities that a row shows; alone, a
    modality is x_m' = x_m. f_m and o_m of an absent one are 0. Each utterance is read once for all its conditions.

    Stated by the abstract: a 1D CNN for audio; blocks with self-attention and a residual structure, which both
    modalities enter; the fused representation spliced with the original one. Of the published code
    (skeletonNN/CFN-SR, MIT): the block, x + w x, and the last state of a transformer of 8 heads and 5 layers as what
    weighs; width 64; Adam, learning rate 1e-3.

    Our choices: text as a third modality, where theirs are audio and video (``FixedCondition("av")`` of
    ``datamodules.batches.masks`` shows those two alone); each modality weighs each other one, where in the code audio
    weighs the video; z_m a convolution over 3 frames and a ReLU, for all; w times T_m (``scaled``), since a w
    that adds up to 1 changes a step by 1/T_m of it on average; no future mask; one hidden layer; frozen features,
    pooled to 16 steps; batch 128 and a linear schedule.

    Differs from the published code, which cannot run as it is: its transformer is commented out, and its name is used.
    It adds the weights of all utterances of a batch together, so that an answer depends on the others: here a row
    weighs its own steps. Its best epoch is that of the fold it reports.

    Published figures: 75.76 % accuracy on RAVDESS, of complete audio and video, end to end; nothing to compare with.

    Args:
        steps: to which every sequence is pooled; None: every frame is read, in memory that grows with the square of
            an utterance's frames.
        dim: d.
        heads: of each transformer; divides d.
        layers: of each transformer.
        scaled: whether w is multiplied by the number of steps, so that it is 1 on average.
        hidden_dim: of the classifier.
        attention_dropout: of attention weights of transformers.
        relu_dropout: inside their feed-forward parts.
        residual_dropout: of what they add to a stream.
        embedding_dropout: of what they read.
        dropout: of the classifier.
        **kwargs: of :class:`~ifmmin.base.MissingModalityModule`.

    Raises:
        InputError: ``heads`` does not divide ``dim``, or an option is out of range.
    """

    card = ModelCard(
        "CFN-SR's residual cross-modal block",
        "CFN-SR's residual cross-modal block, on features: each modality weighs the steps of the others",
        "Fu et al., arXiv",
        2021,
        "https://arxiv.org/abs/2111.02172",
        "https://github.com/skeletonNN/CFN-SR",
        "fusion",
        "the fusion of a model of pixels, after its abstract and code that does not run",
    )
    recipe: ClassVar[Recipe] = Recipe(learning_rate=1e-3, constant_epochs=5, decay_epochs=5)
    needs = DataNeeds(hidden_frames=False)

    def __init__(
        self,
        *,
        steps: Annotated[int, WIDTH] | None = 16,
        dim: Annotated[int, WIDTH] = 64,
        heads: Annotated[int, WIDTH] = 8,
        layers: Annotated[int, COUNT] = 5,
        scaled: bool = True,
        hidden_dim: Annotated[int, WIDTH] = 128,
        attention_dropout: Annotated[float, BELOW_ONE] = 0.1,
        relu_dropout: Annotated[float, BELOW_ONE] = 0.1,
        residual_dropout: Annotated[float, BELOW_ONE] = 0.1,
        embedding_dropout: Annotated[float, BELOW_ONE] = 0.3,
        dropout: Annotated[float, BELOW_ONE] = 0.3,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if dim % heads:
            raise InputError(f"heads {heads}: it must divide dim {dim}.")
        self.needs = DataNeeds(hidden_frames=False, steps=steps)
        self.steps, self.scaled = steps, scaled
        widths = zip(MODALITIES, self.feature_dims, strict=True)
        self.convolutions = nn.ModuleDict({name: nn.Conv1d(width, dim, 3, padding=1) for name, width in widths})
        rates = (attention_dropout, relu_dropout, residual_dropout, embedding_dropout)
        self.transformers = nn.ModuleDict(
            {name: CrossModalTransformer(dim, heads, layers, *rates) for name in MODALITIES}
        )
        pairs = [(source, target) for target in MODALITIES for source in MODALITIES if source != target]
        self.blocks = nn.ModuleDict({f"{source}_{target}": AdditiveAttention(dim) for source, target in pairs})
        self.classifier = Classifier(2 * len(MODALITIES) * dim, self.task.outputs, [hidden_dim], dropout)

    def read(self, batch: Batch, m: int) -> Reading:
        """Read modality m."""
        seen, name = visible(batch, m), MODALITIES[m]
        frames, lengths = shown_frames(seen, self.steps)
        # Padding is zero: the last frame sees the same behind it as at the end of a batch.
        z = self.convolutions[name](frames.transpose(1, 2)).transpose(1, 2).relu()
        x = self.transformers[name](z, lengths=lengths)
        original, mean = (seen.spread(mean_frame(each, lengths)) for each in (z, x))
        return Reading(x, lengths, original, mean, seen.spread(torch.arange(len(lengths), device=lengths.device)))

    def weighed(self, name: str, target: Reading, source: Reading, rows: Tensor) -> Tensor:
        """Weigh the steps of the target by the source's last state: their sum [P, d] in ``rows`` [P] that have both.

        It is what the block ``name`` adds to the mean of x.
        """
        x, lengths = target.x[target.slots[rows]], target.lengths[target.slots[rows]]
        slots = source.slots[rows]
        true = frame_mask(lengths, x.shape[1])
        block = self.blocks[name]
        assert isinstance(block, AdditiveAttention)
        w = block.weights(x, source.x[slots, source.lengths[slots] - 1], true)
        added: Tensor = (w[..., None] * x.where(true[..., None], 0.0)).sum(dim=1)
        return added if self.scaled else added / lengths[:, None]

    def fused(self, batch: Batch, readings: list[Reading]) -> Tensor:
        """Compute f [B, 3, d], zeros where a modality is absent; each pair of an utterance once."""
        found = []
        for m, target in enumerate(readings):
            added = torch.zeros_like(target.mean)
            for n, source in enumerate(readings):
                if n == m:
                    continue
                rows = (batch.present[:, m] & batch.present[:, n]).nonzero(as_tuple=True)[0]
                first, which = distinct(batch.row[rows])
                # A pair that no row has is read from any row and dropped, so that its parameters have a gradient.
                read = rows[first] if len(rows) else batch.row.new_zeros(1)
                each = self.weighed(f"{MODALITIES[n]}_{MODALITIES[m]}", target, source, read)
                added = added.index_add(0, rows, each[which].to(added.dtype))
            sources = (batch.present.sum(dim=1) - 1).clamp(min=1)
            found.append(target.mean + added / sources[:, None])
        return torch.stack(found, dim=1)

    def forward(self, batch: Batch) -> Tensor:
        """Outputs [B, O]."""
        readings = [self.read(batch, m) for m in range(len(MODALITIES))]
        originals = torch.stack([each.original for each in readings], dim=1)
        outputs: Tensor = self.classifier(torch.cat([self.fused(batch, readings), originals], dim=1).flatten(1))
        return outputs

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """L_cls."""
        return {"cls": self.task.loss(self(batch), batch.target)}

    def modality_embeddings(self, batch: Batch) -> Tensor:
        """Compute f [B, 3, d], zeros where a modality is absent; it depends on what else is present."""
        return self.fused(batch, [self.read(batch, m) for m in range(len(MODALITIES))])
