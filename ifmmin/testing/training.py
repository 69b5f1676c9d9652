"""What training needs: finite losses, a gradient for every parameter, and nothing from what does not exist."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from datamodules.batches.batch import Batch
from datamodules.conditions import COMPLETE, CONDITION_TABLE, CONDITIONS, MISSING_CONDITIONS, MODALITIES, per_modality
from ifmmin.base import MissingModalityModule
from ifmmin.testing.trial import SIZE, Failure, Trial, difference


def gradients(trial: Trial) -> list[Failure]:
    """Whether losses and gradients are finite and reach every parameter, under each mask."""
    masks: dict[str, Tensor] = {"masks at random": trial.present}
    for condition in trial.conditions:
        if condition in MISSING_CONDITIONS:
            shown = CONDITION_TABLE[CONDITIONS.index(condition)]
            masks[f"only {condition} present"] = shown.expand(SIZE, -1)
    for name, present in masks.items():
        if wrong := _gradients_under(trial.model, trial.whole(present=present), name):
            return [wrong]
    return []


def gaps(trial: Trial) -> list[Failure]:
    """Whether what utterances lack for good is no input and no target, and leaves gradients finite."""
    for name, available in _gap_patterns().items():
        trial.model.eval()
        shown = trial.present & available
        present = shown.where(shown.any(dim=1, keepdim=True), available)
        lacking = _without(trial.whole(present=present), available)
        answered = torch.tensor([_condition(row) in trial.conditions for row in present])
        hidden, lost = trial.answers(trial.whole(present=present)), trial.answers(lacking)
        if worst := difference(lost[answered], hidden[answered]):
            found = f"with {name}, its answers change by {worst:.2g} if what is hidden does not exist"
            return [Failure(found, "let forward read batch.present, not batch.available or batch.lengths")]
        if wrong := _gradients_under(trial.model, lacking, name):
            return [wrong]
        found_losses = _losses_of(trial.model, lacking)
        for padding in (0, 4):
            whole = trial.whole(present=present, padding=padding)
            odd = _losses_of(trial.model, _without(whole, available, torch.nan))
            if len(odd) != len(found_losses) or difference(odd, found_losses):
                found = f"with {name}, its losses or gradients change with what does not exist"
                return [Failure(found, "where batch.available is False there is neither input nor target")]
    return []


def _gap_patterns() -> dict[str, Tensor]:
    """What a corpus with gaps has of the utterances, bool [SIZE, 3], by name."""
    rows = torch.arange(SIZE)
    patterns = {"gaps at random": CONDITION_TABLE[torch.randperm(SIZE) % len(CONDITIONS)]}
    for modality, name in enumerate(MODALITIES):
        without = torch.ones(SIZE, len(MODALITIES), dtype=torch.bool)
        without[:, modality] = False
        patterns[f"no {name} in any utterance"] = without
    patterns["no two modalities in an utterance"] = torch.eye(len(MODALITIES), dtype=torch.bool)[rows % len(MODALITIES)]
    return patterns


def _condition(present: Tensor) -> str:
    """The condition of a row, bool [3]; "" of one that shows nothing."""
    return "".join(letter for letter, shown in zip(COMPLETE, present.tolist(), strict=True) if shown)


def _without(batch: Batch, available: Tensor, value: float = 0.0) -> Batch:
    """``batch`` of a corpus that has what is ``available``, bool [N, 3]; of the rest the frames are ``value``."""
    frames = per_modality(
        stack.masked_fill(~available[:, modality, None, None], value) for modality, stack in enumerate(batch.frames)
    )
    return replace(batch, frames=frames, lengths=batch.lengths * available, present=batch.present & available)


def _losses_of(model: MissingModalityModule, batch: Batch) -> Tensor:
    """Losses and gradients in eval mode, where nothing is random, in one row."""
    model.eval().zero_grad(set_to_none=True)
    losses = model.losses(batch)
    model.total_loss(losses).backward()
    found = [parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None]
    model.zero_grad(set_to_none=True)
    return torch.cat([torch.stack([*losses.values()]).detach(), *found])


def _gradients_under(model: MissingModalityModule, batch: Batch, name: str) -> Failure | None:
    """What is wrong with losses and gradients of a training step, with a mask or gaps of this name."""
    model.train().zero_grad(set_to_none=True)
    try:
        losses = model.losses(batch)
        if not losses:
            return Failure(f"with {name}, losses gives no term", "return the terms of the loss by name")
        for term, value in losses.items():
            if value.shape != () or not bool(value.isfinite()):
                remedy = "take the mean over the rows that have a target, and 0.0 * outputs.sum() where none has"
                return Failure(f"with {name}, loss {term} is no finite scalar", remedy)
        model.total_loss(losses).backward()
        trained = [(name, parameter.grad) for name, parameter in model.named_parameters() if parameter.requires_grad]
        for parameter, gradient in trained:
            if gradient is None:
                found = f"with {name}, parameter {parameter} has no gradient"
                return Failure(found, "several devices would wait for it; add 0.0 times what it makes, or freeze it")
            if not bool(gradient.isfinite().all()):
                found = f"with {name}, parameter {parameter} has a gradient that is not finite"
                return Failure(found, "add a small number below a root, a logarithm or a norm")
        return None
    finally:
        model.eval().zero_grad(set_to_none=True)
