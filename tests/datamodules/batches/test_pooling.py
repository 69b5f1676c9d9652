"""Pooling to a number of steps, against PyTorch's pooling of one whole sequence."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from datamodules.batches.pooling import pool_sequences, pool_steps

STEPS = 20
LENGTHS = (1, 2, 7, 19, 20, 21, 40, 57)


def one_by_one(sequences: list[Tensor]) -> Tensor:
    """[K, S, D]; there is no padding to be wrong about."""
    return torch.stack([F.adaptive_avg_pool1d(frames.T[None], STEPS)[0].T for frames in sequences])


@pytest.fixture
def sequences() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(length, 3, generator=generator, dtype=torch.float64) for length in LENGTHS]


def test_pooling_is_adaptive_over_the_true_length_and_reads_no_padding(sequences: list[Tensor]) -> None:
    padded = torch.full((len(sequences), 60, 3), torch.nan, dtype=torch.float64)
    for row, frames in zip(padded, sequences, strict=True):
        row[: len(frames)] = frames
    torch.testing.assert_close(pool_steps(padded, torch.tensor(LENGTHS), STEPS), one_by_one(sequences))


def test_sequences_are_pooled_where_they_lie(sequences: list[Tensor]) -> None:
    lengths = torch.tensor(LENGTHS)
    first, order = lengths.cumsum(0) - lengths, torch.tensor([5, 0, 5, 7])
    ours = pool_sequences(torch.cat(sequences), first[order], lengths[order], STEPS)
    torch.testing.assert_close(ours, one_by_one([sequences[position] for position in order]))


def test_what_has_as_many_frames_as_steps_is_left_as_it_is() -> None:
    frames = torch.randn(3, STEPS, 2)
    assert pool_steps(frames, torch.tensor([STEPS] * 3), STEPS) is frames
    together = pool_steps(frames, torch.tensor([STEPS, 7, STEPS]), STEPS)
    assert torch.equal(together[[0, 2]], frames[[0, 2]])


def test_without_frames_all_steps_are_zero() -> None:
    ours = pool_steps(torch.full((2, 5, 3), torch.nan), torch.tensor([0, 0]), STEPS)
    assert torch.equal(ours, torch.zeros(2, STEPS, 3))
    assert pool_steps(torch.empty(0, 5, 3), torch.empty(0, dtype=torch.int64), STEPS).shape == (0, STEPS, 3)
    assert pool_steps(torch.empty(2, 0, 0), torch.tensor([0, 0]), STEPS).shape == (2, STEPS, 0)


def test_mixed_precision_changes_nothing() -> None:
    frames, lengths = torch.randn(2, 30, 2), torch.tensor([30, 7])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = pool_steps(frames, lengths, STEPS)
    assert torch.equal(mixed, pool_steps(frames, lengths, STEPS))


def test_the_gradient_of_a_frame_is_its_share() -> None:
    frames = torch.randn(2, 30, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda given: pool_steps(given, torch.tensor([30, 7]), STEPS), [frames])
