"""How a model is optimised: its recipe, the learning rate over the epochs, and clipping per sub-network."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Any, Literal

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau

from datamodules.errors import InputError
from datamodules.ranges import AT_LEAST_1, BELOW_ONE, NOT_NEGATIVE, POSITIVE, Range, check_options

PAPER_UTTERANCES = 4500
"""Training utterances of a fold of IEMOCAP, about; the papers' epoch counts assume them."""

Decay = Literal["linear", "cosine", "plateau"]


@dataclass(frozen=True)
class Recipe:
    """Optimiser settings of a paper, as class data of a model.

    A model has one ``recipe``, and more in ``recipes`` for corpora that its paper treats differently. Each field but
    the last four is an option of every model, by which a user overrides it.

    Attributes:
        learning_rate: the full rate.
        beta1: of Adam.
        weight_decay: added to the gradient as L2 penalty by ``Adam``, applied to the weights by ``AdamW``.
        batch_size: utterances per optimiser step, over all devices together.
        constant_epochs: epochs at the full rate.
        decay_epochs: epochs of its decay to zero.
        clip_norm: largest gradient norm of each sub-network, not of the whole model.
        optimizer: ``Adam`` or ``AdamW``.
        warmup_epochs: epochs of linear increase from zero, before the constant ones.
        decay: ``linear`` or ``cosine`` over ``decay_epochs``; ``plateau`` multiplies the rate by ``plateau_factor``
            after ``plateau_patience`` epochs without a better validation score, over all epochs.
        plateau_factor: see ``decay``.
        plateau_patience: see ``decay``.
        rates: factors of the learning rate by sub-network, such as ``{"encoders.text": 0.05}``.
        options: defaults of the model's own options that differ between corpora, such as ``{"lambda_img": 2.0}``.

    >>> Recipe(learning_rate=5e-4).with_options(batch_size=64, beta1=None).batch_size
    64
    """

    learning_rate: Annotated[float, POSITIVE] = 2e-4
    beta1: Annotated[float, BELOW_ONE] = 0.9
    weight_decay: Annotated[float, NOT_NEGATIVE] = 0.0
    batch_size: Annotated[int, AT_LEAST_1] = 128
    constant_epochs: Annotated[int, NOT_NEGATIVE] = 20
    decay_epochs: Annotated[int, NOT_NEGATIVE] = 20
    clip_norm: Annotated[float, POSITIVE] = 1.0
    optimizer: Literal["Adam", "AdamW"] = "Adam"
    warmup_epochs: Annotated[int, NOT_NEGATIVE] = 0
    decay: Decay = "linear"
    plateau_factor: Annotated[float, Range(0, 1, above=True, below=True)] = 0.1
    plateau_patience: Annotated[int, NOT_NEGATIVE] = 10
    rates: Mapping[str, float] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def epochs(self) -> int:
        """Epochs of the whole schedule."""
        return self.warmup_epochs + self.constant_epochs + self.decay_epochs

    def with_options(self, **given: Any) -> Recipe:
        """Override fields by values that are not None.

        Raises:
            InputError: a value is out of range.
        """
        recipe = replace(self, **{name: value for name, value in given.items() if value is not None})
        check_options(Recipe, vars(recipe))
        for name, factor in recipe.rates.items():
            if not factor > 0:
                raise InputError(f"rates: {name} {factor}: it must be above 0.")
        if recipe.epochs < 1:
            raise InputError("epochs 0: warmup_epochs, constant_epochs and decay_epochs must add up to at least 1.")
        return recipe

    def scaled(self, scale: float) -> Recipe:
        """Multiply the epochs by ``scale``, each rounded up."""
        names = ("warmup_epochs", "constant_epochs", "decay_epochs")
        return replace(self, **{name: math.ceil(getattr(self, name) * scale) for name in names})

    def plain(self) -> dict[str, Any]:
        """All fields as plain values, for records."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: dict(value) if isinstance(value, Mapping) else value for name, value in values.items()}


def constant_then_linear(constant_epochs: int, decay_epochs: int) -> Callable[[int], float]:
    """Schedule of the published code: the full learning rate for some epochs, then a straight line to zero.

    Args:
        constant_epochs: n, epochs at the full rate.
        decay_epochs: m; epoch n + i (i = 0..m-1) has the factor 1 - (i + 1) / (m + 1), so that zero
            is reached just after the last epoch and none is wasted on it.

    Returns:
        the factor as a function of the epoch, counted from 0.

    >>> [round(constant_then_linear(2, 3)(epoch), 2) for epoch in range(5)]
    [1.0, 1.0, 0.75, 0.5, 0.25]
    """
    return lambda epoch: max(0.0, 1.0 - max(0, epoch + 1 - constant_epochs) / (decay_epochs + 1))


def learning_rate_factor(recipe: Recipe) -> Callable[[int], float]:
    """Learning-rate factor of a recipe as a function of the epoch, counted from 0.

    >>> factor = learning_rate_factor(Recipe(warmup_epochs=1, constant_epochs=1, decay_epochs=3, decay="cosine"))
    >>> [round(factor(epoch), 2) for epoch in range(5)]
    [0.5, 1.0, 0.85, 0.5, 0.15]
    """
    warmup = recipe.warmup_epochs
    linear = constant_then_linear(recipe.constant_epochs, recipe.decay_epochs)

    def factor(epoch: int) -> float:
        if epoch < warmup:
            return (epoch + 1) / (warmup + 1)
        value = linear(epoch - warmup)
        if recipe.decay == "cosine":
            return (1 - math.cos(math.pi * value)) / 2
        return 1.0 if recipe.decay == "plateau" else value

    return factor


def subnetworks(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Trainable parts of a model, by name: its children, and the entries of those that are a ``ModuleDict``.

    The published code has an optimiser and a gradient norm for each of them.
    """
    for name, child in model.named_children():
        parts = child.items() if isinstance(child, nn.ModuleDict) else [("", child)]
        for key, part in parts:
            if any(parameter.requires_grad for parameter in part.parameters()):
                yield f"{name}.{key}".rstrip("."), part


