"""The rule of turns: what a model may read of other rows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from baselines.emotion_shift import EmotionShift
from baselines.emotion_shift.model import Carried
from datamodules.batches.batch import Batch
from datamodules.needs import DataNeeds
from ifmmin.testing import check_model
from tests.ifmmin.models import Small, narrow
from tests.ifmmin.testing.test_rules import wrong

Turn = tuple[int, int, int]
"""Chain, place in it, reading."""


class Carries(Small):
    """Adds a tenth of the answers to all earlier turns of a chain, row by row."""

    needs = DataNeeds(turns=True)

    def reads(self, row: int, other: int, turns: list[Turn]) -> bool:
        """Whether a row reads another."""
        (chain, place, reading), (their_chain, their_place, their_reading) = turns[row], turns[other]
        return their_chain == chain and their_reading == reading and their_place < place

    def forward(self, batch: Batch) -> Tensor:
        logits = super().forward(batch)
        if batch.turn is None:
            return logits
        reading = torch.zeros_like(batch.row) if batch.reading is None else batch.reading
        turn, rows = batch.turn[batch.row], range(len(batch))
        turns: list[Turn] = list(zip(turn[:, 0].tolist(), turn[:, 1].tolist(), reading.tolist(), strict=True))
        read = torch.tensor([[float(self.reads(row, other, turns)) for other in rows] for row in rows])
        return logits + 0.1 * read.to(logits) @ logits


class ReadsALaterTurn(Carries):
    def reads(self, row: int, other: int, turns: list[Turn]) -> bool:
        return turns[other] == (turns[row][0], turns[row][1] + 1, turns[row][2])


class TrustsTheOrderOfRows(Carries):
    def reads(self, row: int, other: int, turns: list[Turn]) -> bool:
        return turns[other][0::2] == turns[row][0::2] and other < row


class ReadsOtherSpeakers(Carries):
    def reads(self, row: int, other: int, turns: list[Turn]) -> bool:
        return turns[other][1] < turns[row][1] and turns[other][2] == turns[row][2]


class MixesConditions(Carries):
    def reads(self, row: int, other: int, turns: list[Turn]) -> bool:
        return turns[other][0] == turns[row][0] and turns[other][1] < turns[row][1]


class DoesNotDeclare(Carries):
    needs = DataNeeds()


class NeedsTurns(Carries):
    def forward(self, batch: Batch) -> Tensor:
        assert batch.turn is not None, "no turns"
        return super().forward(batch)


class Backwards(EmotionShift):
    """Carries an emotion from the last turn to the first."""

    def carry(self, batch: Batch) -> Carried:
        turned = None if batch.turn is None else batch.turn * batch.turn.new_tensor([1, -1, 1])
        return super().carry(replace(batch, turn=turned))


AROUND: dict[str, Any] = {"around": "ModalityDropout", "pretraining": narrow("ModalityDropout")}

MISTAKES: list[tuple[type[Small | EmotionShift], dict[str, Any], str, str]] = [
    (ReadsALaterTurn, {}, "turns", "with turns that come later: read the turns before a row alone"),
    (Backwards, AROUND, "turns", "with turns that come later: read the turns before a row alone"),
    (
        TrustsTheOrderOfRows,
        {},
        "turns",
        "with the order of the rows of its chains: read rows in the order of batch",
    ),
    (
        ReadsOtherSpeakers,
        {},
        "turns",
        "with turns of other chains: read rows in the order of batch.turn, within",
    ),
    (
        MixesConditions,
        {},
        "turns",
        "with what is read under other conditions: keep rows of different batch.reading",
    ),
    (
        DoesNotDeclare,
        {},
        "turns",
        "with batch.turn, of which needs says nothing: declare needs = DataNeeds(turns=",
    ),
    (NeedsTurns, {}, "company", "it fails with AssertionError (no turns): see test_turns.py, line "),
]


@pytest.mark.parametrize(("model", "options", "rule", "expected"), MISTAKES)
def test_a_mistake_is_one_line(
    model: type[Small | EmotionShift], options: dict[str, Any], rule: str, expected: str
) -> None:
    (verdict,) = wrong(model, **options)
    (failure,) = verdict.failures
    assert verdict.rule.name == rule
    assert expected in str(failure)
    assert str(failure).isprintable()


@pytest.mark.parametrize("seed", range(3))
def test_right_readers_pass(seed: int) -> None:
    check_model(Carries, seed)
    check_model(EmotionShift, seed, **AROUND)


def test_the_batches_of_a_reader_have_turns() -> None:
    """In every rule but the one of unknown turns, so that an answer with turns is what the rules are about."""
    told: list[bool] = []

    class Notes(Carries):
        def forward(self, batch: Batch) -> Tensor:
            told.append(batch.turn is not None)
            return super().forward(batch)

    check_model(Notes)
    assert told.count(False) == 10  # eight alone, all of them, and in another order
    assert told.count(True) > 30
