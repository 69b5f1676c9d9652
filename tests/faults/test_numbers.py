"""Extreme features, sizes and precisions: every model that is found gives finite numbers, or says why not."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch

from datamodules.batches.batch import Batch
from datamodules.errors import InputError
from ifmmin.base import MissingModalityModule
from ifmmin.finite import FiniteLoss
from ifmmin.nn import attention
from tests.batches import DIMS, batch_of, random_present, random_utterances
from tests.ifmmin.models import MODELS, build_narrow

PRECISIONS: dict[str, tuple[torch.dtype, torch.dtype | None]] = {
    "32-true": (torch.float32, None),
    "64-true": (torch.float64, None),
    "bf16-true": (torch.bfloat16, None),
    "bf16-mixed": (torch.float32, torch.bfloat16),
    "16-mixed": (torch.float32, torch.float16),
}
"""Type of weights and frames, and of autocast."""


@dataclass(frozen=True)
class Numbers:
    """Features that a corpus may have.

    Attributes:
        name: what is special about them.
        size: utterances.
        change: what is made of random frames [T, D].
        frames: of each utterance; None takes random numbers.
        one_class: whether all labels are the same.
        may_overflow: whether float32 is allowed to be too small: then the training stops with one line.
    """

    name: str
    size: int = 6
    change: Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]] = np.asarray
    frames: int | None = None
    one_class: bool = False
    may_overflow: bool = False

    def batch(self, dtype: torch.dtype = torch.float32) -> Batch:
        utterances = random_utterances(self.size, seed=1)
        if self.frames is not None:
            rng = np.random.default_rng(2)
            audio, visual, text = ([rng.standard_normal((self.frames, D)) for _ in utterances] for D in DIMS)
            utterances = list(zip(audio, visual, text, strict=True))
        changed = [(self.change(a), self.change(v), self.change(t)) for a, v, t in utterances]
        batch = batch_of(changed, random_present(self.size), dtype=dtype)
        return replace(batch, labels=torch.zeros_like(batch.labels)) if self.one_class else batch


NUMBERS = [
    Numbers("a batch of one", size=1),
    Numbers("one class", one_class=True),
    Numbers("constant features", change=lambda frames: np.full_like(frames, 3.0)),
    Numbers("zero features", change=np.zeros_like),
    Numbers("identical frames", change=lambda frames: np.repeat(frames[:1], len(frames), axis=0)),
    Numbers(
        "one feature that is constant", change=lambda frames: np.concatenate([frames[:, :-1], frames[:, :1] * 0], 1)
    ),
    Numbers("scale 1e-6", change=lambda frames: 1e-6 * frames),
    Numbers("scale 1e-30", change=lambda frames: 1e-30 * frames),
    Numbers("scale 1e6", change=lambda frames: 1e6 * frames, may_overflow=True),
    Numbers("offset 1e6", change=lambda frames: frames + 1e6, may_overflow=True),
    Numbers("one frame", frames=1),
]

LONG = [Numbers("200 frames", size=2, frames=200), Numbers("5,000 frames", size=2, frames=5000)]


def tried(name: str, numbers: Numbers, precision: str = "32-true") -> None:
    """One training step and one answer; a loss that is not finite must be refused where it may be."""
    dtype, autocast = PRECISIONS[precision]
    model = build_narrow(name).to(dtype)
    batch = numbers.batch(dtype)
    with torch.autocast("cpu", autocast) if autocast else nullcontext():
        total = model.train().total_loss(model.losses(batch))
    try:
        FiniteLoss(name).look(total, batch.utterances, epoch=0)
    except InputError as refused:
        assert numbers.may_overflow, refused
        assert "epoch 1, batch 1 (utterances Ses01F_impro01_F000, " in str(refused)
        assert str(refused).isprintable()
        return
    total.backward()
    for parameter, values in model.named_parameters():
        # An overflow of float16 is left to the trainer's loss scale, which skips the step.
        fits = numbers.may_overflow or precision == "16-mixed"
        assert values.grad is None or values.grad.isfinite().all() or fits, parameter
    with torch.no_grad(), torch.autocast("cpu", autocast) if autocast else nullcontext():
        outputs = answers(model.eval(), batch)
    assert outputs.isfinite().all()


def answers(model: MissingModalityModule, batch: Batch) -> torch.Tensor:
    return model.task.answers(model.evaluate(batch, model.validation_conditions)[0])


@pytest.mark.parametrize("name", sorted(MODELS))
@pytest.mark.parametrize("numbers", [pytest.param(each, id=each.name) for each in NUMBERS])
def test_finite_or_refused(name: str, numbers: Numbers) -> None:
    tried(name, numbers)


@pytest.mark.parametrize("name", sorted(MODELS))
@pytest.mark.parametrize("precision", [precision for precision in PRECISIONS if precision != "32-true"])
def test_every_precision(name: str, precision: str) -> None:
    tried(name, Numbers("random"), precision)


@pytest.mark.parametrize("name", sorted(MODELS))
@pytest.mark.parametrize(
    "numbers",
    [pytest.param(each, id=each.name, marks=[pytest.mark.slow] * (each.frames == 5000)) for each in LONG],
)
def test_long_utterances(name: str, numbers: Numbers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "LONG", 128)
    tried(name, numbers)


# A loss that is not finite is named with its batch.


class OnAnotherDevice(torch.Tensor):
    """A tensor that says it is on a GPU."""

    device = property(lambda self: torch.device("cuda"))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_the_first_bad_batch_is_named_at_once_on_a_cpu(value: float) -> None:
    watch = FiniteLoss("Model")
    watch.look(torch.tensor(1.0), ["a"], epoch=2)
    with pytest.raises(InputError) as refused:
        watch.look(torch.tensor(value), ["b\x1b", *"cdefgh"], epoch=2)
    assert str(refused.value).startswith(
        f"Model: the training loss is {value} in epoch 3, batch 2 (utterances b\\x1b, c, d, e, f and 2 more); lower"
    )


def test_the_first_bad_batch_is_named_at_the_end_of_the_epoch_elsewhere() -> None:
    """A GPU is not waited for in every step; of several bad batches the first is the cause."""
    watch = FiniteLoss("Model")
    for epoch, losses in enumerate([[1.0, 2.0], [1.0, float("nan"), float("inf")]]):
        for position, loss in enumerate(losses):
            watch.look(torch.tensor(loss).as_subclass(OnAnotherDevice), [f"{epoch}-{position}"], epoch)
        if epoch == 0:
            watch.conclude(epoch)
    with pytest.raises(InputError, match=r"is not finite in epoch 2, batch 2 \(utterances 1-1\); lower"):
        watch.conclude(1)
