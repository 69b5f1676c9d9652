from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from datamodules.batches.visible import under_conditions
from datamodules.conditions import COMPLETE, CONDITION_TABLE, CONDITIONS, MISSING_CONDITIONS, MODALITIES, present_under
from tests.batches import batch_of, holding, random_batch, random_utterances


def test_conditions_and_their_order() -> None:
    assert MODALITIES == ("audio", "visual", "text")
    table = {
        "a": (True, False, False),
        "v": (False, True, False),
        "t": (False, False, True),
        "av": (True, True, False),
        "at": (True, False, True),
        "vt": (False, True, True),
        "avt": (True, True, True),
    }
    assert tuple(table) == CONDITIONS
    assert (*MISSING_CONDITIONS, COMPLETE) == CONDITIONS
    assert [present_under(condition) for condition in CONDITIONS] == list(table.values())
    assert CONDITION_TABLE.tolist() == [list(row) for row in table.values()]
    assert CONDITION_TABLE.dtype == torch.bool


def test_rows_read_stored_utterances() -> None:
    batch = replace(
        random_batch(4),
        labels=torch.tensor([3, 1, 0, -1]),
        row=torch.tensor([2, 2, 0, 3, 1, 2]),
        present=torch.ones(6, 3, dtype=torch.bool),
    )
    assert len(batch) == 6
    assert batch.label.tolist() == [0, 0, 3, -1, 1, 0]


def test_complete_shows_all_that_is_there_in_one_row_each() -> None:
    stored = batch_of(random_utterances(12, seed=1, partial=True))
    masked = replace(stored, row=torch.tensor([5, 5, 2]), present=torch.zeros(3, 3, dtype=torch.bool))
    complete = masked.unmasked()
    assert complete.row.tolist() == list(range(12))
    assert torch.equal(complete.present, complete.lengths > 0)
    assert torch.equal(complete.available, complete.lengths > 0)
    assert not complete.available.all()
    assert complete.frames is masked.frames


def test_turns_are_kept_under_every_condition() -> None:
    batch = replace(random_batch(3), turn=torch.tensor([[4, 0, 0], [4, 1, 3], [7, 0, 0]]))
    assert batch.unmasked().turn is batch.turn
    assert under_conditions(batch, ["a", "avt"])[0].turn is batch.turn
    assert batch.to("cpu", torch.float32).turn is not None
    assert random_batch(3).to("cpu").turn is None


def test_a_reading_is_a_condition_and_ends_with_the_rows_that_it_numbers() -> None:
    rows, condition = under_conditions(random_batch(3), ["a", "vt"])
    assert rows.reading is not None and torch.equal(rows.reading, condition)
    assert [CONDITIONS[number] for number in rows.reading.tolist()] == ["a", "vt"] * 3
    assert random_batch(3).reading is None
    assert rows.unmasked().reading is None


def test_to_moves_every_tensor() -> None:
    batch = random_batch(3)
    batch = replace(holding(batch, batch.present), turn=torch.tensor([[0, 0, 0], [0, 1, 2], [1, 0, 0]]))
    batch = replace(batch, reading=torch.zeros(3, dtype=torch.int64))
    moved = batch.to("meta")
    assert moved.stored and moved.turn is not None and moved.reading is not None
    tensors = [*moved.frames, *moved.stored, moved.lengths, moved.index, moved.labels, moved.row, moved.present]
    tensors += [moved.turn, moved.reading]
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert moved.utterances == batch.utterances
    assert batch.lengths.device.type == "cpu"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_pinned_batch_is_equal() -> None:
    batch = random_batch(3)
    pinned = batch.pin_memory()
    assert all(frames.is_pinned() for frames in pinned.frames)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(pinned.frames, batch.frames, strict=True))
