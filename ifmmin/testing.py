"""Contract tests for authors of models: ``check_model(MyModel)`` in a test of one's own."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from datamodules.batches.batch import Batch
from datamodules.batches.pooling import pool_steps
from datamodules.conditions import COMPLETE, CONDITION_TABLE, CONDITIONS, MISSING_CONDITIONS, MODALITIES, per_modality
from datamodules.errors import InputError
from ifmmin.base import MissingModalityModule
from ifmmin.checkpoints.parts import split_parts
from ifmmin.pretraining.stage2 import Stage2Module
from ifmmin.tasks import Regression

WIDTHS = (5, 6, 7)
CLASSES = ["angry", "happy", "neutral", "sad"]
SIZE = 8
TOLERANCE = 1e-8
"""Difference that rounding in float64 may make, relative to the largest output."""

Sequences = list[tuple[Tensor, Tensor, Tensor]]


def check_model(model: type[MissingModalityModule], seed: int = 0, **options: Any) -> None:
    """Check what every model must keep to, on random utterances in float64.

    - Answers are finite, and do not depend on padding, on the rest of a batch, on its order, or on the content and
      length of what is absent.
    - Losses are finite scalars whose gradient reaches every parameter, whatever is missing.
    - Of a corpus with gaps: what an utterance lacks for good is neither read nor a target, is answered as if it were
      masked, and leaves losses and gradients finite, though a whole batch may lack a modality, or have no complete
      utterance.
    - Options are plain values that a checkpoint gives back.
    - ``modality_embeddings``, ``invariant_features`` and ``imagined_embeddings``, of a model that has them, have their
      shape, are finite, and do not depend on what is absent; so do ``row_values``, which may be NaN.

    Args:
        model: the class.
        seed: of weights and utterances.
        **options: of the model, for instance to make it small.

    Raises:
        InputError: one line for everything that is wrong, naming the model.
    """
    wrong: list[str] = []
    tried = _Tried(model, seed, options)
    for check in (_options, _padding, _company, _absent, _inside, _gradients, _gaps):
        try:
            wrong += check(tried)
        except InputError:
            raise
        except Exception as error:  # somebody else's code may fail in any way
            line = str(error).partition("\n")[0]
            wrong.append(f"it fails in the check of {check.__name__[1:]} ({type(error).__name__}: {line})")
    if wrong:
        raise InputError(f"{model.__name__}: {'; '.join(wrong)}.")


class _Tried:
    """A model on trial, with random utterances and the conditions that it answers."""

    def __init__(self, owner: type[MissingModalityModule], seed: int, options: dict[str, Any]) -> None:
        torch.manual_seed(seed)
        classes = "classification" in owner.tasks
        given = {"class_names": CLASSES} if classes else {"task": Regression().spec()}
        self.owner, self.model = owner, owner(**{"feature_dims": list(WIDTHS), **given, **options})
        if isinstance(self.model, Stage2Module):
            self.model.load_stage1(split_parts(self.model.stage1_module().state_dict()))
        self.model.double().eval()
        self.conditions = [condition for condition in CONDITIONS if self.model.answers(condition)]
        self.sequences = self.random(SIZE)
        chosen = torch.randperm(SIZE) % len(self.conditions)  # each of them
        self.present = torch.stack([CONDITION_TABLE[CONDITIONS.index(self.conditions[i])] for i in chosen])

    @staticmethod
    def random(size: int, longest: int = 9) -> Sequences:
        """Utterances of 1 to ``longest`` frames in each modality."""
        lengths = torch.randint(1, longest + 1, (size, len(MODALITIES))).tolist()
        return [per_modality(torch.randn(T, D).double() for T, D in zip(row, WIDTHS, strict=True)) for row in lengths]

    def batch(self, sequences: Sequences, present: Tensor, padding: int = 0) -> Batch:
        """A batch as a datamodule makes it, one row per utterance, with ``padding`` more zero frames."""
        lengths = torch.tensor([[len(part) for part in utterance] for utterance in sequences])
        steps, stacks = self.model.needs.steps, []
        for modality, width in enumerate(WIDTHS):
            stack = torch.zeros(len(sequences), int(lengths[:, modality].max()) + padding, width).double()
            for row, utterance in enumerate(sequences):
                stack[row, : len(utterance[modality])] = utterance[modality]
            stacks.append(stack if steps is None else pool_steps(stack, lengths[:, modality], steps))
        positions = torch.arange(len(sequences))
        regression = self.model.task.name == Regression.name
        return Batch(
            frames=per_modality(stacks),
            lengths=lengths if steps is None else steps * (lengths > 0),
            index=positions,
            labels=torch.linspace(-3, 3, len(sequences)) if regression else positions % len(CLASSES),
            utterances=[f"utterance{position}" for position in positions.tolist()],
            row=positions,
            present=present,
        )

    @torch.no_grad()
    def answers(self, sequences: Sequences, present: Tensor, padding: int = 0) -> Tensor:
        """Outputs [B, O]."""
        outputs: Tensor = self.model(self.batch(sequences, present, padding))
        return outputs


def _difference(ours: Tensor, theirs: Tensor) -> float:
    """Largest difference, 0 where rounding explains it."""
    if ours.shape != theirs.shape or not bool(ours.isfinite().all()):
        return float("nan")
    if not ours.numel():  # a model that answers none of these rows
        return 0.0
    worst = float((ours - theirs).abs().max())
    return worst if worst > TOLERANCE * max(1.0, float(theirs.abs().max())) else 0.0


def _options(tried: _Tried) -> list[str]:
    """Whether options are plain and survive a checkpoint."""
    given = dict(tried.model.hparams)
    if odd := [name for name, value in given.items() if not _plain(value)]:
        return [f"option {odd[0]} is no plain value ({type(given[odd[0]]).__name__}), so no checkpoint can hold it"]
    file = io.BytesIO()
    torch.save(given, file)
    file.seek(0)
    again = tried.owner(**torch.load(file, weights_only=True)).state_dict()
    before = tried.model.state_dict()
    if {name: value.shape for name, value in again.items()} != {name: value.shape for name, value in before.items()}:
        return ["the options in its checkpoint make a model of other parameters"]
    return []


def _plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and _plain(inner) for key, inner in value.items())
    if isinstance(value, list):
        return all(map(_plain, value))
    return value is None or type(value) in (str, int, float, bool)


def _padding(tried: _Tried) -> list[str]:
    """Whether answers have their shape, are finite, repeat, and ignore padding."""
    outputs, wanted = tried.answers(tried.sequences, tried.present), (SIZE, tried.model.task.outputs)
    if outputs.shape != wanted:
        return [f"forward gives {list(outputs.shape)} for {SIZE} rows, not {list(wanted)}"]
    if not bool(outputs.isfinite().all()):
        return ["its answers are not finite"]
    if not torch.equal(tried.answers(tried.sequences, tried.present), outputs):
        return ["two answers to the same batch differ in eval mode"]
    if worst := _difference(tried.answers(tried.sequences, tried.present, padding=4), outputs):
        return [f"its answers change by {worst:.2g} with more padding: divide by seen.lengths, not by the longest"]
    return []


def _company(tried: _Tried) -> list[str]:
    """Whether an utterance's answer is the same alone, in a batch, and in another order."""
    outputs = tried.answers(tried.sequences, tried.present)
    each = [tried.answers([one], row[None]) for one, row in zip(tried.sequences, tried.present, strict=True)]
    wrong = []
    if worst := _difference(torch.cat(each), outputs):
        wrong.append(
            f"its answers in a batch and alone differ by {worst:.2g}: it reads padding, or the rest of the batch"
        )
    if worst := _difference(tried.answers(tried.sequences[::-1], tried.present.flip(0)).flip(0), outputs):
        wrong.append(f"its answers change by {worst:.2g} with the order of the batch")
    return wrong


