"""Batches for models that read a speaker's earlier turns: chains are never cut."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from datamodules.batches.loading import IntArray, RequestSampler


class ChainBatches(RequestSampler):
    """Batches of whole chains, as a pure function of (seed, epoch).

    An epoch has as many batches as it would have without chains. They are dealt chains, in random order (in evaluation
    the longest first), so that all hold about ``batch_size`` utterances; a longer chain is a larger batch. A chain is
    never on two devices. In training every device has chains of every batch; in evaluation every chain is given to
    exactly one device, once, and all devices have as many batches.

    Args:
        indices: int64 [n], positions in the corpus.
        turns: int64 [n, 3], the turn of each, as in :class:`~datamodules.batches.batch.Batch`.
        batch_size: utterances per batch, over all devices together.
        shuffle: a new order each epoch (training).
        seed: of the order.
        rank: this device.
        world_size: number of devices, of chains at most.
    """

    def __init__(
        self,
        indices: IntArray,
        turns: IntArray,
        batch_size: int,
        shuffle: bool,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        super().__init__(shuffle, seed, rank, world_size)
        order = np.lexsort((turns[:, 1], turns[:, 0]))
        starts = np.flatnonzero(np.diff(turns[order, 0])) + 1
        self.chains: list[IntArray] = np.split(indices[order], starts) if len(indices) else []
        batches, each = -(-len(indices) // batch_size), len(self.chains) // world_size
        if shuffle:
            self.batches = max(1, min(batches, each))
        else:
            self.batches = min(-(-batches // world_size), each) * world_size  # as many for each device

    def __len__(self) -> int:
        """Batches this device sees in an epoch."""
        return self.batches if self.shuffle else len(range(self.rank, self.batches, self.num_replicas))

    def _order(self) -> Iterator[IntArray]:
        """The positions of each batch, chain after chain, each in order of time."""
        if not self.shuffle:
            chains = sorted(self.chains, key=len, reverse=True)
            mine = deal(chains, self.batches)[self.rank :: self.num_replicas]
            yield from (np.concatenate(batch) for batch in mine)
            return
        random = np.random.default_rng((self.seed, self.epoch))
        drawn = [self.chains[position] for position in random.permutation(len(self.chains))]
        batches = deal(drawn, self.batches)
        for position in random.permutation(self.batches):
            yield np.concatenate(deal(batches[position], self.num_replicas)[self.rank])


def deal(chains: Sequence[IntArray], hands: int) -> list[list[IntArray]]:
    """Deal chains in their order, one to each hand a round, the longest of a round to the hand with the fewest turns.

    All hands then have as many chains, give or take one, and about as many turns.

    >>> [[len(chain) for chain in hand] for hand in deal([np.zeros(n) for n in (5, 1, 2, 4, 3)], 2)]
    [[5, 2], [1, 4, 3]]
    """
    dealt: list[list[IntArray]] = [[] for _ in range(hands)]
    turns = np.zeros(hands, dtype=np.int64)
    for first in range(0, len(chains), hands):
        batch = sorted(chains[first : first + hands], key=len, reverse=True)
        for hand, chain in zip(np.argsort(turns, kind="stable").tolist(), batch, strict=False):
            dealt[hand].append(chain)
            turns[hand] += len(chain)
    return dealt
