"""The rule of the state dict: each way to leave out what answers need is named in one line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from datamodules.batches.batch import Batch
from tests.ifmmin.models import Small
from tests.ifmmin.testing.test_rules import wrong


class Offset(Small):
    """Adds a random row to its answers."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.drawn: Tensor
        self.register_buffer("drawn", torch.randn(self.task.outputs))

    def forward(self, batch: Batch) -> Tensor:
        return super().forward(batch) + self.drawn


class NotPersistent(Offset):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        drawn = self.drawn
        del self.drawn
        self.register_buffer("drawn", drawn, persistent=False)


class NoBuffer(Small):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.drawn = torch.randn(self.task.outputs)

    def forward(self, batch: Batch) -> Tensor:
        return super().forward(batch) + self.drawn


class CountsSteps(Small):
    """Training changes its answers by a number that is not saved."""

    steps = 0

    def forward(self, batch: Batch) -> Tensor:
        return super().forward(batch) + 0.1 * self.steps

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        self.steps += self.training
        return super().losses(batch)


class LossNeedsMore(Offset):
    """Its answers are saved; the target of a loss is not."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.target = torch.randn(self.task.outputs).double()

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        return {**super().losses(batch), "other": (self(batch) - self.target).square().mean()}


class HalvesOnLoading(Small):
    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        halved = {name: value / 2 for name, value in state_dict.items()}
        return super().load_state_dict(halved, strict, assign)


class SavesNoTensor(Small):
    def get_extra_state(self) -> dict[str, int]:
        return {"steps": 3}

    def set_extra_state(self, state: dict[str, int]) -> None:
        pass


class SavesTwice(Small):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.again = nn.ModuleList([self.readers["a"]])


class SavesAPart(Offset):
    """One buffer is a view of another."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.register_buffer("part", self.drawn[2:])


class GrowsWhileItTrains(Small):
    def losses(self, batch: Batch) -> dict[str, Tensor]:
        if self.training:
            self.register_buffer("seen", batch.labels.double())
        return super().losses(batch)


MISTAKES = [
    (NotPersistent, "a model that loads its state dict gives other answers: a buffer they need is not persistent"),
    (NoBuffer, "a model that loads its state dict gives other answers: a buffer they need is not persistent"),
    (CountsSteps, "a model that loads its state dict gives other answers: "),
    (LossNeedsMore, "a model that loads its state dict gives other losses: "),
    (HalvesOnLoading, "to load its own state dict changes its answers: let no hook change what is saved or loaded"),
    (SavesNoTensor, "entry _extra_state of its state dict is no tensor (dict): register a buffer"),
    (SavesTwice, "entries readers.a.weight and again.0.weight of its state dict share memory: register it once"),
    (SavesAPart, "entries drawn and part of its state dict share memory: "),
    (
        GrowsWhileItTrains,
        "it cannot load another's state dict (Error(s) in loading state_dict for Grows",
    ),
]


@pytest.mark.parametrize(("model", "expected"), MISTAKES)
def test_a_mistake_is_one_line_of_this_rule(model: type[Small], expected: str) -> None:
    (verdict,) = wrong(model)
    (failure,) = verdict.failures
    assert verdict.rule.name == "state dict"
    assert str(failure).startswith(expected)
    assert failure.remedy and str(failure).isprintable()


def test_a_saved_buffer_is_enough() -> None:
    assert not wrong(Offset)
