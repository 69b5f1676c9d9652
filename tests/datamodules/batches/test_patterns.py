"""Patterns against naive loops, expected shares, and what a batch shows of them."""

from __future__ import annotations

from collections import Counter
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from datamodules import Synthetic
from datamodules.batches.batch import Batch
from datamodules.batches.loading import Normalization, Request, UtteranceDataset
from datamodules.batches.masks import MissingShare, UniformConditions, mask_sampler, utterance_keys
from datamodules.batches.patterns import (
    FramePattern,
    LostBursts,
    LostFrames,
    NoisyFrames,
    frame_pattern,
    frame_uniform,
)
from datamodules.batches.pooling import pool_steps
from datamodules.batches.visible import under_conditions, visible
from datamodules.conditions import CONDITIONS
from datamodules.errors import InputError
from datamodules.storage.corpus import train_moments
from datamodules.storage.statistics import Statistics
from tests.batches import DIMS, random_utterances
from tests.datamodules.corpora import corpus_of

BoolArray = npt.NDArray[np.bool_]

ALL = [LostFrames((0.4,) * 3), LostBursts((0.4,) * 3, 3.0), NoisyFrames((0.5,) * 3)]
STATISTICS = [Statistics(torch.linspace(-1, 1, D), torch.linspace(0.5, 2, D)) for D in DIMS]


def names(count: int) -> list[str]:
    return [f"utterance {number}" for number in range(count)]


def applied(pattern: FramePattern, frames: torch.Tensor, lengths: npt.NDArray[np.int64], keys: Any) -> torch.Tensor:
    return pattern.apply(frames, lengths, keys, 1, 3, 5, torch.ones(frames.shape[2]))


# What is drawn.


@pytest.mark.parametrize("pattern", ALL, ids=str)
def test_a_pattern_depends_on_seed_epoch_and_id_alone(pattern: FramePattern) -> None:
    lengths = np.array([4, 9, 1, 0, 7])
    keys = utterance_keys(names(5))
    frames = torch.rand(5, 9, 3) + 1
    frames[torch.arange(9) >= torch.from_numpy(lengths)[:, None]] = 0
    together = applied(pattern, frames, lengths, keys)
    assert not torch.equal(together, frames)
    order = np.array([3, 1, 4, 0, 2])
    assert torch.equal(applied(pattern, frames[order], lengths[order], keys[order]), together[order])
    for row, length in enumerate(lengths):
        alone = applied(pattern, frames[row : row + 1, :length], lengths[row : row + 1], keys[row : row + 1])
        assert torch.equal(alone[0], together[row, :length])
        assert not together[row, length:].any()
    spread = torch.ones(3)
    for other in ((1, 4, 5), (1, 3, 6), (2, 3, 5)):  # modality, seed, epoch
        assert not torch.equal(pattern.apply(frames, lengths, keys, *other, spread), together)


@pytest.mark.parametrize("kind", [LostFrames, LostBursts])
@pytest.mark.parametrize("rate", [0.1, 0.5, 0.85, 0.97, 1.0])
def test_the_share_of_lost_frames_is_the_rate_and_one_stays(kind: type[LostFrames], rate: float) -> None:
    count, T = 20_000, 12
    lost = kind((0.0, rate, 0.0)).lost(utterance_keys(names(count)), np.full(count, T), 1, 0, 0)
    assert lost.shape == (count, T)
    assert not lost.all(axis=1).any()
    if kind is LostFrames:
        assert lost.mean() == pytest.approx(rate - rate**T / T, abs=0.005)
    else:  # lost at the first and with every later frame given the one before
        stays = 1.0 if rate == 1 else 1 - 1 / max(10, 1 / (1 - rate))
        assert lost.mean() == pytest.approx(rate - rate * stays ** (T - 1) / T, abs=0.01)
    assert kind((0.0, rate, 0.0)).share(1, T) == pytest.approx(lost.mean(), abs=0.01)
    # The same share at every frame: what is given back is given back anywhere.
    np.testing.assert_allclose(lost.mean(axis=0), lost.mean(), atol=0.02)


def test_rates_are_of_their_modality_and_nested() -> None:
    keys, lengths = utterance_keys(names(3_000)), np.full(3_000, 30)
    pattern = LostFrames((0.2, 0.5, 0.8))
    shares = [pattern.lost(keys, lengths, modality, 0, 0).mean() for modality in range(3)]
    np.testing.assert_allclose(shares, [0.2, 0.5, 0.8], atol=0.01)
    less, more = (LostFrames((rate,) * 3).lost(keys, lengths, 0, 0, 0) for rate in (0.2, 0.5))
    assert not (less & ~more).any()


