from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from datamodules.conditions import CONDITIONS, MODALITIES, present_under
from ifmmin.inference import Features, Predictor, batching
from ifmmin.inference.batching import by_length
from tests.batches import DIMS, random_utterances
from tests.ifmmin.inference.test_predictor import small
from tests.ifmmin.models import MODELS, build_narrow

TOLERANCE = 1e-5
"""Of probabilities in float32: a CPU's matrix products may sum in another order for four rows than for one."""


def mixed(predictor: Predictor, count: int) -> list[dict[str, Any]]:
    """Utterances of random lengths, under the conditions that the model answers in turn."""
    known = [condition for condition in CONDITIONS if predictor.model.answers(condition)]
    found = []
    for position, frames in enumerate(random_utterances(count, seed=3, longest=30)):
        present = present_under(known[position % len(known)])
        found.append({name: part for name, part, there in zip(MODALITIES, frames, present, strict=True) if there})
    return found


@pytest.mark.parametrize("name", sorted(MODELS))
def test_the_answers_are_those_of_one_by_one(name: str) -> None:
    predictor = Predictor(build_narrow(name).float())
    utterances = mixed(predictor, 11)
    answers = predictor.predict_many(utterances, batch_size=4)
    for features, answer in zip(utterances, answers, strict=True):
        alone = predictor.predict(features)
        assert answer == pytest.approx(alone, abs=TOLERANCE)
        assert (answer.frames, answer.lost) == (alone.frames, alone.lost)


def test_any_number_in_any_order() -> None:
    predictor = small()
    alone = [predictor.predict(features) for features in mixed(predictor, 50)]
    for batch_size in (1, 3, 64):
        answers = predictor.predict_many(iter(mixed(predictor, 50)), batch_size)
        assert all(ours == pytest.approx(theirs, abs=TOLERANCE) for ours, theirs in zip(answers, alone, strict=True))
    assert predictor.predict_many([]) == []


def test_a_generator_is_read_as_it_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    predictor, taken, seen = small(), 0, []

    def utterances() -> Iterator[Features]:
        nonlocal taken
        for features in mixed(predictor, 100):
            taken += 1
            yield features

    forward = predictor.model.forward
    monkeypatch.setattr(predictor.model, "forward", lambda batch: seen.append((taken, len(batch))) or forward(batch))  # type: ignore[func-returns-value]
    assert len(predictor.predict_many(utterances(), batch_size=2)) == 100
    assert seen[0] == (32, 2)
    assert sum(rows for _, rows in seen) == 100


def padding_of(lengths: np.ndarray[Any, Any], batches: list[list[int]]) -> int:
    """Padded frames that are computed of what is present, counted naively."""
    wasted = 0
    for batch in batches:
        for modality in range(3):
            longest = max(lengths[position, modality] for position in batch)
            wasted += sum(longest - T for T in lengths[batch, modality] if T)
    return wasted


def test_batches_are_of_similar_length() -> None:
    rng = np.random.default_rng(0)
    seconds = rng.lognormal(1.0, 0.7, 200)
    lengths = np.ceil(seconds[:, None] * [10, 10, 3]).astype(int) * np.array(
        [present_under(CONDITIONS[c]) for c in rng.integers(7, size=200)]
    )
    batches = list(by_length(lengths.tolist(), DIMS, 16))
    assert sorted(position for batch in batches for position in batch) == list(range(200))
    assert max(map(len, batches)) == 16
    as_given = [list(range(start, min(start + 16, 200))) for start in range(0, 200, 16)]
    assert padding_of(lengths, batches) < padding_of(lengths, as_given) / 5


def test_what_is_long_is_in_a_smaller_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "MOST_VALUES", 100)
    batches = list(by_length([[50, 0, 0], [2, 0, 0], [3, 0, 0], [400, 0, 0]], (1, 1, 1), 64))
    assert batches == [[1, 2], [0], [3]]


def test_a_batch_is_padded_with_zeros() -> None:
    """The masks of a model are tested elsewhere: here that what it gets is right."""
    predictor = small()
    utterances = mixed(predictor, 9)
    read = [predictor._read(features) for features in utterances]
    batch = predictor._batch(read)
    for row, features in enumerate(utterances):
        for modality, name in enumerate(MODALITIES):
            frames = features.get(name, np.zeros((0, DIMS[modality])))
            assert int(batch.lengths[row, modality]) == len(frames)
            assert bool(batch.present[row, modality]) == (name in features)
            wanted = torch.zeros(batch.frames[modality].shape[1:])
            wanted[: len(frames)] = torch.tensor(frames, dtype=torch.float32)
            assert torch.equal(batch.frames[modality][row], wanted)


def test_each_is_calibrated_at_the_temperature_of_its_condition() -> None:
    predictor = small()
    predictor.model.temperatures = {condition: 0.5 + place for place, condition in enumerate(CONDITIONS)}
    utterances = mixed(predictor, 20)
    answers = predictor.predict_many(utterances, batch_size=8, calibrated=True, abstain_below=0.4)
    alone = [predictor.predict(features, calibrated=True, abstain_below=0.4) for features in utterances]
    assert all(ours == pytest.approx(theirs, abs=TOLERANCE) for ours, theirs in zip(answers, alone, strict=True))
    assert [answer.abstained for answer in answers] == [answer.abstained for answer in alone]
    assert {answer.abstained for answer in answers} == {True, False}
