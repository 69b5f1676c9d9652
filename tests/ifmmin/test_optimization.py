"""Recipes, schedules and clipping against formulas written out."""

from __future__ import annotations

import inspect
import math
from dataclasses import fields

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from datamodules import IEMOCAP, MSPIMPROV
from datamodules.errors import InputError
from ifmmin.base import MissingModalityModule
from ifmmin.discovery import discover_models
from ifmmin.optimization import (
    Recipe,
    clip_gradients,
    learning_rate_factor,
    make_optimizer,
    make_scheduler,
    subnetworks,
)

MODELS = discover_models()


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleDict({"text": nn.Linear(3, 2), "audio": nn.Linear(4, 2)})
        self.head = nn.Linear(2, 1)
        self.frozen = nn.Linear(2, 1).requires_grad_(False)


def test_options_override_and_none_does_not() -> None:
    recipe = Recipe(learning_rate=1.0, beta1=0.5).with_options(learning_rate=0.1, beta1=None, clip_norm=0.5)
    assert (recipe.learning_rate, recipe.beta1, recipe.clip_norm) == (0.1, 0.5, 0.5)
    with pytest.raises(InputError, match="batch_size -1"):
        recipe.with_options(batch_size=-1)
    with pytest.raises(InputError, match=r"clip_norm 0\.0: it must be above 0"):
        recipe.with_options(clip_norm=0.0)
    with pytest.raises(InputError, match="at least 1"):
        recipe.with_options(constant_epochs=0, decay_epochs=0)


@pytest.mark.parametrize("decay", ["linear", "cosine"])
def test_warm_up_then_constant_then_decay(decay: str) -> None:
    factor = learning_rate_factor(Recipe(warmup_epochs=3, constant_epochs=2, decay_epochs=4).with_options(decay=decay))
    falling = [1 - (i + 1) / 5 for i in range(4)]
    expected = [0.25, 0.5, 0.75, 1, 1]
    expected += falling if decay == "linear" else [(1 - math.cos(math.pi * value)) / 2 for value in falling]
    assert [factor(epoch) for epoch in range(9)] == pytest.approx(expected)


def test_a_plateau_lowers_the_rate_in_the_direction_of_the_score() -> None:
    recipe = Recipe(decay="plateau", learning_rate=1.0, plateau_factor=0.5, plateau_patience=1)
    optimizer = make_optimizer(Two(), recipe, fused=False)
    scheduler = make_scheduler(optimizer, recipe, "min")
    assert isinstance(scheduler, ReduceLROnPlateau)
    for error in (3.0, 2.0, 2.5, 2.5, 1.0):
        scheduler.step(error)
    assert optimizer.param_groups[0]["lr"] == 0.5


def test_subnetworks_have_rates_of_their_own() -> None:
    model = Two()
    assert [name for name, _ in subnetworks(model)] == ["parts.text", "parts.audio", "head"]
    recipe = Recipe(learning_rate=1.0, rates={"parts.text": 0.1}, optimizer="AdamW", weight_decay=0.2)
    optimizer = make_optimizer(model, recipe, fused=False)
    assert isinstance(optimizer, torch.optim.AdamW)
    rate_of = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    expected = {id(p): 0.1 for p in model.parts["text"].parameters()}
    expected |= {id(p): 1.0 for part in (model.parts["audio"], model.head) for p in part.parameters()}
    assert rate_of == expected
    with pytest.raises(InputError, match=r"no sub-network parts\.video"):
        make_optimizer(model, Recipe(rates={"parts.video": 2.0}), fused=False)


def test_each_part_is_clipped_by_itself() -> None:
    model = Two()
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 0.01 if parameter.shape[-1] == 2 else 3.0)
    clip_gradients((part for _, part in subnetworks(model)), 0.5)
    norms = {}
    for name, part in subnetworks(model):
        norms[name] = float(torch.cat([p.grad.flatten() for p in part.parameters() if p.grad is not None]).norm())
    assert norms["parts.text"] == pytest.approx(0.5, rel=1e-4)
    assert norms["parts.audio"] == pytest.approx(0.5, rel=1e-4)
    assert norms["head"] < 0.5


@pytest.mark.parametrize("name", sorted(MODELS))
def test_a_model_declares_no_option_of_the_base(name: str) -> None:
    """Each optimiser option is there once, for all models."""
    base = set(inspect.signature(MissingModalityModule.__init__).parameters) - {"self"}
    assert {each.name for each in fields(Recipe)} & base
    for owner in MODELS[name].__mro__:
        if owner is MissingModalityModule:
            break
        if "__init__" in vars(owner):
            assert not base & set(inspect.signature(vars(owner)["__init__"]).parameters), owner


@pytest.mark.parametrize("name", sorted(MODELS))
def test_recipes_name_corpora_that_exist(name: str) -> None:
    known = {IEMOCAP.layout.name, MSPIMPROV.layout.name}
    assert set(MODELS[name].recipes) <= known
    assert all(recipe.options.keys() == MODELS[name].recipe.options.keys() for recipe in MODELS[name].recipes.values())