def _absent(tried: _Tried) -> list[str]:
    """Whether content and length of what is absent cannot be seen."""
    outputs = tried.answers(tried.sequences, tried.present)
    if worst := _difference(tried.answers(_with_absent_changed(tried), tried.present), outputs):
        return [f"its answers change by {worst:.2g} with what is absent: read frames through visible() alone"]
    return []


def _with_absent_changed(tried: _Tried) -> Sequences:
    """The sequences of the trial, NaN of another length where a modality is absent."""
    changed: Sequences = []
    for utterance, other, row in zip(tried.sequences, tried.random(SIZE, longest=20), tried.present, strict=True):
        parts = zip(utterance, other, row.tolist(), strict=True)
        changed.append(
            per_modality(own if seen else torch.full_like(foreign, torch.nan) for own, foreign, seen in parts)
        )
    return changed


def _inside(tried: _Tried) -> list[str]:
    """Whether what a model shows of its inside has its shape, is finite and ignores what is absent."""
    shown = _shown(tried.model, tried.batch(tried.sequences, tried.present))
    again = _shown(tried.model, tried.batch(_with_absent_changed(tried), tried.present))
    for name, values in shown.items():
        if values.dim() != 3 or values.shape[:2] != (SIZE, len(MODALITIES)):
            return [f"{name} gives {list(values.shape)} for {SIZE} rows, not [{SIZE}, {len(MODALITIES)}, E]"]
        if not bool(values.isfinite().all()):
            return [f"{name} gives values that are not finite"]
        if worst := _difference(again[name], values):
            return [f"{name} changes by {worst:.2g} with what is absent"]
    return _rows(tried) + (_truth(tried) if "imagined_embeddings" in shown else [])


