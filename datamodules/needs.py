"""What a model reads of a corpus."""

from __future__ import annotations

from dataclasses import dataclass

EARLIER_TURNS = "reads earlier turns"
"""What tables say of a model with ``turns``."""


@dataclass(frozen=True)
class DataNeeds:
    """What a model reads of its batches; a datamodule loads no more than that.

    >>> DataNeeds(hidden_frames=False)
    DataNeeds(hidden_frames=False, steps=None, turns=False)

    Attributes:
        hidden_frames: whether ``losses`` read frames that the training mask hides, as targets. If not, they are not
            even loaded.
        steps: S, if the model average-pools every sequence to S steps before anything else: the datamodule then
            pools while it gathers. None: it reads the frames.
        turns: whether it reads a speaker's earlier turns: batches then consist of whole chains, in training and in
            evaluation, and say in :attr:`~datamodules.batches.batch.Batch.turn` which row is which turn.
    """

    hidden_frames: bool = True
    steps: int | None = None
    turns: bool = False