def naive_bursts(uniform: npt.NDArray[np.float64], rate: float, length: float) -> BoolArray:
    """The chain frame by frame."""
    lost = np.zeros(uniform.shape, dtype=bool)
    for row, numbers in enumerate(uniform.tolist()):
        state = numbers[0] < rate
        lost[row, 0] = state
        for t, number in enumerate(numbers[1:], start=1):
            state = number < (1 - 1 / length if state else rate / (length * (1 - rate)))
            lost[row, t] = state
    return lost


@pytest.mark.parametrize(("rate", "length"), [(0.3, 4.0), (0.6, 10.0), (0.5, 2.0)])
def test_bursts_are_those_of_a_chain_walked_frame_by_frame(rate: float, length: float) -> None:
    keys, T = utterance_keys(names(40)), 2_000
    pattern = LostBursts((rate,) * 3, length)
    ours = pattern.lost(keys, np.full(40, T), 0, 1, 2)
    assert (ours == naive_bursts(frame_uniform(keys, T, 1, 2, 5), rate, length)).all()
    # And of a chain of other random numbers: share, and the distribution of the lengths of bursts.
    theirs = naive_bursts(np.random.default_rng(0).random((40, T)), rate, length)
    assert ours.mean() == pytest.approx(rate, abs=0.02)
    found = [bursts(each) for each in (ours, theirs)]
    for each in found:
        assert sum(k * n for k, n in each.items()) / each.total() == pytest.approx(length, rel=0.05)
    for k in range(1, 12):
        share = (1 - 1 / length) ** (k - 1) / length  # geometric
        assert [each[k] / each.total() for each in found] == pytest.approx([share] * 2, abs=0.02)


def bursts(lost: BoolArray) -> Counter[int]:
    """How often bursts of each length occur, without those that a sequence's ends cut."""
    found: Counter[int] = Counter()
    for row in lost:
        runs = [(value, len(list(run))) for value, run in groupby(row.tolist())]
        found.update(length for value, length in runs[1:-1] if value)
    return found


def test_bursts_are_never_shorter_than_those_of_independent_frames() -> None:
    keys, lengths = utterance_keys(names(60)), np.full(60, 1_000)
    pattern = LostBursts((0.9,) * 3, 1.0)
    counts = bursts(pattern.lost(keys, lengths, 0, 0, 0))
    assert sum(k * n for k, n in counts.items()) / counts.total() == pytest.approx(10, rel=0.05)
    assert (pattern.lost(keys, lengths, 0, 0, 0) == LostFrames((0.9,) * 3).lost(keys, lengths, 0, 0, 0)).all()


def test_noise_has_the_scale_of_the_training_frames() -> None:
    random = np.random.default_rng(0)
    scales = np.array([0.1, 1.0, 30.0])
    utterances = [tuple(random.standard_normal((60, 3)) * scales + 5 for _ in range(3)) for _ in range(50)]
    for utterance in utterances:
        utterance[0][:, 1] = 7.0  # does not vary
    corpus = corpus_of([(a, v, t) for a, v, t in utterances])
    spreads = [train_moments(frames, np.arange(50)).spread() for frames in corpus.frames]
    expected = np.concatenate([utterance[0] for utterance in utterances]).astype(np.float32).std(axis=0)
    np.testing.assert_allclose(spreads[0], expected, rtol=1e-4)
    clean, noisy = (
        UtteranceDataset(corpus, torch.zeros(50), ["none"] * 3, [None] * 3, pattern=pattern, spreads=spreads)[
            Request(np.arange(50), 0)
        ]
        for pattern in (None, NoisyFrames((0.5, 2.0, 0.0)))
    )
    assert noisy.shown is not None and clean.shown is None
    noise = [(noisy.shown[m] - clean.frames[m]).double().flatten(0, 1) for m in range(3)]
    np.testing.assert_allclose(noise[0].std(dim=0), 0.5 * expected, rtol=0.04)
    assert not noise[0][:, 1].any() and not noise[2].any()
    np.testing.assert_allclose(noise[1].std(dim=0), 2 * scales, rtol=0.04)
    assert abs(float(np.corrcoef(noise[0][:, 0], noise[0][:, 2])[0, 1])) < 0.05
    assert abs(float(np.corrcoef(noise[1][:-1, 0], noise[1][1:, 0])[0, 1])) < 0.05


def test_a_share_of_missing_modalities_is_that_share_and_one_stays() -> None:
    keys = utterance_keys(names(20_000))
    for share in (0.0, 0.1, 0.3, 0.6, 0.7):
        shown = MissingShare(share)(keys, 0, 0)
        assert shown.any(axis=1).all()
        assert (~shown).mean() == pytest.approx(min(share, 2 / 3), abs=0.005)
        np.testing.assert_allclose(shown.mean(axis=0), shown.mean(), atol=0.01)
    assert mask_sampler("share:0.3") == MissingShare(0.3)


