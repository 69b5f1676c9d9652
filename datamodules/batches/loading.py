"""From a corpus to batches: order, masks, normalisation and padding, one whole batch at a time."""

from __future__ import annotations

import math
import operator
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset, DistributedSampler

from datamodules.batches.batch import Batch
from datamodules.batches.masks import BoolArray, MaskSampler, restrict, utterance_keys
from datamodules.batches.patterns import FramePattern
from datamodules.batches.pooling import pool_sequences, pool_steps
from datamodules.conditions import MODALITIES, per_modality
from datamodules.errors import CorpusError
from datamodules.storage.corpus import Corpus
from datamodules.storage.frames import Frames, RaggedFrames
from datamodules.storage.statistics import Statistics
from datamodules.text import printable

Normalization = Literal["train", "utterance", "none"]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Request:
    """A request for one batch.

    Attributes:
        indices: int64 [n], positions in the corpus.
        epoch: the one its masks belong to.
        following: int64 [m], positions of the next batch, for prefetching; empty after the last.
    """

    indices: IntArray
    epoch: int
    following: IntArray = field(default_factory=lambda: np.empty(0, dtype=np.int64))


def memory_of_machine() -> float:
    """Bytes of physical memory, infinite where the system does not say."""
    names: Mapping[str, int] = getattr(os, "sysconf_names", {})
    if "SC_PHYS_PAGES" not in names or "SC_PAGE_SIZE" not in names:
        return math.inf
    return float(os.sysconf("SC_PHYS_PAGES")) * os.sysconf("SC_PAGE_SIZE")


def padded(frames: Frames, indices: Tensor) -> tuple[Tensor, Tensor]:
    """Gather utterances into one padded tensor.

    Args:
        frames: one modality of a corpus.
        indices: int64 [N], positions in the corpus.

    Returns:
        float32 [N, T, D], zero past the last frame, and bool [N, T], True on true frames.
    """
    lengths = frames.offsets[indices + 1] - frames.offsets[indices]
    longest = int(lengths.max()) if len(indices) else 0
    true = torch.arange(longest) < lengths[:, None]
    return without_padding(frames.gather(indices, longest), true), true


