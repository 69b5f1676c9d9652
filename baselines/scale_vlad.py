"""ScaleVLAD: residuals of windows of several lengths from topics that all modalities share."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datamodules.batches.batch import Batch
from datamodules.batches.visible import visible
from datamodules.conditions import MODALITIES
from datamodules.errors import InputError
from datamodules.needs import DataNeeds
from datamodules.ranges import BELOW_ONE, COUNT, NOT_EMPTY, NOT_NEGATIVE, WIDTH
from ifmmin.base import MissingModalityModule
from ifmmin.cards import ModelCard
from ifmmin.nn.attention import packed_layer
from ifmmin.nn.cross_modal import half_sinusoids
from ifmmin.nn.padding import frame_mask
from ifmmin.nn.precision import full_precision, in_autocast

EPSILON = 1e-6
"""Smallest norm that a residual is divided by: the gradient of a zero residual is bounded by its inverse."""


def window_means(frames: Tensor, lengths: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Mean of each window of ``size`` true frames, side by side; the last window of a sequence may be shorter.

    Args:
        frames: [N, T, d]; values behind a sequence's last frame are not read.
        lengths: int64 [N] in 0..T.
        size: s.

    Returns:
        [N, ⌈T/s⌉, d], 0 behind a sequence's last window, and the number of windows ⌈L/s⌉, int64 [N].

    >>> frames, lengths = torch.tensor([[[1.0], [3.0], [8.0], [9.0]]]), torch.tensor([3])
    >>> [found.flatten().tolist() for found in window_means(frames, lengths, 2)]
    [[2.0, 8.0], [2]]
    """
    true = frame_mask(lengths, frames.shape[1])[..., None]
    shown = F.pad(frames.where(true, 0.0), (0, 0, 0, -frames.shape[1] % size))
    sums = shown.unflatten(1, (-1, size)).sum(dim=2)
    first = size * torch.arange(sums.shape[1], device=lengths.device)
    inside = (lengths[:, None] - first).clamp(1, size)
    return sums / inside[..., None], -(-lengths // size)


class SharedTopics(nn.Module):
    r"""Residuals of windows of frames from K topics, by soft assignment (VLAD).

    .. math:: a_k(f) = \mathrm{softmax}_k(w_k^T f + b_k), \quad V_k = \sum_s \sum_i a_k(f_{s,i}) (f_{s,i} - c_k)

    f_{s,i} is the mean of the i-th window of s true frames. Arandjelović et al., "NetVLAD: CNN architecture for weakly
    supervised place recognition", CVPR 2016. The same topics read every modality.

    Args:
        dim: d.
        topics: K.
        scales: the lengths s of windows.
        averaged: divide the sum of each scale by the number of its windows.

    Example:
        >>> topics = SharedTopics(4, topics=3, scales=[1, 2])
        >>> topics(torch.zeros(1, 5, 4), torch.tensor([5])).shape
        torch.Size([1, 3, 4])
    """

    def __init__(self, dim: int, topics: int, scales: list[int], averaged: bool = False) -> None:
        super().__init__()
        self.assignment = nn.Linear(dim, topics)
        self.centres = nn.Parameter(dim**-0.5 * torch.randn(topics, dim))
        self.scales, self.averaged = scales, averaged

    def assign(self, windows: Tensor, counts: Tensor) -> Tensor:
        """Compute a_k [N, W, K] of windows [N, W, d], 0 behind the first int64 ``counts`` [N]."""
        assigned: Tensor = self.assignment(windows).softmax(dim=2)
        return assigned * frame_mask(counts, windows.shape[1])[..., None]

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """Compute V [N, K, d], in full precision, of frames [N, T, d] with lengths int64 [N]."""
        with full_precision(frames):
            frames = frames.to(self.centres.dtype)
            total = frames.new_zeros(len(frames), *self.centres.shape)
            for size in self.scales:
                windows, counts = window_means(frames, lengths, size)
                assigned = self.assign(windows, counts)
                if self.averaged:
                    assigned = assigned / counts.clamp(min=1)[:, None, None]
                mass = assigned.sum(dim=1)[..., None]
                total = total + torch.bmm(assigned.transpose(1, 2), windows) - mass * self.centres
            return total


def normalised(residuals: Tensor) -> Tensor:
    """Scale V [..., K, d] so that each topic has norm 1, then all topics together; 0 where a residual is 0.

    >>> round(normalised(torch.tensor([[3.0, 0.0], [0.0, 0.0], [0.0, 5.0]])).norm().item(), 6)
    1.0
    """
    each = F.normalize(residuals, dim=-1, eps=EPSILON)
    return F.normalize(each.flatten(-2), dim=-1, eps=EPSILON).view_as(each)


class ShiftedClusters(nn.Module):
    r"""Clusters that follow the rows they are nearest to, and a loss that draws each row to its cluster.

    .. math:: L = \mathrm{CE}(\mathrm{softmax}_g(-‖r - μ_g‖^2), \arg\min_g ‖r - μ_g‖^2)

    The loss reads the clusters as earlier steps left them: they lag behind. A cluster moves to ρ μ_g + (1 - ρ) times
    the mean of its members. One that had no member among the last ``patience`` rows begins anew at the row that is
    farthest from its own cluster, several at the next ones.

    Args:
        count: G.
        dim: d.
        momentum: ρ.
        patience: rows without a member after which a cluster is empty.
    """

    centres: Tensor
    idle: Tensor

    def __init__(self, count: int, dim: int, momentum: float, patience: int) -> None:
        super().__init__()
        self.momentum, self.patience = momentum, patience
        # In checkpoints, so that a resumed run goes on as if it had not stopped.
        self.register_buffer("centres", torch.randn(count, dim))
        self.register_buffer("idle", torch.zeros(count, dtype=torch.int64))

    def distances(self, r: Tensor) -> Tensor:
        """Squared distances [B, G] of r [B, d]."""
        return (r[:, None] - self.centres).square().sum(dim=2)

    def nearest(self, r: Tensor) -> Tensor:
        """Pseudo labels int64 [B] of r [B, d]."""
        return self.distances(r).argmin(dim=1)

    def forward(self, r: Tensor) -> Tensor:
        """L, a mean over r [B, d]."""
        with full_precision(r):
            distances = self.distances(r.to(self.centres.dtype))
            return F.cross_entropy(-distances, distances.argmin(dim=1))

    @torch.no_grad()
    def summary(self, r: Tensor) -> Tensor:
        """What :meth:`move` reads of r [B, d], of the same shape [G, 2d + 2] for any B.

        Per cluster the sum and number of its members; then the G rows that are farthest from their clusters, and their
        distances, -inf where there is no such row.
        """
        with full_precision(r):
            count = len(self.centres)
            r = r.to(self.centres.dtype)
            distance, nearest = self.distances(r).min(dim=1)
            # A product: index_add on a GPU would sum in another order each time.
            member = F.one_hot(nearest, count).to(r).T
            far, which = distance.topk(min(count, len(r)))
            missing = count - len(far)
            rows, far = F.pad(r[which], (0, 0, 0, missing)), F.pad(far, (0, missing), value=-torch.inf)
            return torch.cat([member @ r, member.sum(dim=1, keepdim=True), rows, far[:, None]], dim=1)

    @torch.no_grad()
    def move(self, summaries: Tensor) -> None:
        """Move the clusters by the rows of all devices: :meth:`summary` of each, [R, G, 2d + 2]."""
        members, number, rows, far = summaries.split([self.centres.shape[1], 1] * 2, dim=2)
        members, number = members.sum(dim=0), number.sum(dim=0)
        rows, far = rows.flatten(0, 1), far.flatten()
        used = number > 0
        moved = self.centres.lerp(members / number.clamp(min=1), 1 - self.momentum)
        idle = torch.where(used[:, 0], 0, self.idle + number.sum().long())
        empty = idle >= self.patience
        farthest = far.argsort(descending=True, stable=True)[: len(empty)]
        seed = farthest[(empty.cumsum(0) - 1).clamp(min=0)]
        again = empty & far[seed].isfinite()
        self.centres.copy_(torch.where(again[:, None], rows[seed], moved.where(used, self.centres)))
        self.idle.copy_(idle.where(~again, 0))


class FrameTransformer(nn.Module):
    """A convolution over 3 frames, positions, and a transformer layer, on true frames only.

    Args:
        input_dim: D.
        dim: d.
        heads: divides d.
        feedforward_dim: hidden width of the layer's feed-forward part.
        dropout: of attention weights, hidden values and both outputs.
    """

    def __init__(self, input_dim: int, dim: int, heads: int, feedforward_dim: int, dropout: float) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(input_dim, dim, 3, padding=1)
        self.layer = nn.TransformerEncoderLayer(dim, heads, feedforward_dim, dropout, batch_first=True)

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """Read frames [N, T, D], zero behind lengths int64 [N], at least 1: [N, T, d], zero there too."""
        ascending, order = lengths.sort()
        true = frame_mask(ascending, frames.shape[1])
        # Padding is zero: the last frame sees the same behind it as at the end of a batch.
        z = self.convolution(in_autocast(frames).transpose(1, 2)).transpose(1, 2)
        z = z + half_sinusoids(*z.shape[1:]).to(z)
        states = packed_layer(self.layer, z[order][true], ascending)
        placed = states.new_zeros(z.shape).index_put((true,), states)
        return torch.empty_like(placed).index_copy(0, order, placed)


class ScaleVLAD(MissingModalityModule):
    r"""ScaleVLAD, scales of vectors of locally aggregated descriptors.

    Luo, Ji, Huang, Wang, Ji, Li: "ScaleVLAD: Improving multimodal sentiment analysis via multi-scale fusion of locally
    descriptors", arXiv 2112.01368, 2021.

    A transformer reads the frames of each modality. Means over windows of 1, 2 and 4 of its states, of every modality,
    are assigned to the same topics, and their residuals from each topic's centre are summed (:class:`SharedTopics`): a
    word and the sound around it can meet in one topic, though nothing aligns them. A transformer over the topics and a
    linear layer answer. A clustering of the fused features keeps samples apart (:class:`ShiftedClusters`).

    .. math::
        V_k = \sum_{m,s,i} a_k(f_{m,s,i}) (f_{m,s,i} - c_k), \quad
            r = \mathrm{mean}_k\, \mathrm{layer}(\mathrm{normalised}(V)), \quad ŷ = W r + b, \quad
            L = L_{cls} + λ L_{clustering}

    L_cls: the task's loss under the training mask; λ = 0.1. An absent modality adds no residual; one is enough. Each
    utterance is read once for all conditions.

    Stated by the paper's abstract: three transformer encoders; representations of several scales, gathered by vectors
    of locally aggregated descriptors that the modalities share; a self-supervised shifted clustering loss on fused
    features; a transformer and one fully connected layer. NetVLAD states the soft assignment and its norms.

    Our choices: all numbers. Tokens are a convolution over 3 frames with sinusoidal positions, of frozen features where
    the paper trains its text encoder; d = 128, one layer of 4 heads, feed-forward part of 256, dropout 0.1; windows
    side by side over true frames, the last one shorter; 8 topics, read by the second transformer as √(K d) times
    the normalised V; 2 clusters per class (8 of a regression), which start at random, ρ = 0.9, and begin anew after
    ``batch_size`` rows without a member; batch 128, Adam with learning rate 2e-4, 20+20 epochs of a linear schedule.
    "Shifted" is read as the lag of the clusters behind the features. A long modality outweighs a short one by its
    number of windows; ``per_modality`` averages the residuals of each modality and scale.

    Clusters are in checkpoints; several devices move them by the rows of all.

    Published figures: on IEMOCAP, MOSI and MOSEI with complete modalities and a trained text encoder; nothing to
    compare with.

    Args:
        dim: d.
        heads: of each layer; divides d.
        feedforward_dim: hidden width of each layer.
        dropout: of each layer.
        scales: lengths of windows, in frames.
        topics: K.
        per_modality: average residuals over the windows of each modality and scale.
        clusters: G; None: 2 per class, 8 of a regression.
        momentum: ρ, what a cluster keeps of itself in a step.
        lambda_clustering: λ.
        **kwargs: of :class:`~ifmmin.base.MissingModalityModule`.

    Raises:
        InputError: ``heads`` does not divide ``dim``, or an option is out of range.
    """

    card = ModelCard(
        "ScaleVLAD",
        "sums residuals of windows of several lengths from topics that all modalities share",
        "Luo et al., arXiv",
        2021,
        "https://arxiv.org/abs/2112.01368",
        None,
        "fusion",
        "after the abstract of the paper",
    )
    needs = DataNeeds(hidden_frames=False)

    def __init__(
        self,
        *,
        dim: Annotated[int, WIDTH] = 128,
        heads: Annotated[int, WIDTH] = 4,
        feedforward_dim: Annotated[int, WIDTH] = 256,
        dropout: Annotated[float, BELOW_ONE] = 0.1,
        scales: Annotated[list[int], WIDTH, NOT_EMPTY] = [1, 2, 4],
        topics: Annotated[int, COUNT] = 8,
        per_modality: bool = False,
        clusters: Annotated[int, COUNT] | None = None,
        momentum: Annotated[float, BELOW_ONE] = 0.9,
        lambda_clustering: Annotated[float, NOT_NEGATIVE] = 0.1,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if dim % heads:
            raise InputError(f"heads {heads}: it must divide dim {dim}.")
        layout = (dim, heads, feedforward_dim, dropout)
        widths = zip(MODALITIES, self.feature_dims, strict=True)
        self.encoders = nn.ModuleDict({name: FrameTransformer(width, *layout) for name, width in widths})
        self.topics = SharedTopics(dim, topics, list(scales), per_modality)
        self.fusion = nn.TransformerEncoderLayer(*layout, batch_first=True)
        self.head = nn.Linear(dim, self.task.outputs)
        if clusters is None:
            clusters = 2 * self.task.outputs if self.task.name == "classification" else 8
        self.clusters = ShiftedClusters(clusters, dim, momentum, self.settings.batch_size)
        self.loss_weights = {"clustering": lambda_clustering}
        self._fused: Tensor | None = None

    def residuals(self, batch: Batch) -> Tensor:
        """Compute V of each modality, [B, 3, K, d]; 0 where absent."""
        found = []
        for m, encoder in enumerate(self.encoders.values()):
            seen = visible(batch, m)
            frames, lengths = seen.frames, seen.lengths
            if not len(lengths):
                # A modality that nobody shows is run on a zero frame, so that its parameters have a gradient.
                frames, lengths = frames.new_zeros(1, 1, frames.shape[2]), lengths.new_ones(1)
            found.append(seen.spread(self.topics(encoder(frames, lengths), lengths)))
        return torch.stack(found, dim=1)

    def fuse(self, residuals: Tensor) -> Tensor:
        """Fuse V [B, 3, K, d] to r [B, d]."""
        V = normalised(residuals.sum(dim=1))
        B, K, dim = V.shape
        tokens = in_autocast((K * dim) ** 0.5 * V).flatten(0, 1)
        states = packed_layer(self.fusion, tokens, torch.full((B,), K, dtype=torch.int64, device=V.device), together=B)
        return states.view_as(V).mean(dim=1)

    def forward(self, batch: Batch) -> Tensor:
        """Outputs [B, O]."""
        outputs: Tensor = self.head(self.fuse(self.residuals(batch)))
        return outputs

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """L_cls and L_clustering."""
        r = self.fuse(self.residuals(batch))
        if self.training:
            self._fused = r.detach()
        return {"cls": self.task.loss(self.head(r), batch.target), "clustering": self.clusters(r)}

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """See :class:`~ifmmin.base.MissingModalityModule`; the clusters move after the loss has read them."""
        total = super().training_step(batch, batch_idx)
        assert self._fused is not None
        summary = self.clusters.summary(self._fused)
        several = self.trainer.world_size > 1
        gathered = self.trainer.strategy.all_gather(summary) if several else summary[None]
        self.clusters.move(gathered)
        self._fused = None
        return total

    def modality_embeddings(self, batch: Batch) -> Tensor:
        """Compute V of each modality in one vector, [B, 3, K d]."""
        return self.residuals(batch).flatten(2)