@torch.no_grad()
def _rows(tried: _Tried) -> list[str]:
    """Whether further values of rows have their shape, are not infinite and ignore what is absent."""
    given = tried.model.row_values(tried.batch(tried.sequences, tried.present))
    again = tried.model.row_values(tried.batch(_with_absent_changed(tried), tried.present))
    for name, values in given.items():
        if values.shape != (SIZE,):
            return [f"row_values gives {name} {list(values.shape)} for {SIZE} rows, not [{SIZE}]"]
        if bool(values.isinf().any()):
            return [f"row_values gives {name} that is infinite"]
        if worst := _difference(again[name].nan_to_num(), values.nan_to_num()):
            return [f"row_values gives {name} that changes by {worst:.2g} with what is absent"]
    return []


@torch.no_grad()
def _shown(model: MissingModalityModule, batch: Batch) -> dict[str, Tensor]:
    """What a model shows of its inside, without what it has not."""
    pair = model.imagined_embeddings(batch)
    shown = {
        "modality_embeddings": model.modality_embeddings(batch),
        "invariant_features": model.invariant_features(batch),
        "imagined_embeddings": None if pair is None else pair[0],
    }
    return {name: values for name, values in shown.items() if values is not None}


def _truth(tried: _Tried) -> list[str]:
    """Whether what should have been imagined is the same whatever a row may see, and has no gradient."""
    batch = tried.batch(tried.sequences, tried.present)
    pair, complete = tried.model.imagined_embeddings(batch), tried.model.imagined_embeddings(batch.unmasked())
    assert pair is not None and complete is not None
    imagined, true = pair
    if true.shape != imagined.shape:
        return [f"imagined_embeddings gives {list(imagined.shape)} and {list(true.shape)}, not one shape"]
    if true.requires_grad:
        return ["what imagined_embeddings should imagine has a gradient: detach it"]
    if worst := _difference(true, complete[1]):
        return [f"what imagined_embeddings should imagine changes by {worst:.2g} with the mask"]
    return []


def _gradients(tried: _Tried) -> list[str]:
    """Whether losses and gradients are finite and reach every parameter, under each mask."""
    masks: dict[str, Tensor] = {"masks at random": tried.present}
    for condition in tried.conditions:
        if condition in MISSING_CONDITIONS:
            shown = CONDITION_TABLE[CONDITIONS.index(condition)]
            masks[f"only {condition} present"] = shown.expand(SIZE, -1)
    for name, present in masks.items():
        if wrong := _gradients_under(tried.model, tried.batch(tried.sequences, present)):
            return [f"with {name}, {wrong}"]
    return []


def _gaps(tried: _Tried) -> list[str]:
    """Whether what utterances lack for good is no input and no target, and leaves gradients finite."""
    for name, available in _gap_patterns(tried).items():
        tried.model.eval()
        shown = tried.present & available
        present = shown.where(shown.any(dim=1, keepdim=True), available)
        lacking = _without(tried.batch(tried.sequences, present), available)
        answered = torch.tensor([_condition(row) in tried.conditions for row in present])
        with torch.no_grad():
            hidden, lost = tried.model(tried.batch(tried.sequences, present)), tried.model(lacking)
        if worst := _difference(lost[answered], hidden[answered]):
            return [f"with {name}, its answers change by {worst:.2g} if what is hidden does not exist"]
        if wrong := _gradients_under(tried.model, lacking):
            return [f"with {name}, {wrong}"]
        found = _losses_of(tried.model, lacking)
        for padding in (0, 4):
            whole = tried.batch(tried.sequences, present, padding)
            odd = _losses_of(tried.model, _without(whole, available, torch.nan))
            if len(odd) != len(found) or _difference(odd, found):
                return [
                    f"with {name}, its losses or gradients change with what does not exist: where batch.available is "
                    "False there is neither input nor target"
                ]
    return []


def _gap_patterns(tried: _Tried) -> dict[str, Tensor]:
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
    gradients = [parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None]
    return torch.cat([torch.stack([*losses.values()]).detach(), *gradients])


def _gradients_under(model: MissingModalityModule, batch: Batch) -> str | None:
    model.train().zero_grad(set_to_none=True)
    losses = model.losses(batch)
    if not losses:
        return "losses gives no term"
    for term, value in losses.items():
        if value.shape != () or not bool(value.isfinite()):
            return f"loss {term} is no finite scalar"
    model.total_loss(losses).backward()
    trained = [(name, parameter.grad) for name, parameter in model.named_parameters() if parameter.requires_grad]
    for name, gradient in trained:
        if gradient is None:
            return f"parameter {name} has no gradient: several devices would wait for it"
        if not bool(gradient.isfinite().all()):
            return f"parameter {name} has a gradient that is not finite"
    return None
