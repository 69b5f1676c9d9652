"""A model on trial: random utterances, the batches that they make, and how answers are compared."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from datamodules.batches.batch import Batch
from datamodules.batches.pooling import pool_steps
from datamodules.conditions import CONDITION_TABLE, CONDITIONS, MODALITIES, per_modality
from ifmmin.base import MissingModalityModule
from ifmmin.checkpoints.parts import split_parts
from ifmmin.pretraining.stage2 import Stage2Module
from ifmmin.tasks import Regression

WIDTHS = (5, 6, 7)
CLASSES = ["angry", "happy", "neutral", "sad"]
SIZE = 8
CHAINS = 2
"""Of a model that reads turns: the utterances are turns of so many chains, alternating."""
TOLERANCE = 1e-8
"""Difference that rounding in float64 may make, relative to the largest output."""

Sequences = list[tuple[Tensor, Tensor, Tensor]]


class Failure(NamedTuple):
    """What breaks a rule, in one line.

    Attributes:
        found: what the model does.
        remedy: what to do about it.
    """

    found: str
    remedy: str

    def __str__(self) -> str:
        """Both, as one sentence without its stop."""
        return f"{self.found}: {self.remedy}"


class Trial:
    """A model on trial, with random utterances and the conditions that it answers.

    Args:
        owner: the class.
        seed: of weights and utterances.
        options: of the model.
    """

    def __init__(self, owner: type[MissingModalityModule], seed: int, options: dict[str, Any]) -> None:
        self.owner, self.seed, self.options = owner, seed, options
        torch.manual_seed(seed)
        self.model = self.made().double().eval()
        self.conditions = [condition for condition in CONDITIONS if self.model.answers(condition)]
        self.sequences = self.random(SIZE)
        chosen = torch.randperm(SIZE) % len(self.conditions)  # each of them
        self.present = torch.stack([CONDITION_TABLE[CONDITIONS.index(self.conditions[i])] for i in chosen])
        place = torch.arange(SIZE) // CHAINS
        self.turn = torch.stack([torch.arange(SIZE) % CHAINS, place, (1 + place % 2) * (place > 0)], dim=1)

    def made(self, stage1: bool = True) -> MissingModalityModule:
        """Make a model in float32; a stage-2 model with an untrained stage 1, if ``stage1``."""
        classes = "classification" in self.owner.tasks
        given = {"class_names": CLASSES} if classes else {"task": Regression().spec()}
        model = self.owner(**{"feature_dims": list(WIDTHS), **given, **self.options})
        if stage1 and isinstance(model, Stage2Module):
            model.load_stage1(split_parts(model.stage1_module().state_dict()))
        return model

    def seeded(self, seed: int, stage1: bool = True) -> MissingModalityModule:
        """Make a model in float64 and eval mode, whatever generator its weights are drawn by."""
        random.seed(seed)
        np.random.seed(seed)  # the global generator is what a plug-in may draw by
        torch.manual_seed(seed)
        return self.made(stage1).double().eval()

    @staticmethod
    def random(size: int, longest: int = 9) -> Sequences:
        """Utterances of 1 to ``longest`` frames in each modality."""
        lengths = torch.randint(1, longest + 1, (size, len(MODALITIES))).tolist()
        return [per_modality(torch.randn(T, D).double() for T, D in zip(row, WIDTHS, strict=True)) for row in lengths]

    def with_absent_changed(self) -> Sequences:
        """The sequences of the trial, NaN of another length where a modality is absent."""
        changed: Sequences = []
        for utterance, other, row in zip(self.sequences, self.random(SIZE, longest=20), self.present, strict=True):
            parts = zip(utterance, other, row.tolist(), strict=True)
            changed.append(
                per_modality(own if seen else torch.full_like(foreign, torch.nan) for own, foreign, seen in parts)
            )
        return changed

    def batch(self, sequences: Sequences, present: Tensor, padding: int = 0, turn: Tensor | None = None) -> Batch:
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
            turn=turn,
        )

    def whole(self, sequences: Sequences | None = None, present: Tensor | None = None, padding: int = 0) -> Batch:
        """A batch of all utterances of the trial, with their turns for a model that reads them."""
        turn = self.turn if self.model.needs.turns else None
        return self.batch(sequences or self.sequences, self.present if present is None else present, padding, turn)

    @torch.no_grad()
    def answers(self, batch: Batch) -> Tensor:
        """Outputs [B, O]."""
        outputs: Tensor = self.model(batch)
        return outputs


def subset(batch: Batch, rows: Tensor) -> Batch:
    """The batch of some utterances [n], in this order, of one that has a row per utterance."""
    return replace(
        batch,
        frames=per_modality(frames[rows] for frames in batch.frames),
        lengths=batch.lengths[rows],
        index=batch.index[rows],
        labels=batch.labels[rows],
        utterances=[batch.utterances[row] for row in rows.tolist()],
        row=torch.arange(len(rows)),
        present=batch.present[rows],
        turn=None if batch.turn is None else batch.turn[rows],
    )


def difference(ours: Tensor, theirs: Tensor) -> float:
    """Largest difference, 0 where rounding explains it, NaN of other shapes or where ours are not finite."""
    if ours.shape != theirs.shape or not bool(ours.isfinite().all()):
        return float("nan")
    if not ours.numel():  # a model that answers none of these rows
        return 0.0
    worst = float((ours - theirs).abs().max())
    return worst if worst > TOLERANCE * max(1.0, float(theirs.abs().max())) else 0.0