def make_optimizer(model: nn.Module, recipe: Recipe, fused: bool) -> torch.optim.Optimizer:
    """Make the optimiser of a recipe, with a parameter group for each learning rate.

    Args:
        model: its trainable parameters are optimised.
        recipe: ``rates`` names sub-networks of ``model``, see :func:`subnetworks`.
        fused: one kernel for all parameters. Not under float16, where fused Adam unscales gradients inside
            ``step()``, after our clipping.

    Raises:
        InputError: ``rates`` names no sub-network.
    """
    parts = dict(subnetworks(model))
    if unknown := recipe.rates.keys() - parts.keys():
        raise InputError(f"{type(model).__name__}: rates: no sub-network {min(unknown)}; there are {', '.join(parts)}.")
    factor_of = {id(p): factor for name, factor in recipe.rates.items() for p in parts[name].parameters()}
    groups: dict[float, list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            groups.setdefault(factor_of.get(id(parameter), 1.0), []).append(parameter)
    kind = torch.optim.AdamW if recipe.optimizer == "AdamW" else torch.optim.Adam
    return kind(
        [{"params": group, "lr": factor * recipe.learning_rate} for factor, group in groups.items()],
        lr=recipe.learning_rate,
        betas=(recipe.beta1, 0.999),
        weight_decay=recipe.weight_decay,
        fused=fused,
    )


def make_scheduler(
    optimizer: torch.optim.Optimizer, recipe: Recipe, mode: Literal["min", "max"]
) -> LRScheduler | ReduceLROnPlateau:
    """Make the scheduler of a recipe, to be stepped once an epoch; ``mode`` is the direction of the score."""
    if recipe.decay == "plateau":
        return ReduceLROnPlateau(optimizer, mode, factor=recipe.plateau_factor, patience=recipe.plateau_patience)
    return LambdaLR(optimizer, learning_rate_factor(recipe))


def clip_gradients(parts: Iterable[nn.Module], norm: float) -> None:
    """Clip the gradient of each part to ``norm``.

    Raises:
        InputError: ``norm`` is not above 0: 0 would freeze every weight, and below 0 training would climb.
    """
    if not norm > 0:
        raise InputError(f"gradients clipped to {norm}: it must be above 0.")
    for part in parts:
        parameters = [parameter for parameter in part.parameters() if parameter.grad is not None]
        total = nn.utils.get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
        # A factor of 1 changes nothing; on a GPU to ask would wait for it.
        if total.device.type != "cpu" or not float(total) <= norm:
            nn.utils.clip_grads_with_norm_(parameters, norm, total)