def pooled(frames: Frames, indices: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Gather utterances pooled to the same number of steps, from memory without copying their frames.

    Args:
        frames: one modality of a corpus.
        indices: int64 [N], positions in the corpus.
        steps: S.

    Returns:
        float32 [N, S, D] and bool [N, S], as of :func:`padded`, pooled by
        :func:`~datamodules.batches.pooling.pool_steps`.
    """
    lengths = frames.offsets[indices + 1] - frames.offsets[indices]
    if isinstance(frames, RaggedFrames) and frames.values.dtype == torch.float32:
        gathered = pool_sequences(frames.values, frames.offsets[indices], lengths, steps)
    else:
        gathered = pool_steps(frames.gather(indices, int(lengths.max()) if len(indices) else 0), lengths, steps)
    return gathered, (lengths > 0)[:, None].expand(-1, steps)


def without_padding(gathered: Tensor, true: Tensor) -> Tensor:
    """Set what is not ``true`` to zero, in place."""
    # Without padding there is nothing to write.
    return gathered if bool(true.all()) else gathered.masked_fill_(~true[..., None], 0.0)


def normalized(gathered: Tensor, true: Tensor, how: Normalization, statistics: Statistics | None) -> Tensor:
    """Normalise padded frames [N, T, D], in place if possible, and keep the padding at zero.

    Args:
        gathered: from :func:`padded`.
        true: bool [N, T], from :func:`padded`.
        how: ``train``: by the mean and standard deviation of the training frames; ``utterance``: by
            each utterance's own; ``none``.
        statistics: needed for ``train``.
    """
    if how == "none" or gathered.shape[-1] == 0:  # a modality without features has no statistics
        return gathered
    if how == "train":
        if statistics is None:
            raise ValueError("normalisation by training statistics needs the statistics")
        mean, std = statistics.mean, statistics.std
    else:
        # Counted from the first frame: a constant feature is then exactly zero, whatever its size.
        gathered = without_padding(gathered - gathered[:, :1], true)
        count = true.sum(dim=1).clamp(min=1)[:, None, None]
        mean = gathered.sum(dim=1, keepdim=True) / count
        spread = ((gathered - mean).square() * true[..., None]).sum(dim=1, keepdim=True) / count
        std = spread.sqrt()
        std = std.masked_fill(std == 0, 1.0)
    return without_padding(gathered.sub_(mean).div_(std), true)


class UtteranceDataset(Dataset[Batch]):
    """Makes the batch that a :class:`Request` asks for.

    Args:
        corpus: N utterances.
        labels: [N], as in :class:`~datamodules.batches.batch.Batch`.
        normalization: per modality.
        statistics: per modality, for those normalised by training statistics.
        mask: the training mask; None shows all there is.
        seed: of the mask.
        hidden_frames: whether a batch stores its utterances whole; otherwise only what the mask shows is read.
        steps: what every sequence is pooled to; None: a batch stores the frames.
        soft_labels: float32 [N, C], of a corpus with soft labels.
        permanent: draw mask and pattern once for all epochs, as in epoch 0.
        turns: int64 [N, 3], as in :class:`~datamodules.batches.batch.Batch`, for a model that reads them.
        pattern: what becomes of the frames that rows may see; None leaves them as they are.
        spreads: float32 [D] of each modality, for a pattern that adds noise; see
            :meth:`~datamodules.batches.patterns.FramePattern.apply`.
    """

    def __init__(
        self,
        corpus: Corpus,
        labels: Tensor,
        normalization: Sequence[Normalization],
        statistics: Sequence[Statistics | None],
        mask: MaskSampler | None = None,
        seed: int = 0,
        hidden_frames: bool = True,
        steps: int | None = None,
        soft_labels: Tensor | None = None,
        permanent: bool = False,
        turns: Tensor | None = None,
        pattern: FramePattern | None = None,
        spreads: Sequence[Tensor] | None = None,
    ) -> None:
        self.corpus = corpus
        self.turns = turns
        self.pattern = pattern
        self.spreads = spreads or [torch.zeros(frames.dim) for frames in corpus.frames]
        self.soft_labels = soft_labels
        self.labels = labels
        self.normalization = normalization
        self.statistics = statistics
        self.mask = mask
        self.seed = seed
        self.hidden_frames = hidden_frames
        self.steps = steps
        self.permanent = permanent
        self._memory = memory_of_machine()
        self._keys = utterance_keys(corpus.utterances)
        self._available: BoolArray = (corpus.lengths > 0).numpy()
        self._shown = self._available
        self._epoch: int | None = None

    def __len__(self) -> int:
        """The number of utterances."""
        return len(self.corpus.utterances)

    def __getitem__(self, request: Request) -> Batch:
        """Gather, normalise, pad and mask the requested utterances."""
        indices, following = torch.from_numpy(request.indices), torch.from_numpy(request.following)
        present = self._present(request.indices, request.epoch)
        stored = None if self.hidden_frames else positions(present)
        epoch = 0 if self.permanent else request.epoch
        views = [
            self._views(modality, indices if stored is None else indices[stored[modality]], epoch)
            for modality in range(3)
        ]
        frames, shown = (per_modality(view) for view in zip(*views, strict=True))
        ahead = None if self.hidden_frames else positions(self._present(request.following, request.epoch))
        for modality, source in enumerate(self.corpus.frames):
            source.prefetch(following if ahead is None else following[ahead[modality]])
        lengths = self.corpus.lengths[indices]
        return Batch(
            frames=frames,
            lengths=lengths if self.steps is None else self.steps * (lengths > 0),
            index=indices,
            labels=self.labels[indices],
            utterances=[self.corpus.utterances[index] for index in request.indices],
            row=torch.arange(len(indices)),
            present=torch.from_numpy(present),
            stored=stored,
            soft_labels=None if self.soft_labels is None else self.soft_labels[indices],
            turn=None if self.turns is None else self.turns[indices],
            # One tensor twice where nothing is changed.
            shown=None if all(map(operator.is_, frames, shown)) else shown,
        )

    def _views(self, modality: int, indices: Tensor, epoch: int) -> tuple[Tensor, Tensor]:
        """Frames [K, T, D] of one modality of ``indices`` [K], whole and as the pattern shows them.

        A batch of what the mask shows has no whole frames: both are as the pattern shows them.
        """
        pattern = self.pattern
        if pattern is None or not pattern.rates[modality] or not self.corpus.frames[modality].dim:
            whole = self._gathered(modality, indices)
            return whole, whole
        how, statistics = self.normalization[modality], self.statistics[modality]
        self._refuse_too_large(modality, indices)
        gathered, true = padded(self.corpus.frames[modality], indices)
        lengths = true.sum(dim=1)

        def finished(frames: Tensor, is_normal: bool) -> Tensor:
            frames = frames if is_normal else normalized(frames, true, how, statistics)
            return frames if self.steps is None else pool_steps(frames, lengths, self.steps)

        def changed(frames: Tensor) -> Tensor:
            keys = self._keys[indices.numpy()]
            return pattern.apply(frames, lengths.numpy(), keys, modality, self.seed, epoch, self.spreads[modality])

        if pattern.before_normalisation:
            shown = finished(changed(gathered), False)
            return (finished(gathered, False) if self.hidden_frames else shown), shown
        normal = normalized(gathered, true, how, statistics)
        shown = finished(changed(normal), True)
        return (finished(normal, True) if self.hidden_frames else shown), shown

    def _gathered(self, modality: int, indices: Tensor) -> Tensor:
        """Normalised frames [K, T, D] of one modality of ``indices`` [K], pooled to ``steps`` if set."""
        frames, how, statistics = self.corpus.frames[modality], self.normalization[modality], self.statistics[modality]
        # The mean of normalised frames is the normalised mean, but an utterance's own statistics are of its frames.
        if self.steps is not None and how != "utterance":
            return normalized(*pooled(frames, indices, self.steps), how, statistics)
        self._refuse_too_large(modality, indices)
        gathered, true = padded(frames, indices)
        normal = normalized(gathered, true, how, statistics)
        return normal if self.steps is None else pool_steps(normal, true.sum(dim=1), self.steps)

    def _refuse_too_large(self, modality: int, indices: Tensor) -> None:
        """Refuse to pad a batch to a length for which the machine has no memory.

        Raises:
            CorpusError: naming the longest utterance.
        """
        lengths = self.corpus.lengths[indices, modality]
        longest = int(lengths.max()) if len(lengths) else 0
        size = 4 * len(indices) * longest * self.corpus.frames[modality].dim
        if size > self._memory:
            utterance = self.corpus.utterances[int(indices[lengths.argmax()])]
            raise CorpusError(
                f"utterance {printable(utterance, 80)}: {longest} {MODALITIES[modality]} frames, so that its batch of "
                f"{len(indices)} takes {size / 1e9:.0f} GB; cut it, or lower the batch size."
            )

    def _present(self, indices: IntArray, epoch: int) -> BoolArray:
        """Bool [n, 3], what the mask shows of ``indices`` [n]."""
        epoch = 0 if self.permanent else epoch
        if self._epoch != epoch:  # drawn once for all, not anew for every batch
            self._epoch = epoch
            if self.mask is not None:
                self._shown = restrict(
                    self.mask(self._keys, self.seed, epoch), self._available, self._keys, self.seed, epoch
                )
        return self._shown[indices]


def positions(present: BoolArray) -> tuple[Tensor, Tensor, Tensor]:
    """Positions int64 [K_m] of True in each column of ``present`` [n, 3]."""
    return per_modality(torch.from_numpy(column.nonzero()[0]) for column in present.T)


class RequestSampler(DistributedSampler[Request], ABC):
    """Base of the orders of a corpus: a device's requests in an epoch, as a pure function of (seed, epoch).

    Subclasses DistributedSampler only to stop Lightning from injecting its own, which pads by repeating utterances.

    Args:
        shuffle: a new order each epoch (training).
        seed: of the order.
        rank: this device.
        world_size: number of devices.
    """

    def __init__(self, shuffle: bool, seed: int, rank: int, world_size: int) -> None:
        # The parent's state is replaced: only its type and set_epoch are wanted.
        self.shuffle = shuffle
        self.seed = seed
        self.rank = rank
        self.num_replicas = world_size
        self.epoch = 0

    @abstractmethod
    def __len__(self) -> int:
        """Batches this device sees in an epoch."""

    @abstractmethod
    def _order(self) -> Iterator[IntArray]:
        """The positions of each batch."""

    def __iter__(self) -> Iterator[Request]:
        """The requests of the epoch set by ``set_epoch``."""
        none = np.empty(0, dtype=np.int64)
        for indices, following in pairwise([*self._order(), none]):
            yield Request(indices, self.epoch, following)


class LengthBatches(RequestSampler):
    """Batches of utterances of similar length, as a pure function of (seed, epoch).

    Each global batch is split over the devices, so training takes the same steps on any number of
    them. In evaluation every utterance is given to exactly one device, once.

    Args:
        indices: int64 [n], positions in the corpus.
        cost: int64 [n], the length to sort by.
        batch_size: utterances per batch, over all devices together.
        shuffle: a new order each epoch (training); otherwise by length.
        seed: of the order.
        rank: this device.
        world_size: number of devices.
        pool: how many batches' worth of utterances are drawn together before they are sorted by
            length: more means less padding and less varied batches.
    """

    def __init__(
        self,
        indices: IntArray,
        cost: IntArray,
        batch_size: int,
        shuffle: bool,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        pool: int = 16,
    ) -> None:
        super().__init__(shuffle, seed, rank, world_size)
        self.indices = indices
        self.cost = cost
        # Equal shares, so that no batch is so small that its moments vanish.
        batches = -(-len(indices) // batch_size)
        # In training every device has a share of every batch; in evaluation none is left without a batch.
        batches = min(batches, len(indices) // world_size) if shuffle else max(batches, min(len(indices), world_size))
        self.batches = max(1, batches)
        self.pool = pool

    def __len__(self) -> int:
        """Batches this device sees in an epoch."""
        if self.shuffle:
            return self.batches
        return len(range(self.rank, self.batches, self.num_replicas))

    def _order(self) -> Iterator[IntArray]:
        """The positions of each batch."""
        if not self.shuffle:
            order = np.argsort(self.cost, kind="stable")
            mine = np.array_split(self.indices[order], self.batches)[self.rank :: self.num_replicas]
            yield from (indices for indices in mine if len(indices))
            return
        random = np.random.default_rng((self.seed, self.epoch))
        drawn = random.permutation(len(self.indices))
        # From a single pool the same batches would come every epoch.
        pools = np.array_split(drawn, max(2, round(self.batches / self.pool)))
        drawn = np.concatenate([pool[np.argsort(self.cost[pool], kind="stable")] for pool in pools])
        batches = np.array_split(self.indices[drawn], self.batches)
        for position in random.permutation(self.batches):
            # Every device takes its share of the same global batch: interleaved, so of the same lengths.
            yield batches[position][self.rank :: self.num_replicas]
