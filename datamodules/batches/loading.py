"""From a corpus to batches: order, masks, normalisation and padding, a whole batch at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
from datamodules.batches.pooling import pool_sequences, pool_steps
from datamodules.storage.corpus import Corpus, Frames, RaggedFrames, Statistics

Normalization = Literal["train", "utterance", "none"]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Request:
    """What one batch is made of.

    Attributes:
        rows: int64 [n], positions in the corpus.
        epoch: the one its masks belong to.
        following: int64 [m], those of the next batch, which the disk can bring meanwhile; none after the last.
    """

    rows: IntArray
    epoch: int
    following: IntArray = field(default_factory=lambda: np.empty(0, dtype=np.int64))


def padded(frames: Frames, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Gather utterances into one padded tensor.

    Args:
        frames: one modality of a corpus.
        rows: int64 [N], positions in the corpus.

    Returns:
        float32 [N, T, D], zero behind the last frame, and bool [N, T], True on true frames.
    """
    lengths = frames.offsets[rows + 1] - frames.offsets[rows]
    longest = int(lengths.max()) if len(rows) else 0
    true = torch.arange(longest) < lengths[:, None]
    return without_padding(frames.gather(rows, longest), true), true


def pooled(frames: Frames, rows: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Gather utterances as the same number of steps each, from memory without a copy of their frames.

    Args:
        frames: one modality of a corpus.
        rows: int64 [N], positions in the corpus.
        steps: S.

    Returns:
        float32 [N, S, D] and bool [N, S], as of :func:`padded`, pooled by
        :func:`~datamodules.batches.pooling.pool_steps`.
    """
    lengths = frames.offsets[rows + 1] - frames.offsets[rows]
    if isinstance(frames, RaggedFrames) and frames.values.dtype == torch.float32:
        gathered = pool_sequences(frames.values, frames.offsets[rows], lengths, steps)
    else:
        gathered = pool_steps(frames.gather(rows, int(lengths.max()) if len(rows) else 0), lengths, steps)
    return gathered, (lengths > 0)[:, None].expand(-1, steps)


def without_padding(gathered: Tensor, true: Tensor) -> Tensor:
    """Set what is not ``true`` to zero, in place."""
    # Where all utterances are equally long there is nothing to write.
    return gathered if bool(true.all()) else gathered.masked_fill_(~true[..., None], 0.0)


def normalized(gathered: Tensor, true: Tensor, how: Normalization, statistics: Statistics | None) -> Tensor:
    """Normalise padded frames [N, T, D], in place where that is possible, and leave the padding at zero.

    Args:
        gathered: from :func:`padded`.
        true: bool [N, T], from :func:`padded`.
        how: ``train``: by the mean and standard deviation of the training frames; ``utterance``: by
            each utterance's own; ``none``.
        statistics: needed for ``train``.
    """
    if how == "none":
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
        labels: int64 [N], -1 where unknown.
        normalization: per modality.
        statistics: per modality, for those normalised by training statistics.
        mask: the training mask; None shows all there is.
        seed: of the mask.
        complete: whether a batch holds its utterances whole; otherwise only what the mask shows is read.
        steps: what every sequence is pooled to; None: a batch holds the frames.
    """

    def __init__(
        self,
        corpus: Corpus,
        labels: Tensor,
        normalization: Sequence[Normalization],
        statistics: Sequence[Statistics | None],
        mask: MaskSampler | None = None,
        seed: int = 0,
        complete: bool = True,
        steps: int | None = None,
    ) -> None:
        self.corpus = corpus
        self.labels = labels
        self.normalization = normalization
        self.statistics = statistics
        self.mask = mask
        self.seed = seed
        self.complete = complete
        self.steps = steps
        self._keys = utterance_keys(corpus.utterances)
        self._available: BoolArray = (corpus.lengths > 0).numpy()
        self._shown = self._available
        self._epoch: int | None = None

    def __len__(self) -> int:
        """The number of utterances."""
        return len(self.corpus.utterances)

    def __getitem__(self, request: Request) -> Batch:
        """Gather, normalise, pad and mask the requested utterances."""
        rows, following = torch.from_numpy(request.rows), torch.from_numpy(request.following)
        present = self._present(request.rows, request.epoch)
        held = None if self.complete else positions(present)
        audio, visual, text = (
            self._gathered(modality, rows if held is None else rows[held[modality]]) for modality in range(3)
        )
        next_held = None if self.complete else positions(self._present(request.following, request.epoch))
        for modality, frames in enumerate(self.corpus.frames):
            frames.announce(following if next_held is None else following[next_held[modality]])
        lengths = self.corpus.lengths[rows]
        return Batch(
            frames=(audio, visual, text),
            lengths=lengths if self.steps is None else self.steps * (lengths > 0),
            index=rows,
            labels=self.labels[rows],
            utterances=[self.corpus.utterances[row] for row in request.rows],
            row=torch.arange(len(rows)),
            present=torch.from_numpy(present),
            held=held,
        )

    def _gathered(self, modality: int, rows: Tensor) -> Tensor:
        """Normalised frames [K, T, D] of one modality of ``rows`` [K], pooled where that is wanted."""
        frames, how, statistics = self.corpus.frames[modality], self.normalization[modality], self.statistics[modality]
        # The mean of normalised frames is the normalised mean, but an utterance's own statistics are of its frames.
        if self.steps is not None and how != "utterance":
            return normalized(*pooled(frames, rows, self.steps), how, statistics)
        gathered, true = padded(frames, rows)
        normal = normalized(gathered, true, how, statistics)
        return normal if self.steps is None else pool_steps(normal, true.sum(dim=1), self.steps)

    def _present(self, rows: IntArray, epoch: int) -> BoolArray:
        """Bool [n, 3], what the mask shows of ``rows`` [n]."""
        if self._epoch != epoch:  # drawn once for all, not anew for every batch
            self._epoch = epoch
            if self.mask is not None:
                self._shown = restrict(self.mask(self._keys, self.seed, epoch), self._available)
        return self._shown[rows]


def positions(present: BoolArray) -> tuple[Tensor, Tensor, Tensor]:
    """Per modality int64 [K_m], where a column of ``present`` [n, 3] is True."""
    audio, visual, text = (torch.from_numpy(column.nonzero()[0]) for column in present.T)
    return audio, visual, text


class LengthBatches(DistributedSampler[Request]):
    """Batches of utterances of similar length, as a pure function of (seed, epoch).

    Each global batch is split over the devices, so training takes the same steps on any number of
    them. In evaluation every utterance is given to exactly one device, once. A DistributedSampler
    by type, so that Lightning does not replace it by one that repeats utterances.

    Args:
        rows: int64 [n], positions in the corpus.
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
        rows: IntArray,
        cost: IntArray,
        batch_size: int,
        shuffle: bool,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        pool: int = 16,
    ) -> None:
        # The parent's state is replaced: only its type and set_epoch are wanted.
        self.rows = rows
        self.cost = cost
        self.shuffle = shuffle
        self.seed = seed
        self.rank = rank
        self.num_replicas = world_size
        self.epoch = 0
        # Equal shares, so that no batch is so small that its moments vanish.
        batches = -(-len(rows) // batch_size)
        # In training every device has a share of every batch; in evaluation none is left without a batch.
        batches = min(batches, len(rows) // world_size) if shuffle else max(batches, min(len(rows), world_size))
        self.batches = max(1, batches)
        self.pool = pool

    def __len__(self) -> int:
        """Batches this device sees in an epoch."""
        if self.shuffle:
            return self.batches
        return len(range(self.rank, self.batches, self.num_replicas))

    def __iter__(self) -> Iterator[Request]:
        """The requests of the epoch set by ``set_epoch``."""
        none = np.empty(0, dtype=np.int64)
        for rows, following in pairwise([*self._order(), none]):
            yield Request(rows, self.epoch, following)

    def _order(self) -> Iterator[IntArray]:
        """The positions of each batch."""
        if not self.shuffle:
            order = np.argsort(self.cost, kind="stable")
            mine = np.array_split(self.rows[order], self.batches)[self.rank :: self.num_replicas]
            yield from (rows for rows in mine if len(rows))
            return
        random = np.random.default_rng((self.seed, self.epoch))
        drawn = random.permutation(len(self.rows))
        # From a single pool the same batches would come every epoch.
        pools = np.array_split(drawn, max(2, round(self.batches / self.pool)))
        drawn = np.concatenate([pool[np.argsort(self.cost[pool], kind="stable")] for pool in pools])
        batches = np.array_split(self.rows[drawn], self.batches)
        for position in random.permutation(self.batches):
            # Every device takes its share of the same global batch: interleaved, so of the same lengths.
            yield batches[position][self.rank :: self.num_replicas]
