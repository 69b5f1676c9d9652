"""What answers may depend on: the rules of ``forward``, and of what a model shows of its inside."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from datamodules.batches.batch import Batch
from datamodules.conditions import MODALITIES
from ifmmin.base import MissingModalityModule
from ifmmin.testing.trial import SIZE, Failure, Trial, difference

THROUGH_VISIBLE = "read frames through visible() alone"


def answers(trial: Trial) -> list[Failure]:
    """Whether answers have their shape and are finite."""
    outputs, wanted = trial.answers(trial.whole()), (SIZE, trial.model.task.outputs)
    if outputs.shape != wanted:
        found = f"forward gives {list(outputs.shape)} for {SIZE} rows, not {list(wanted)}"
        return [Failure(found, "give one row of self.task.outputs values for each row of the batch")]
    if not bool(outputs.isfinite().all()):
        return [Failure("its answers are not finite", "look for attention over nothing, and for a mean over no frame")]
    return []


@torch.no_grad()
def repeats(trial: Trial) -> list[Failure]:
    """Whether a batch is answered alike again, after another one, and by another model of the same seed."""
    batch = trial.whole()
    outputs = trial.answers(batch)
    if not torch.equal(trial.answers(batch), outputs):
        found = "two answers to the same batch differ in eval mode"
        return [Failure(found, "draw nothing in eval mode; dropout takes training=self.training")]
    trial.answers(trial.whole(trial.random(SIZE)))
    if not torch.equal(trial.answers(batch), outputs):
        found = "its answer to a batch is another one after other batches, in eval mode"
        return [Failure(found, "keep nothing between calls of forward")]
    one, other = (trial.seeded(trial.seed)(batch) for _ in range(2))
    if not torch.equal(one, other):
        found = "two models that are made with the same seed answer differently"
        return [Failure(found, "draw weights by torch's own generator, and loop over no set")]
    return []


def padding(trial: Trial) -> list[Failure]:
    """Whether answers ignore padding."""
    outputs = trial.answers(trial.whole())
    if worst := difference(trial.answers(trial.whole(padding=4)), outputs):
        found = f"its answers change by {worst:.2g} with more padding"
        return [Failure(found, "divide by seen.lengths, not by the longest")]
    return []


def company(trial: Trial) -> list[Failure]:
    """Whether an utterance's answer is the same alone, in a batch, and in another order; where turns are unknown."""
    batch = trial.batch(trial.sequences, trial.present)
    outputs, each = trial.answers(batch), []
    for row, one in enumerate(trial.sequences):
        alone = trial.batch([one], trial.present[row : row + 1])
        each.append(trial.answers(replace(alone, labels=batch.labels[row : row + 1])))
    wrong = []
    if worst := difference(torch.cat(each), outputs):
        found = f"its answers in a batch and alone differ by {worst:.2g}"
        remedy = "it reads padding or the rest of the batch; use seen.lengths, and no statistics of the batch"
        wrong.append(Failure(found, remedy))
    turned = trial.batch(trial.sequences[::-1], trial.present.flip(0))
    turned = replace(turned, labels=batch.labels.flip(0))
    if worst := difference(trial.answers(turned).flip(0), outputs):
        found = f"its answers change by {worst:.2g} with the order of the batch"
        wrong.append(Failure(found, "bring values to their rows by seen.spread, and number no rows"))
    return wrong


def absent(trial: Trial) -> list[Failure]:
    """Whether content and length of what is absent cannot be seen."""
    outputs = trial.answers(trial.whole())
    if worst := difference(trial.answers(trial.whole(trial.with_absent_changed())), outputs):
        return [Failure(f"its answers change by {worst:.2g} with what is absent", THROUGH_VISIBLE)]
    return []


def labels(trial: Trial) -> list[Failure]:
    """Whether answers are the same whatever the labels are."""
    batch = trial.whole()
    other = replace(batch, labels=batch.labels.flip(0))
    if worst := difference(trial.answers(other), trial.answers(batch)):
        found = f"its answers change by {worst:.2g} with the labels"
        return [Failure(found, "read batch.label and batch.target in losses alone")]
    return []


def inside(trial: Trial) -> list[Failure]:
    """Whether what a model shows of its inside has its shape, is finite and ignores what is absent."""
    shown = _shown(trial.model, trial.whole())
    again = _shown(trial.model, trial.whole(trial.with_absent_changed()))
    for name, values in shown.items():
        if values.dim() != 3 or values.shape[:2] != (SIZE, len(MODALITIES)):
            found = f"{name} gives {list(values.shape)} for {SIZE} rows, not [{SIZE}, {len(MODALITIES)}, E]"
            return [Failure(found, "give an embedding for each modality of each row")]
        if not bool(values.isfinite().all()):
            return [Failure(f"{name} gives values that are not finite", "give zeros for what is absent")]
        if worst := difference(again[name], values):
            return [Failure(f"{name} changes by {worst:.2g} with what is absent", THROUGH_VISIBLE)]
    return _rows(trial) + (_truth(trial) if "imagined_embeddings" in shown else [])


@torch.no_grad()
def _rows(trial: Trial) -> list[Failure]:
    """Whether further values of rows have their shape, are not infinite and ignore what is absent."""
    given = trial.model.row_values(trial.whole())
    again = trial.model.row_values(trial.whole(trial.with_absent_changed()))
    for name, values in given.items():
        if values.shape != (SIZE,):
            found = f"row_values gives {name} {list(values.shape)} for {SIZE} rows, not [{SIZE}]"
            return [Failure(found, "give one number per row")]
        if bool(values.isinf().any()):
            return [Failure(f"row_values gives {name} that is infinite", "give NaN where it does not apply")]
        if worst := difference(again[name].nan_to_num(), values.nan_to_num()):
            found = f"row_values gives {name} that changes by {worst:.2g} with what is absent"
            return [Failure(found, THROUGH_VISIBLE)]
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


def _truth(trial: Trial) -> list[Failure]:
    """Whether what should have been imagined is the same whatever a row may see, and has no gradient."""
    batch = trial.whole()
    pair, complete = trial.model.imagined_embeddings(batch), trial.model.imagined_embeddings(batch.unmasked())
    assert pair is not None and complete is not None
    imagined, true = pair
    if true.shape != imagined.shape:
        found = f"imagined_embeddings gives {list(imagined.shape)} and {list(true.shape)}, not one shape"
        return [Failure(found, "give what should have been imagined beside what is")]
    if true.requires_grad:
        return [Failure("what imagined_embeddings should imagine has a gradient", "detach it")]
    if worst := difference(true, complete[1]):
        found = f"what imagined_embeddings should imagine changes by {worst:.2g} with the mask"
        return [Failure(found, "make it of batch.unmasked()")]
    return []
