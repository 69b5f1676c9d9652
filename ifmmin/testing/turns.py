"""What a model may read of other rows: a speaker's earlier turns if its ``needs`` say so, otherwise nothing."""

from __future__ import annotations

from dataclasses import replace

import torch

from datamodules.batches.visible import under_conditions
from ifmmin.testing.trial import CHAINS, SIZE, Failure, Trial, difference, subset

BY_TURN = "read rows in the order of batch.turn, within a chain and a reading of it"


def turns(trial: Trial) -> list[Failure]:
    """Whether answers depend on no other rows than those of earlier turns, and on those only if declared."""
    return _declared(trial) if trial.model.needs.turns else _undeclared(trial)


def _undeclared(trial: Trial) -> list[Failure]:
    """Whether a model that declares no turns ignores those that a batch tells."""
    batch = trial.whole()
    told = replace(batch, turn=trial.turn, reading=torch.zeros_like(batch.row))
    if worst := difference(trial.answers(told), trial.answers(batch)):
        found = f"its answers change by {worst:.2g} with batch.turn, of which needs says nothing"
        return [Failure(found, "declare needs = DataNeeds(turns=True)")]
    return []


def _declared(trial: Trial) -> list[Failure]:
    """Whether rows may come in any order, no later turn and no other chain is read, and conditions are apart."""
    batch = trial.whole()
    outputs = trial.answers(batch)
    order = torch.randperm(SIZE)
    if worst := difference(trial.answers(subset(batch, order)), outputs[order]):
        return [Failure(f"its answers change by {worst:.2g} with the order of the rows of its chains", BY_TURN)]
    chain, place = trial.turn[:, 0], trial.turn[:, 1]
    for last in range(SIZE // CHAINS - 1):
        rows = (place <= last).nonzero()[:, 0]
        if worst := difference(trial.answers(subset(batch, rows)), outputs[rows]):
            found = f"its answers change by {worst:.2g} with turns that come later"
            return [Failure(found, "read the turns before a row alone, in one direction")]
    for number in range(CHAINS):
        rows = (chain == number).nonzero()[:, 0]
        if worst := difference(trial.answers(subset(batch, rows)), outputs[rows]):
            return [Failure(f"its answers change by {worst:.2g} with turns of other chains", BY_TURN)]
    together, condition = under_conditions(batch, trial.conditions)
    read = trial.answers(together)
    for name in trial.conditions:
        alone, own = under_conditions(batch, [name])
        if worst := difference(trial.answers(alone), read[condition == own[0]]):
            found = f"its answers under {name} change by {worst:.2g} with what is read under other conditions"
            return [Failure(found, "keep rows of different batch.reading apart")]
    return []
