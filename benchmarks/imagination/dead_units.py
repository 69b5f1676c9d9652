"""Units that never activate.

Counted are the units of ``nn.ReLU`` and ``nn.LeakyReLU`` modules of the trained parts: the coordinates of what such a
module reads, or its channels if a convolution or a batch norm gave it. A unit is dead if its input is never positive,
on any utterance of the validation split, in ``forward`` under every condition that the model answers and in ``losses``
with each missing one as the mask. Not counted are ReLUs called as functions, modules that are never called, and modules
that read another number of coordinates each time (sequences of another length).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from datamodules.base import EmotionDataModule
from datamodules.batches.batch import Batch
from datamodules.batches.visible import under_conditions
from datamodules.conditions import CONDITION_TABLE, CONDITIONS, MISSING_CONDITIONS
from ifmmin.base import MissingModalityModule

ALL = "all"
"""Name of all parts together."""


@dataclass
class Watch:
    """Which units of some activation modules have been active.

    Attributes:
        active: bool [units], by name of the module; only of modules that were called.
    """

    active: dict[str, Tensor] = field(default_factory=dict)
    _varying: set[str] = field(default_factory=set)
    _channels_first: Tensor | None = None

    @contextmanager
    def over(self, network: nn.Module) -> Iterator[None]:
        """Watch the activations of ``network`` while the block runs."""
        handles = []
        for name, module in network.named_modules():
            if isinstance(module, (nn.ReLU, nn.LeakyReLU)):
                handles.append(module.register_forward_pre_hook(self._activation_hook(name)))
            elif isinstance(module, (_ConvNd, _BatchNorm)):
                handles.append(module.register_forward_hook(self._remember))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
            self._channels_first = None

    def _remember(self, module: nn.Module, given: Any, output: Tensor) -> None:
        self._channels_first = output

    def _activation_hook(self, name: str) -> Any:
        def look(module: nn.Module, given: tuple[Tensor, ...]) -> None:
            values = given[0].detach()
            if given[0] is self._channels_first and values.dim() > 1:
                values = values.movedim(1, -1)
            active = (values > 0).reshape(-1, values.shape[-1]).any(dim=0)
            before = self.active.pop(name, torch.zeros_like(active))
            if name in self._varying or before.shape != active.shape:
                self._varying.add(name)
            else:
                self.active[name] = before | active

        return look


def count_units(model: MissingModalityModule, data: EmotionDataModule) -> dict[str, tuple[int, int]]:
    """Count dead units and units of each trained part, and of :data:`ALL`; {} of a model without countable units."""
    model.eval()
    watch = Watch()
    with watch.over(model):
        for batch in data.in_order("val"):
            _run(model, batch)
    counts: dict[str, tuple[int, int]] = {}
    parts = _part_of_activations(model)
    for name, active in watch.active.items():
        for part in (parts[name], ALL) if name in parts else ():
            dead, units = counts.get(part, (0, 0))
            counts[part] = dead + int((~active).sum()), units + len(active)
    return counts


def _run(model: MissingModalityModule, batch: Batch) -> None:
    """Run ``forward`` under every condition that the model answers, and ``losses`` under every missing one."""
    answered = [condition for condition in CONDITIONS if model.answers(condition)]
    with torch.no_grad():
        rows, _ = under_conditions(batch, answered)
        if len(rows):
            model(rows)
    for condition in answered:
        if condition in MISSING_CONDITIONS:
            shown = CONDITION_TABLE[CONDITIONS.index(condition)]
            allowed = (batch.available | ~shown).all(dim=1, keepdim=True)
            present = torch.where(allowed, shown, batch.available)
            model.losses(replace(batch.unmasked(), present=present))


def _part_of_activations(model: MissingModalityModule) -> dict[str, str]:
    """The trained part of each activation module, by its name; one that is the model's own child is a part itself."""
    parts: dict[str, str] = {}
    names = {id(module): name for name, module in model.named_modules()}
    for part, network in model.subnetworks():
        for module in network.modules():
            parts.setdefault(names[id(module)], part)
    for name, child in model.named_children():
        if not list(child.parameters()):
            for module in child.modules():
                parts.setdefault(names[id(module)], name)
    return parts