# What a batch shows.


def dataset(pattern: FramePattern | None, how: Normalization = "train", **options: Any) -> UtteranceDataset:
    utterances = random_utterances(12, seed=4, longest=30, partial=True)
    spreads = [torch.linspace(0.5, 1, D) for D in DIMS]
    corpus = corpus_of(utterances)
    return UtteranceDataset(
        corpus, torch.zeros(12), [how] * 3, STATISTICS, seed=5, pattern=pattern, spreads=spreads, **options
    )


REQUEST = Request(np.array([7, 0, 11, 3, 5, 6]), 2)


@pytest.mark.parametrize("how", ["none", "train", "utterance"])
@pytest.mark.parametrize("pattern", ALL, ids=str)
def test_rows_see_the_pattern_and_targets_are_whole(pattern: FramePattern, how: Normalization) -> None:
    plain, ours = (dataset(each, how)[REQUEST] for each in (None, pattern))
    assert ours.shown is not None
    for modality in range(3):
        assert torch.equal(ours.frames[modality], plain.frames[modality])
        lengths = ours.lengths[:, modality]
        padding = torch.arange(ours.frames[modality].shape[1]) >= lengths[:, None]
        assert not ours.shown[modality][padding].any()  # absent ones have nothing else
        seen, whole = visible(ours, modality), visible(ours.unmasked(), modality)
        assert torch.equal(seen.lengths, whole.lengths)
        there = lengths > 0
        assert torch.equal(whole.frames, plain.frames[modality][there])
        assert torch.equal(seen.frames, ours.shown[modality][there])
        assert not torch.equal(seen.frames, whole.frames)
        if isinstance(pattern, LostFrames):
            lost = (seen.frames != whole.frames).any(dim=2)
            keys = utterance_keys([ours.utterances[row] for row in there.nonzero()[:, 0]])
            expected = pattern.lost(keys, lengths[there].numpy(), modality, 5, 2)
            zero = (whole.frames == 0).all(dim=2).numpy()  # those of one frame, by utterance
            assert (lost.numpy() | zero)[expected].all() and not lost.numpy()[~expected].any()
            assert not seen.frames[lost].any()


