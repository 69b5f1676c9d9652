from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from datamodules.batches.batch import Batch
from datamodules.batches.loading import LengthBatches, Normalization, Request, UtteranceDataset, normalized, padded
from datamodules.batches.masks import UniformConditions, mask_sampler, restrict, utterance_keys
from datamodules.batches.pooling import pool_steps
from datamodules.batches.visible import visible
from datamodules.storage.frames import RaggedFrames
from datamodules.storage.statistics import Statistics
from datamodules.synthetic import Synthetic
from tests.batches import DIMS, random_utterances
from tests.datamodules.corpora import corpus_of, ragged

FloatArray = npt.NDArray[np.float64]

STEPS = 20
STATISTICS = [Statistics(torch.linspace(-1, 1, D), torch.linspace(0.5, 2, D)) for D in DIMS]


def by_train(frames: FloatArray, modality: int) -> FloatArray:
    mean, std = (values.double().numpy() for values in STATISTICS[modality])
    return np.asarray((frames - mean) / std)


def by_utterance(frames: FloatArray, modality: int) -> FloatArray:
    std = frames.std(axis=0) if len(frames) else np.ones(frames.shape[1])
    return np.asarray((frames - frames.mean(axis=0)) / np.where(std == 0, 1, std)) if len(frames) else frames


NAIVE: dict[Normalization, Callable[[FloatArray, int], FloatArray]] = {
    "none": lambda frames, modality: frames,
    "train": by_train,
    "utterance": by_utterance,
}

# One utterance's frames.


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10_000),
    rows=st.lists(st.integers(0, 11), max_size=8),
    how=st.sampled_from(sorted(NAIVE)),
    modality=st.integers(0, 2),
)
def test_padding_and_normalisation_of_each_utterance(
    seed: int, rows: list[int], how: Normalization, modality: int
) -> None:
    sequences = [u[modality].astype(np.float32) for u in random_utterances(12, seed=seed, partial=True)]
    chosen = torch.tensor(rows, dtype=torch.int64)
    gathered, true = padded(ragged([frames.astype(np.float64) for frames in sequences]), chosen)
    ours = normalized(gathered, true, how, STATISTICS[modality])
    longest = max((len(sequences[row]) for row in rows), default=0)
    assert ours.shape == (len(rows), longest, DIMS[modality])
    for position, row in enumerate(rows):
        frames = sequences[row].astype(np.float64)
        assert true[position].tolist() == [t < len(frames) for t in range(longest)]
        np.testing.assert_allclose(ours[position, : len(frames)], NAIVE[how](frames, modality), rtol=1e-4, atol=1e-5)
        assert not ours[position, len(frames) :].any()


def test_padding_of_a_modality_that_is_not_there_at_all() -> None:
    frames = RaggedFrames(torch.empty(0, 0), torch.zeros(4, dtype=torch.int64))
    gathered, true = padded(frames, torch.arange(3))
    assert gathered.shape == (3, 0, 0)
    assert true.shape == (3, 0)


@pytest.mark.parametrize("value", [0.1, 1000.1, -3e6, 1e-12])
def test_a_constant_feature_is_zero_after_normalising_by_utterance(value: float) -> None:
    frames = [np.full((T, 2), value) for T in (1, 3, 7, 50)]
    frames[2][:, 1] = np.arange(7)
    ours = normalized(*padded(ragged(frames), torch.arange(4)), "utterance", None)
    assert not ours[..., 0].any()
    np.testing.assert_allclose(ours[2, :7, 1], (np.arange(7) - 3) / 2, rtol=1e-6)


def test_normalisation_by_training_statistics_needs_them() -> None:
    gathered, true = padded(ragged([np.ones((2, 3))]), torch.arange(1))
    with pytest.raises(ValueError, match="statistics"):
        normalized(gathered, true, "train", None)


