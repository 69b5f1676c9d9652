"""Orders of whole chains."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamodules.batches.chains import ChainBatches
from datamodules.errors import CorpusError
from datamodules.needs import DataNeeds
from datamodules.synthetic import Synthetic

orders: dict[str, Any] = {
    "lengths": st.lists(st.integers(1, 12), min_size=1, max_size=40),
    "batch_size": st.integers(1, 50),
    "world": st.integers(1, 4),
    "seed": st.integers(0, 100),
    "epoch": st.integers(0, 100),
}


def sampler(
    lengths: list[int], batch_size: int, shuffle: bool, seed: int = 0, rank: int = 0, world: int = 1
) -> ChainBatches:
    """Chains whose turns are scattered over a corpus, at positions 3 i + 1."""
    chain = np.repeat(np.arange(len(lengths)), lengths)
    position = np.concatenate([np.arange(length) for length in lengths])
    order = np.random.default_rng(len(chain)).permutation(len(chain))
    turns = np.stack([chain, position, position > 0], axis=1)[order]
    return ChainBatches(np.arange(len(chain)) * 3 + 1, turns, batch_size, shuffle, seed, rank, world)


def chain_of(lengths: list[int]) -> dict[int, tuple[int, int]]:
    """Chain and position by position in the corpus."""
    chain = np.repeat(np.arange(len(lengths)), lengths)
    position = np.concatenate([np.arange(length) for length in lengths])
    order = np.random.default_rng(len(chain)).permutation(len(chain))
    return {3 * i + 1: (int(chain[place]), int(position[place])) for i, place in enumerate(order.tolist())}


def epoch_of(batches: ChainBatches, epoch: int) -> list[list[int]]:
    batches.set_epoch(epoch)
    requests = list(batches)
    assert len(requests) == len(batches)
    assert all(request.epoch == epoch for request in requests)
    for request, following in pairwise(requests):
        assert request.following.tolist() == following.indices.tolist()
    return [request.indices.tolist() for request in requests]


@given(shuffle=st.booleans(), **orders)
def test_every_chain_comes_whole_to_one_device_once(
    shuffle: bool, lengths: list[int], batch_size: int, world: int, seed: int, epoch: int
) -> None:
    world = min(world, len(lengths))
    ranks = [epoch_of(sampler(lengths, batch_size, shuffle, seed, rank, world), epoch) for rank in range(world)]
    assert len({len(batches) for batches in ranks}) == 1  # or one device would wait for ever
    batches = [batch for share in ranks for batch in share]
    assert all(batches)
    where = chain_of(lengths)
    assert sorted(row for batch in batches for row in batch) == sorted(where)
    home: dict[int, int] = {}
    for number, batch in enumerate(batches):
        for row in batch:
            assert home.setdefault(where[row][0], number) == number
        # Chain after chain, each in order of time.
        turns = [where[row] for row in batch]
        firsts = [place for place, (_, position) in enumerate(turns) if position == 0]
        assert all(turns[i] == (turns[i - 1][0], turns[i - 1][1] + 1) for i in range(len(turns)) if i not in firsts)


@given(**orders)
def test_an_order_is_a_function_of_seed_and_epoch(
    lengths: list[int], batch_size: int, world: int, seed: int, epoch: int
) -> None:
    fresh = epoch_of(sampler(lengths, batch_size, True, seed), epoch)
    used = sampler(lengths, batch_size, True, seed)
    epoch_of(used, epoch + 1)  # what ran before does not matter
    np.random.seed(world)
    assert epoch_of(used, epoch) == fresh


@given(**orders)
def test_devices_share_the_batches_of_one(
    lengths: list[int], batch_size: int, world: int, seed: int, epoch: int
) -> None:
    alone = epoch_of(sampler(lengths, batch_size, True, seed), epoch)
    if len(alone) > len(lengths) // world:
        return  # there are then fewer batches, for want of chains
    ranks = [epoch_of(sampler(lengths, batch_size, True, seed, rank, world), epoch) for rank in range(world)]
    together = [sorted(row for share in shares for row in share) for shares in zip(*ranks, strict=True)]
    assert together == [sorted(batch) for batch in alone]


def test_seed_and_epoch_change_the_order() -> None:
    lengths = [1 + i % 7 for i in range(40)]
    orders = [epoch_of(sampler(lengths, 20, True, seed), epoch) for seed, epoch in ((0, 0), (0, 1), (1, 0), (1, 1))]
    assert all(one != other for i, one in enumerate(orders) for other in orders[:i])


@pytest.mark.parametrize("shuffle", [True, False])
def test_batches_are_about_equal_and_as_many_as_without_chains(shuffle: bool) -> None:
    # IEMOCAP's: 301 chains of four-class turns, the median 18, the longest 56.
    lengths = np.random.default_rng(0).gamma(3, 6.2, 301).clip(1, 56).astype(int).tolist()
    sizes = [len(batch) for batch in epoch_of(sampler(lengths, 128, shuffle), 0)]
    assert len(sizes) == -(-sum(lengths) // 128)
    assert max(sizes) < 1.25 * 128 and min(sizes) > 0.75 * 128


def test_a_chain_longer_than_a_batch_is_a_batch() -> None:
    assert sorted(len(batch) for batch in epoch_of(sampler([50, 1, 1, 2], 4, True), 0)) == [1, 1, 2, 50]


@pytest.mark.parametrize(
    ("turns", "what", "most"),
    [(True, "whole chains of turns", 8), (False, "utterances", 160)],
)
@pytest.mark.parametrize("batch_size", [20, None], ids=["training", "evaluation"])
def test_more_devices_than_there_is_for_them_are_refused(
    batch_size: int | None, turns: bool, what: str, most: int
) -> None:
    data = Synthetic(utterances_per_speaker=20, fold=2)
    data.setup("fit")
    data.serve(DataNeeds(turns=turns), 128)
    assert data.count_batches("train", batch_size, devices=most) == 1
    with pytest.raises(CorpusError, match=f"train has too few {what} for {most + 1} devices: {most}; give"):
        data.count_batches("train", batch_size, devices=most + 1)
