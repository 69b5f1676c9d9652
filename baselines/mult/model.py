"""MulT: each modality attends to each other one, under random masks."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from torch import Tensor, nn

from baselines.mult.networks import Sizes, Streams, Target, Targets
from datamodules.batches.batch import Batch
from datamodules.batches.pooling import pool_steps
from datamodules.batches.visible import Visible, visible
from datamodules.conditions import MODALITIES
from datamodules.errors import InputError
from datamodules.needs import DataNeeds
from datamodules.ranges import BELOW_ONE, COUNT, WIDTH
from ifmmin.base import MissingModalityModule
from ifmmin.cards import ModelCard
from ifmmin.nn.heads import ResidualHead
from ifmmin.optimization import Recipe


class MulTNetworks(MissingModalityModule):
    """Base of the models with MulT's networks.

    Args:
        steps: S, to which every sequence is pooled; None: every frame is read.
        dim: d.
        heads: of each attention; divides d.
        layers: of each crossmodal transformer.
        memory_layers: of each memory transformer.
        attention_dropout: of attention weights.
        relu_dropout: inside feed-forward parts.
        residual_dropout: of what is added to a stream.
        embedding_dropout: of what a transformer reads.
        output_dropout: of the head.
        future_mask: whether a step may not attend to later ones.
        **kwargs: of :class:`~ifmmin.base.MissingModalityModule`.

    Raises:
        InputError: ``heads`` does not divide ``dim``, or an option is out of range.
    """

    def __init__(
        self,
        *,
        steps: Annotated[int, WIDTH] | None = 16,
        dim: Annotated[int, WIDTH] = 40,
        heads: Annotated[int, WIDTH] = 5,
        layers: Annotated[int, COUNT] = 2,
        memory_layers: Annotated[int, COUNT] = 2,
        attention_dropout: Annotated[float, BELOW_ONE] = 0.1,
        relu_dropout: Annotated[float, BELOW_ONE] = 0.1,
        residual_dropout: Annotated[float, BELOW_ONE] = 0.1,
        embedding_dropout: Annotated[float, BELOW_ONE] = 0.25,
        output_dropout: Annotated[float, BELOW_ONE] = 0.0,
        future_mask: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if dim % heads:
            raise InputError(f"heads {heads}: it must divide dim {dim}.")
        dropouts = (attention_dropout, relu_dropout, residual_dropout, embedding_dropout)
        sizes = Sizes(dim, heads, layers, memory_layers, *dropouts, future_mask)
        self.targets = self.make_targets(sizes)
        width = 2 * len(MODALITIES) * dim
        self.head = ResidualHead(width, output_dropout)
        self.output = nn.Linear(width, self.task.outputs)
        self.needs = DataNeeds(hidden_frames=type(self).needs.hidden_frames, steps=steps)
        self.steps = steps

    def make_targets(self, sizes: Sizes) -> Targets:
        """Networks of the three modalities."""
        dims = zip(MODALITIES, self.feature_dims, strict=True)
        return Targets({name: Target(name, frame_dim, sizes) for name, frame_dim in dims})

    def pooled(self, seen: Visible) -> Tensor:
        """Frames [K, S, D], pooled here unless the datamodule has done it; every frame without ``steps``."""
        if not len(seen.lengths):
            return seen.frames.new_zeros(1, self.steps or 1, seen.frames.shape[2])
        return seen.frames if self.steps is None else pool_steps(seen.frames, seen.lengths, self.steps)

    def streams(self, batch: Batch) -> Streams:
        """Project what is present in each row; each stored utterance once per modality."""
        x, lengths = [], []
        for m in range(len(MODALITIES)):
            seen = visible(batch, m)
            x.append(seen.spread(self.targets.of(m).project(self.pooled(seen))))
            lengths.append(seen.spread(seen.lengths))
        return Streams(x, lengths if self.steps is None else None, batch.present, batch.row)

    def answer(self, z: Tensor) -> Tensor:
        """Outputs [B, O] of z [B, 3, 2d]."""
        outputs: Tensor = self.output(self.head(z.flatten(1)))
        return outputs

    def modality_embeddings(self, batch: Batch) -> Tensor:
        """Compute z [B, 3, 2d], a learnt vector where a modality is absent."""
        z: Tensor = self.targets(self.streams(batch))
        return z

    def forward(self, batch: Batch) -> Tensor:
        """Outputs [B, O]."""
        return self.answer(self.modality_embeddings(batch))


class MulT(MulTNetworks):
    r"""MulT, the multimodal transformer, trained under random masks.

    Tsai, Bai, Liang, Kolter, Morency, Salakhutdinov: "Multimodal transformer for unaligned multimodal language
    sequences", ACL 2019.

    Frames are projected, x_m [S, d]. A crossmodal transformer for each target m and source n lets x_m attend to x_n
    (:class:`~ifmmin.nn.cross_modal.CrossModalTransformer`); a memory transformer of the target reads both results side
    by side, and its last step is the vector of the modality:

    .. math::
        h_{m ← n} = \mathrm{crossmodal}_{mn}(x_m, x_n), \quad z_m = \mathrm{memory}_m([h_{m ← n}; h_{m ← k}])_S,
            \quad z = [z_a; z_v; z_t], \quad \hat y = W (z + W_2 \mathrm{ReLU}(W_1 z))

    L = L_cls, the task's loss under the training mask: modality dropout on MulT. Adam, learning rate 1e-3, gradients
    clipped to 0.8.

    What it costs: a training epoch as long as that of plain fusion. Crossmodal transformers run only where both target
    and source are present, and once for all conditions of an utterance.

    Our choices: without a source, h_{m←n} is x_m itself; without the target, z_m is a learnt vector, so that no
    content and no length of what is absent enters; sequences are pooled to S = 16 steps (``steps: null`` reads every
    frame, and no padding); d = 40, 5 heads and 2 layers throughout, where the paper has 4 or 5; no future mask, since
    an utterance is there as a whole; one rate of dropout for the weights of every attention; batch 128 and 5+5 epochs
    of a linear schedule, some 350 steps, where the code has 24, and 40 epochs on a plateau; the clip is per
    sub-network.

    Differs from the published code (MIT): padding is not attended to, and the last true step is read; every true step
    has a position, where theirs has none for a frame whose first feature is 0; ``future_mask`` uses an utterance's own
    lengths, where theirs depends on the longest of the batch; absent modalities, which it does not know.

    Published figures: MPLMM's table has MulT under the six conditions on IEMOCAP, our features, fold 1 alone, chosen
    and reported on validation; others are on MOSI and MOSEI with complete or frame-wise lost data. None is of this
    protocol.

    Args:
        **kwargs: of :class:`MulTNetworks`.
    """

    card = ModelCard(
        "MulT",
        "each modality attends to each other one; trained under random masks",
        "Tsai et al., ACL",
        2019,
        "https://aclanthology.org/P19-1656/",
        "https://github.com/yaohungt/Multimodal-Transformer",
        "fusion",
    )
    recipe: ClassVar[Recipe] = Recipe(learning_rate=1e-3, constant_epochs=5, decay_epochs=5, clip_norm=0.8)
    needs = DataNeeds(hidden_frames=False)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """L_cls."""
        return {"cls": self.task.loss(self(batch), batch.target)}