@pytest.mark.parametrize("how", ["none", "train", "utterance"])
@pytest.mark.parametrize("pattern", ALL, ids=str)
def test_noise_comes_before_normalisation_and_lost_frames_after_it(pattern: FramePattern, how: Normalization) -> None:
    raw, ours = dataset(None, "none")[REQUEST], dataset(pattern, how)[REQUEST]
    assert ours.shown is not None
    for modality in range(3):
        lengths = raw.lengths[:, modality].numpy()
        keys = utterance_keys(raw.utterances)
        spread = torch.linspace(0.5, 1, DIMS[modality])
        for row, T in enumerate(lengths):
            frames = raw.frames[modality][row, :T].double()
            if isinstance(pattern, NoisyFrames):
                zero = torch.zeros_like(raw.frames[modality])
                frames += pattern.apply(zero, lengths, keys, modality, 5, 2, spread)[row, :T]
            if how == "train":
                frames = (frames - STATISTICS[modality].mean) / STATISTICS[modality].std
            elif how == "utterance" and T:
                std = frames.std(dim=0, correction=0)
                frames = (frames - frames.mean(dim=0)) / std.masked_fill(std == 0, 1)
            if isinstance(pattern, LostFrames):
                frames[torch.from_numpy(pattern.lost(keys, lengths, modality, 5, 2)[row, :T])] = 0
            np.testing.assert_allclose(ours.shown[modality][row, :T], frames, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("how", ["none", "train", "utterance"])
@pytest.mark.parametrize("pattern", ALL, ids=str)
def test_a_batch_of_what_the_mask_shows_and_of_pooled_steps(pattern: FramePattern, how: Normalization) -> None:
    whole, stored, pooled = (
        dataset(pattern, how, mask=UniformConditions(), **options)[REQUEST]
        for options in ({}, {"hidden_frames": False}, {"steps": 4})
    )
    assert stored.shown is None and pooled.shown is not None and whole.shown is not None
    for modality in range(3):
        ours, theirs = visible(stored, modality), visible(whole, modality)
        assert torch.equal(ours.frames, theirs.frames) and torch.equal(ours.rows, theirs.rows)
        expected = pool_steps(whole.shown[modality], whole.lengths[:, modality], 4)
        assert torch.equal(pooled.shown[modality], expected)
        assert pooled.frames[modality].shape == expected.shape


@pytest.mark.parametrize("steps", [None, 4])
@pytest.mark.parametrize("how", ["none", "train", "utterance"])
def test_a_rate_of_zero_is_no_pattern_to_the_bit(how: Normalization, steps: int | None) -> None:
    plain = dataset(None, how, steps=steps)[REQUEST]
    for kind in (LostFrames, LostBursts, NoisyFrames):
        assert frame_pattern(f"{kind.name}:0") is None
        ours = dataset(kind((0.0, 0.5, 0.0)), how, steps=steps)[REQUEST]
        assert ours.shown is not None
        for modality in (0, 2):
            assert torch.equal(ours.shown[modality], plain.frames[modality])
        assert dataset(kind((0.0,) * 3), how, steps=steps)[REQUEST].shown is None


def test_conditions_read_the_same_pattern_and_it_travels_with_the_batch() -> None:
    batch = dataset(ALL[0])[REQUEST]
    rows, _ = under_conditions(batch, CONDITIONS)
    assert rows.shown is batch.shown and batch.shown is not None
    moved = batch.to("cpu", torch.float64)
    assert moved.shown is not None and all(each.dtype == torch.float64 for each in moved.shown)
    assert torch.equal(moved.shown[0].float(), batch.shown[0])


# Through the datamodule.


def seen_of(batches: list[Batch]) -> dict[str, torch.Tensor]:
    """Audio as rows see it, by utterance."""
    found = {}
    for batch in batches:
        for position, name in enumerate(batch.utterances):
            found[name] = (batch.shown or batch.frames)[0][position, : batch.lengths[position, 0]]
    return found


@pytest.mark.parametrize("permanent", [False, True])
def test_the_datamodule_draws_training_anew_and_evaluation_once(permanent: bool) -> None:
    epochs: list[dict[str, torch.Tensor]] = []
    for workers, size in ((0, 16), (2, 9)):
        data = Synthetic(
            utterances_per_speaker=6,
            seed=3,
            batch_size=size,
            workers=workers,
            train_mask="avt",
            train_pattern="frames:0.5",
            eval_pattern="noise:0.5",
            permanent_mask=permanent,
        )
        data.setup("fit")
        for split in ("train", "val"):
            loader: Any = getattr(data, f"{split}_dataloader")()
            for epoch in (0, 1):
                loader.sampler.set_epoch(epoch)
                epochs.append(seen_of([*loader]))
    first, second, val, later, *helped = epochs
    assert len(first) == 48 and len(val) == 6

    def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
        return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)

    assert same(first, second) is permanent
    assert same(val, later)
    assert all(same(ours, theirs) for ours, theirs in zip(helped, (first, second, val, later), strict=True))
    plain = Synthetic(utterances_per_speaker=6)
    plain.setup("fit")
    assert not same(val, seen_of([*plain.val_dataloader()]))
    assert same(seen_of([*plain.in_order("val", frame_pattern("noise:0.5"))]), val) is False  # another seed
    data.seed = 0
    assert same(seen_of([*plain.in_order("val", frame_pattern("noise:0.5"))]), seen_of([*data.val_dataloader()]))
    assert same(seen_of([*data.in_order("val")]), seen_of([*plain.in_order("val")]))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("frames", "give frames:RATE, bursts:RATE"),
        ("frame:0.3", "give frames:RATE"),
        ("frames:0.3,0.5", "give frames:RATE"),
        ("frames:0.3:5", "give frames:RATE"),
        ("frames:x", "give frames:RATE"),
        ("frames:1.5", "rate 1.5 of audio: it must be from 0 to 1"),
        ("frames:0,nan,0", "rate nan of visual"),
        ("bursts:0.3:0.5", "mean length 0.5: it must be from 1"),
        ("bursts:0.3:inf", "mean length inf"),
        ("noise:-1", "standard deviation -1 of audio: it must be from 0 to 1000"),
    ],
)
def test_a_wrong_pattern_is_one_line(text: str, expected: str) -> None:
    with pytest.raises(InputError) as caught:
        frame_pattern(text, "--data.train_pattern")
    assert str(caught.value).startswith(f"--data.train_pattern {text!r}: ")
    assert expected in str(caught.value) and "\n" not in str(caught.value)


def test_patterns_are_written_as_they_are_given() -> None:
    for text in ("frames:0.3", "noise:0.5,1,2", "bursts:0.3:5"):
        assert str(frame_pattern(text)) == text
    assert str(frame_pattern("bursts:0.3")) == "bursts:0.3:10"
