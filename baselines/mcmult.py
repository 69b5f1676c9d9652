"""MCMulT: each two modalities build hierarchies of features, in which one attends to all lower levels of the other."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from baselines.mult.model import MulTNetworks
from baselines.mult.networks import ORDER, Sizes, Streams, Target, Targets
from datamodules.batches.batch import Batch
from datamodules.conditions import MODALITIES
from datamodules.needs import DataNeeds
from datamodules.ranges import COUNT
from ifmmin.cards import ModelCard
from ifmmin.nn.cross_modal import CrossModalLayer, CrossModalTransformer
from ifmmin.nn.padding import mean_frame
from ifmmin.nn.rows import distinct
from ifmmin.optimization import Recipe

Levels = Literal["all", "last", "first"]
"""Levels of the other stack that a layer attends to: all lower ones, the one right below, or the lowest."""
Readout = Literal["mean", "last"]
"""The mean of the true steps of a memory transformer, or its last true step."""


class Stack(CrossModalTransformer):
    """The levels of a modality that grow beside those of another one (:func:`cooperate`).

    To MulT's crossmodal transformer it adds, for each layer, a norm of what it attends to; for each level, a vector by
    which the other stack tells it from the others; and a vector for rows without the other modality.

    Args:
        dim: d.
        heads: divides d.
        layers: L.
        *args: of :class:`~ifmmin.nn.cross_modal.CrossModalTransformer`, in its order.
        **kwargs: of :class:`~ifmmin.nn.cross_modal.CrossModalTransformer`.
    """

    def __init__(self, dim: int, heads: int, layers: int, *args: Any, **kwargs: Any) -> None:
        super().__init__(dim, heads, layers, *args, **kwargs)
        self.key_norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(layers))
        self.level = nn.Parameter(0.02 * torch.randn(layers, dim))
        self.alone = nn.Parameter(0.02 * torch.randn(dim))

    def seen(self, z: Sequence[Tensor], levels: Levels) -> Tensor:
        """Levels z⁰ … z^(l-1) [B, C, d] as the other stack's layer l reads them: [B, K C, d] of K of them."""
        first, end = (len(z) - 1 if levels == "last" else 0), (1 if levels == "first" else len(z))
        return torch.cat([z[place] + self.level[place] for place in range(first, end)], dim=1)

    def climb(self, z: Tensor, context: Tensor, mask: Tensor | None, place: int) -> Tensor:
        """The level above z [B, T, d], by layer ``place`` from 0, which attends to a context [B, K C, d].

        ``mask``, bool [B, 1, T or 1, C], is the same for all K levels in the context; None: all is attended to.
        """
        layer = self.layers[place]
        assert isinstance(layer, CrossModalLayer)
        if mask is not None:
            mask = mask.repeat(1, 1, 1, context.shape[1] // mask.shape[3])
        return layer.attend(z, layer.norm(z), self.key_norms[place](context), mask)


def cooperate(
    stacks: tuple[Stack, Stack],
    x: tuple[Tensor, Tensor],
    lengths: tuple[Tensor | None, Tensor | None] = (None, None),
    levels: Levels = "all",
) -> tuple[list[Tensor], list[Tensor]]:
    r"""Build the levels of two modalities, each from the lower ones of the other.

    .. math:: Z_m^l = \mathrm{layer}_m^l(Z_m^{l-1} ← [Z_n^0 + e_n^0; …; Z_n^{l-1} + e_n^{l-1}])

    Args:
        stacks: of m and of n, with the same number L of layers.
        x: their levels 0, float [B, T_m, d] and [B, T_n, d], embedded (:meth:`Stack.embed`).
        lengths: int64 [B] of each, None: all T.
        levels: which a layer attends to.

    Returns:
        levels 0 to L of each, [B, T, d], meaningless behind a row's length.

    Example:
        >>> stacks = Stack(dim=8, heads=2, layers=2), Stack(dim=8, heads=2, layers=2)
        >>> first, second = cooperate(stacks, (torch.zeros(5, 4, 8), torch.zeros(5, 6, 8)))
        >>> len(first), second[-1].shape
        (3, torch.Size([5, 6, 8]))
    """
    z = ([x[0]], [x[1]])
    masks = [stacks[m].mask(x[m], lengths[m], x[1 - m], lengths[1 - m]) for m in range(2)]
    for place in range(len(stacks[0].layers)):
        # Both of a level before either is kept: neither stack sees the level that the other is about to reach.
        contexts = [stacks[1 - m].seen(z[1 - m], levels) for m in range(2)]
        above = [stacks[m].climb(z[m][-1], contexts[m], masks[m], place) for m in range(2)]
        for m in range(2):
            z[m].append(above[m])
    return z


class CooperativeTargets(Targets):
    """MulT's targets, whose crossmodal transformers are :class:`Stack`: two of each pair grow together.

    A pair runs once for an utterance, whatever the third modality does, in rows that have both.

    Attributes:
        levels: which a layer attends to.
        readout: what the memory transformer's vector is.
    """

    levels: Levels = "all"
    readout: Readout = "mean"

    def stack(self, m: int, n: int) -> Stack:
        """That of modality m beside n."""
        stack = self.of(m).sources[MODALITIES[n]]
        assert isinstance(stack, Stack)
        return stack

    def attended(self, streams: Streams) -> list[Tensor]:
        """Last levels of both stacks of each modality, side by side: [B, T_m, 2d] of each m."""
        found: dict[tuple[int, int], Tensor] = {}
        for m, n in combinations(range(len(MODALITIES)), 2):
            rows = (streams.present[:, m] & streams.present[:, n]).nonzero(as_tuple=True)[0]
            first, which = distinct(streams.source[rows])
            for (target, source), top in zip(((m, n), (n, m)), self._tops(streams, m, n, rows[first]), strict=True):
                # Where the other modality is absent, one's own frames are all that there is to read.
                alone = streams.x[target] + self.stack(target, source).alone
                found[target, source] = alone.index_copy(0, rows, top[which].to(alone.dtype))
        order = [MODALITIES.index(name) for name in ORDER]
        return [torch.cat([found[m, n] for n in order if n != m], dim=2) for m in range(len(MODALITIES))]

    def _tops(self, streams: Streams, m: int, n: int, read: Tensor) -> tuple[Tensor, Tensor]:
        """Normed last levels [R, T, d] of the pair m, n in the rows ``read`` [R]."""
        stacks, idle = (self.stack(m, n), self.stack(n, m)), self.training and not len(read)
        x = streams.x[m][read], streams.x[n][read]
        lengths = streams.lengths_of(m, read), streams.lengths_of(n, read)
        if idle:
            # In training a pair that no row has runs on zeros, so that its parameters have a gradient.
            x = torch.zeros_like(streams.x[m][:1]), torch.zeros_like(streams.x[n][:1])
            lengths = None, None
        z = cooperate(stacks, (stacks[0].embed(x[0]), stacks[1].embed(x[1])), lengths, self.levels)
        tops = stacks[0].norm(z[0][-1]), stacks[1].norm(z[1][-1])
        return (tops[0][:0], tops[1][:0]) if idle else tops

    def summary(self, memory: CrossModalTransformer, h: Tensor, lengths: Tensor | None) -> Tensor:
        """Vector [R, 2d] of h [R, T, 2d]: the mean over true steps of what the memory transformer makes of it."""
        if self.readout == "last":
            return super().summary(memory, h, lengths)
        read: Tensor = memory(h, lengths=lengths)
        return read.mean(dim=1) if lengths is None else mean_frame(read, lengths)


class MCMulT(MulTNetworks):
    r"""MCMulT, the multi-scale cooperative multimodal transformer, trained under random masks.

    Ma, Yao, Liang, Liu: "Multi-scale cooperative multimodal transformers for multimodal sentiment analysis in videos",
    arXiv 2206.07981, 2022.

    In :class:`~baselines.mult.MulT` every layer of a target attends to the same projected frames of its source. Here
    the two modalities of a pair build their levels together, and a layer attends to all levels that the other has
    reached. With x_m the projected frames and Z_m^0 = √d x_m + p,

    .. math::
        Z_m^l = \mathrm{layer}_m^l(Z_m^{l-1} ← [Z_n^0 + e_n^0; …; Z_n^{l-1} + e_n^{l-1}]), \quad
        z_m = \mathrm{mean}\,\mathrm{memory}_m([Z_{m ← n}^L; Z_{m ← k}^L]), \quad
        \hat y = W (z + W_2 \mathrm{ReLU}(W_1 z))

    with MulT's layers, whose keys have a norm of their own and are levels one after the other in time, z = [z_a; z_v;
    z_t], and e_n^l a learnt vector that tells levels apart. L = L_cls, the task's loss under the training mask.

    Stated by the paper's abstract: each modality integrates interactions with several levels of its source, by which
    the two of a pair build their hierarchies progressively and cooperatively; made for unaligned sequences. Of MulT's
    code: layers, memory transformers, head, Adam at 1e-3, the clip at 0.8.

    Our choices: everything else. L = 4 layers for each direction of a pair and 3 of each memory transformer, d = 40,
    5 heads; levels are joined in time; the mean of the true steps is read, where MulT reads the last. A pair runs in
    rows that have both its modalities. Where m is there and n is not, its half is x_m plus a learnt vector: a vector
    alone would leave an answer from one modality with nothing to read. Where m is absent z_m is a learnt vector. So no
    content and no length of what is absent enters. Sequences are pooled to S = 16 steps (``steps: null`` reads every
    frame, and no padding); frozen features; batch 128 and 5+5 epochs of a linear schedule.

    What it costs: at IEMOCAP's sizes a training epoch takes some two times plain fusion's
    (``python -m benchmarks.speed.epochs``): the context of layer l is l sequences long.

    Published figures: of complete modalities, on sentiment; nothing to compare with. A repository of this name
    (SifouSdn) is another model, whose scales are widths of convolutions.

    Args:
        levels: of the other modality that a layer attends to: ``all`` it has reached, ``last`` the highest of them,
            ``first`` its embedded frames only, as MulT does.
        readout: ``mean`` of the true steps of a memory transformer, or its ``last``, as in MulT.
        layers: L, of either stack of a pair.
        memory_layers: of each memory transformer.
        **kwargs: of :class:`~baselines.mult.model.MulTNetworks`.

    Raises:
        InputError: ``heads`` does not divide ``dim``, or an option is out of range.
    """

    card = ModelCard(
        "MCMulT",
        "each two modalities build levels of features together, attending to all that the other has reached",
        "Ma et al., arXiv",
        2022,
        "https://arxiv.org/abs/2206.07981",
        None,
        "fusion",
        "after the abstract of the paper",
    )
    recipe: ClassVar[Recipe] = Recipe(learning_rate=1e-3, constant_epochs=5, decay_epochs=5, clip_norm=0.8)
    needs = DataNeeds(hidden_frames=False)
    targets: CooperativeTargets

    def __init__(
        self,
        *,
        levels: Levels = "all",
        readout: Readout = "mean",
        layers: Annotated[int, COUNT] = 4,
        memory_layers: Annotated[int, COUNT] = 3,
        **kwargs: Any,
    ) -> None:
        super().__init__(layers=layers, memory_layers=memory_layers, **kwargs)
        self.targets.levels, self.targets.readout = levels, readout

    def make_targets(self, sizes: Sizes) -> CooperativeTargets:
        """Networks of the three modalities."""
        dims = zip(MODALITIES, self.feature_dims, strict=True)
        return CooperativeTargets({name: Target(name, frame_dim, sizes, Stack) for name, frame_dim in dims})

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """L_cls."""
        return {"cls": self.task.loss(self(batch), batch.target)}