def test_the_dataset_gathers_what_is_asked_for() -> None:
    utterances = random_utterances(12, seed=4, partial=True)
    corpus = corpus_of(utterances)
    labels = torch.arange(12) % 4
    dataset = UtteranceDataset(corpus, labels, ("train", "none", "utterance"), STATISTICS)
    rows = np.array([7, 0, 11, 3])
    batch = dataset[Request(rows, 0)]
    assert len(dataset) == 12
    assert batch.index.tolist() == rows.tolist()
    assert batch.labels.tolist() == labels[rows].tolist()
    assert batch.utterances == [f"utterance {row}" for row in rows]
    assert torch.equal(batch.present, batch.available)
    for modality, how in enumerate(dataset.normalization):
        for position, row in enumerate(rows):
            frames = utterances[row][modality].astype(np.float32).astype(np.float64)
            ours = batch.frames[modality][position, : len(frames)]
            np.testing.assert_allclose(ours, NAIVE[how](frames, modality), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("how", sorted(NAIVE))
@pytest.mark.parametrize("complete", [True, False])
def test_a_batch_holds_the_pooled_steps_of_normalised_frames(how: Normalization, complete: bool) -> None:
    utterances = random_utterances(12, seed=4, longest=30, partial=True)
    request = Request(np.array([7, 0, 11, 3, 5, 6]), 1)
    for corpus in (corpus_of(utterances), corpus_of(utterances, np.float16)):
        plain, ours = (
            UtteranceDataset(corpus, torch.zeros(12), [how] * 3, STATISTICS, UniformConditions(), 5, complete, steps)
            for steps in (None, STEPS)
        )
        expected, batch = plain[request], ours[request]
        assert torch.equal(batch.lengths, STEPS * (expected.lengths > 0))
        assert torch.equal(batch.present, expected.present)
        for modality, dim in enumerate(DIMS):
            held = slice(None) if expected.stored is None else expected.stored[modality]
            frames, lengths = expected.frames[modality], expected.lengths[held, modality]
            assert batch.frames[modality].shape == (len(lengths), STEPS, dim)
            theirs = pool_steps(frames, lengths, STEPS)
            torch.testing.assert_close(batch.frames[modality], theirs, rtol=1e-4, atol=1e-5)


def test_the_mask_of_an_utterance_ignores_its_batch() -> None:
    corpus = corpus_of(random_utterances(12))
    dataset = UtteranceDataset(corpus, torch.zeros(12), ["none"] * 3, [None] * 3, UniformConditions(), seed=5)
    expected = UniformConditions()(utterance_keys(corpus.utterances), 5, 3)
    for rows in (np.arange(12), np.array([4]), np.array([11, 4, 0])):
        assert np.array_equal(dataset[Request(rows, 3)].present.numpy(), expected[rows])


@pytest.mark.parametrize("name", ["uniform", "0.4", "0.2,0.5,0.8"])
def test_a_permanent_mask_is_the_same_in_every_epoch_also_where_it_is_drawn_again(name: str) -> None:
    corpus = corpus_of(random_utterances(40, seed=1, partial=True))
    mask, seed = mask_sampler(name), 5
    available, keys = (corpus.lengths > 0).numpy(), utterance_keys(corpus.utterances)
    drawn = mask(keys, seed, 0)
    assert (~(drawn & available).any(axis=1)).any()
    # Of an utterance alone: no other one, no order and no earlier epoch has a say.
    expected = np.stack([restrict(mask(keys[[i]], seed, 0), available[[i]], keys[[i]], seed, 0)[0] for i in range(40)])
    made = [
        UtteranceDataset(corpus, torch.zeros(40), ["none"] * 3, [None] * 3, mask, seed, permanent=permanent)
        for permanent in (True, False)
    ]
    assert np.array_equal(made[1][Request(np.arange(40), 0)].present.numpy(), expected)
    for epoch in (3, 0, 1, 100):
        rows = np.random.default_rng(epoch).permutation(40)[: 20 + epoch % 7]
        shown, anew = (dataset[Request(rows, epoch)].present.numpy() for dataset in made)
        assert np.array_equal(shown, expected[rows])
        assert np.array_equal(anew, shown) == (epoch == 0)
    other = UtteranceDataset(corpus, torch.zeros(40), ["none"] * 3, [None] * 3, mask, seed + 1, permanent=True)
    assert not np.array_equal(other[Request(np.arange(40), 0)].present.numpy(), expected)


@pytest.mark.parametrize("how", sorted(NAIVE))
def test_what_the_mask_hides_is_not_even_read(how: Normalization, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = corpus_of(random_utterances(12, seed=4, partial=True))
    rows = np.array([7, 0, 11, 3, 5, 6])
    whole, shown = (
        UtteranceDataset(corpus, torch.zeros(12), [how] * 3, STATISTICS, UniformConditions(), hidden_frames=complete)
        for complete in (True, False)
    )
    full = whole[Request(rows, 1)]
    read: list[list[int]] = []
    gather = RaggedFrames.gather

    def noted(frames: RaggedFrames, wanted: torch.Tensor, longest: int) -> torch.Tensor:
        read.append(wanted.tolist())
        return gather(frames, wanted, longest)

    monkeypatch.setattr(RaggedFrames, "gather", noted)
    ours = shown[Request(rows, 1)]
    assert read == [rows[column.numpy()].tolist() for column in full.present.unbind(dim=1)]
    assert torch.equal(ours.present, full.present)
    assert torch.equal(ours.lengths, full.lengths)
    for modality in range(3):
        theirs, mine = visible(full, modality), visible(ours, modality)
        for name in ("frames", "lengths", "rows", "slots"):
            assert torch.equal(getattr(mine, name), getattr(theirs, name)), name


def test_what_the_next_batch_reads_is_announced(monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = corpus_of(random_utterances(12, seed=4, partial=True))
    mask, order = UniformConditions(), LengthBatches(np.arange(12), np.arange(12), 4, shuffle=True)
    dataset = UtteranceDataset(corpus, torch.zeros(12), ["none"] * 3, STATISTICS, mask, hidden_frames=False)
    announced: list[list[int]] = []
    monkeypatch.setattr(RaggedFrames, "prefetch", lambda _, rows: announced.append(rows.tolist()))
    batches = [dataset[request] for request in order]
    read = [[batch.index[held].tolist() for held in batch.stored or ()] for batch in batches]
    assert len(batches) == 3
    assert announced == [*read[1], *read[2], [], [], []]


# The order of batches.

orders = {
    "count": st.integers(1, 60),
    "batch_size": st.integers(1, 20),
    "world_size": st.integers(1, 4),
    "seed": st.integers(0, 100),
    "epoch": st.integers(0, 100),
}


def sampler(count: int, batch_size: int, shuffle: bool, seed: int = 0, rank: int = 0, world: int = 1) -> LengthBatches:
    rows = np.arange(count) * 3 + 1
    cost = np.random.default_rng(count).integers(1, 300, count)
    return LengthBatches(rows, cost, batch_size, shuffle, seed, rank, world)


def epoch_of(batches: LengthBatches, epoch: int) -> list[list[int]]:
    batches.set_epoch(epoch)
    requests = list(batches)
    assert len(requests) == len(batches)
    assert all(request.epoch == epoch for request in requests)
    return [request.indices.tolist() for request in requests]


@given(**orders)
def test_training_sees_every_utterance_once_on_any_number_of_devices(
    count: int, batch_size: int, world_size: int, seed: int, epoch: int
) -> None:
    world_size = min(world_size, count)
    ranks = [epoch_of(sampler(count, batch_size, True, seed, rank, world_size), epoch) for rank in range(world_size)]
    seen = [row for batches in ranks for batch in batches for row in batch]
    assert sorted(seen) == [i * 3 + 1 for i in range(count)]
    assert len({len(batches) for batches in ranks}) == 1  # or one device would wait for ever
    shares = [[len(batch) for batch in batches] for batches in ranks]
    assert all(min(share) >= 1 and max(share) - min(share) <= 1 for share in zip(*shares, strict=True))
    whole = [sum(share) for share in zip(*shares, strict=True)]
    assert max(whole) - min(whole) <= 1
    assert max(whole) <= max(batch_size, 2 * world_size - 1)


@given(**orders)
def test_evaluation_sees_every_utterance_once_on_one_device(
    count: int, batch_size: int, world_size: int, seed: int, epoch: int
) -> None:
    ranks = [epoch_of(sampler(count, batch_size, False, seed, rank, world_size), epoch) for rank in range(world_size)]
    seen = [row for batches in ranks for batch in batches for row in batch]
    assert sorted(seen) == [i * 3 + 1 for i in range(count)]
    assert all(1 <= len(batch) <= batch_size for batches in ranks for batch in batches)
    if count >= world_size:
        assert all(ranks)  # a device without a batch would miss what the others do together


@given(**orders)
def test_global_training_batches_do_not_depend_on_the_number_of_devices(
    count: int, batch_size: int, world_size: int, seed: int, epoch: int
) -> None:
    count, batch_size = count + world_size, max(batch_size, 2 * world_size)
    alone = epoch_of(sampler(count, batch_size, True, seed), epoch)
    ranks = [epoch_of(sampler(count, batch_size, True, seed, rank, world_size), epoch) for rank in range(world_size)]
    together = [sorted(row for share in shares for row in share) for shares in zip(*ranks, strict=True)]
    assert together == [sorted(batch) for batch in alone]


@given(**orders)
def test_the_order_is_a_function_of_seed_and_epoch(
    count: int, batch_size: int, world_size: int, seed: int, epoch: int
) -> None:
    fresh = epoch_of(sampler(count, batch_size, True, seed), epoch)
    used = sampler(count, batch_size, True, seed)
    epoch_of(used, epoch + 1)  # what ran before does not matter
    np.random.seed(world_size)
    assert epoch_of(used, epoch) == fresh


def test_seed_and_epoch_change_the_order() -> None:
    orders = [epoch_of(sampler(60, 7, True, seed), epoch) for seed, epoch in ((0, 0), (0, 1), (1, 0), (1, 1))]
    assert all(one != other for i, one in enumerate(orders) for other in orders[:i])


def padding_share(batches: list[npt.NDArray[np.int64]], lengths: npt.NDArray[np.int64]) -> float:
    computed = sum(len(batch) * lengths[batch].max() for batch in batches)
    return 1 - float(lengths.sum() / computed)


@pytest.mark.parametrize("shuffle", [True, False])
def test_similar_lengths_make_less_padding(shuffle: bool) -> None:
    rng = np.random.default_rng(0)
    lengths = np.exp(rng.normal(np.log(40), 0.6, 4000)).astype(np.int64) + 1
    ours = [request.indices for request in LengthBatches(np.arange(4000), lengths, 64, shuffle)]
    random_order = np.array_split(rng.permutation(4000), len(ours))
    assert padding_share(ours, lengths) < 0.6 * padding_share(random_order, lengths)


def test_utterances_meet_other_company_each_epoch() -> None:
    batches = sampler(60, 6, True)
    company = [{frozenset(batch) for batch in epoch_of(batches, epoch)} for epoch in (0, 1)]
    assert len(company[0] & company[1]) <= 1


# Both together, as the datamodule puts them.


def epochs_of(loader: DataLoader[Batch]) -> list[Batch]:
    batches: list[Batch] = []
    for epoch in range(2):
        assert isinstance(loader.sampler, LengthBatches)
        loader.sampler.set_epoch(epoch)
        batches += loader
    return batches


def test_workers_change_nothing() -> None:
    runs = []
    for workers in (0, 2):
        data = Synthetic(utterances_per_speaker=6, batch_size=16, workers=workers, seed=3)
        data.setup("fit")
        runs.append(epochs_of(data.train_dataloader()))
    alone, helped = runs
    assert len(alone) == len(helped) == 2 * 3
    for one, other in zip(alone, helped, strict=True):
        assert one.utterances == other.utterances
        for ours, theirs in zip((*one.frames, one.present), (*other.frames, other.present), strict=True):
            assert torch.equal(ours, theirs)
    masks = [
        {name: shown for batch in batches for name, shown in zip(batch.utterances, batch.present.tolist(), strict=True)}
        for batches in (helped[:3], helped[3:])
    ]
    assert len(masks[0]) == 48
    assert masks[0] != masks[1]  # another epoch, other masks, also in workers that stay alive


@pytest.mark.parametrize("name", ["uniform", "0.2,0.5,0.8"])
def test_a_permanent_mask_through_the_datamodule_and_its_workers(name: str) -> None:
    shown: list[dict[str, list[bool]]] = []
    for workers, size in ((0, 16), (2, 9)):
        masks: dict[str, Any] = {"train_mask": name, "permanent_mask": True}
        data = Synthetic(utterances_per_speaker=6, seed=3, batch_size=size, workers=workers, **masks)
        data.setup("fit")
        batches = epochs_of(data.train_dataloader())
        for epoch in (batches[: len(batches) // 2], batches[len(batches) // 2 :]):
            shown.append(
                {u: p for batch in epoch for u, p in zip(batch.utterances, batch.present.tolist(), strict=True)}
            )
        assert all(bool(batch.present.all()) for batch in data.val_dataloader())
    assert len(shown[0]) == 48 and len({tuple(row) for row in shown[0].values()}) > 3
    assert all(each == shown[0] for each in shown)


def test_evaluation_batches_show_everything() -> None:
    data = Synthetic(utterances_per_speaker=6, eval_batch_size=4)
    data.setup("fit")
    batches = list(data.val_dataloader())
    assert [len(batch) for batch in batches] == [3, 3]
    assert all(bool(batch.present.all()) for batch in batches)
