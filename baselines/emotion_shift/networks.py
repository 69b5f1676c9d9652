"""Networks of the emotion-shift component, and the chains of turns that they read."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from datamodules.batches.batch import Batch
from datamodules.conditions import CONDITIONS


@dataclass(frozen=True)
class Chains:
    """Which rows of a batch follow each other: a speaker's turns in one dialogue, in one reading.

    In evaluation a reading is a condition: of a turn that lacks one of its modalities there is no row, and the turns
    around it follow each other. In training every turn is read once, under a mask of its own.

    Attributes:
        chain: int64 [B], from 0.
        step: int64 [B], the place of a row in its chain, 0, 1, ... without gaps.
        count: G, the number of chains.
        longest: T, the largest number of rows of one.
    """

    chain: Tensor
    step: Tensor
    count: int
    longest: int

    @classmethod
    def of(cls, batch: Batch) -> Chains:
        """The chains of a batch; without turns every row is one of its own.

        Raises:
            RuntimeError: a turn is read twice in one reading.
        """
        size, device = len(batch), batch.row.device
        if batch.turn is None:
            return cls(torch.arange(size, device=device), torch.zeros_like(batch.row), size, min(size, 1))
        turn = batch.turn[batch.row]
        reading = torch.zeros_like(batch.row) if batch.reading is None else batch.reading
        key, position = turn[:, 0] * len(CONDITIONS) + reading, turn[:, 1]
        order = position.argsort(stable=True)
        order = order[key[order].argsort(stable=True)]
        key, position = key[order], position[order]
        follows = torch.zeros_like(key, dtype=torch.bool)
        follows[1:] = key[1:] == key[:-1]
        if bool((follows[1:] & (position[1:] == position[:-1])).any()):
            raise RuntimeError(
                "a turn is read by two rows of its chain: say in batch.reading which rows are read together."
            )
        places, numbers = torch.arange(size, device=device), (~follows).cumsum(0) - 1
        steps = places - places[~follows][numbers]
        chain, step = torch.empty_like(numbers).index_copy(0, order, numbers), steps.new_empty(size)
        step = step.index_copy(0, order, steps)
        return cls(chain, step, int(numbers[-1]) + 1 if size else 0, int(steps.max()) + 1 if size else 0)

    def gather(self, values: Tensor) -> Tensor:
        """Bring values of rows [B, D] into order: [G, T, D], 0 after the end of a chain."""
        padded = values.new_zeros(self.count, self.longest, values.shape[1])
        return padded.index_put((self.chain, self.step), values)

    def spread(self, values: Tensor) -> Tensor:
        """Bring values [G, T, ...] back to the rows: [B, ...]."""
        return values[self.chain, self.step]

    def previous(self, values: Tensor, fill: int) -> Tensor:
        """Of each row the whole number [B] of the turn before it, ``fill`` for the first of a chain."""
        padded = values.new_full((self.count, self.longest + 1), fill)
        padded = padded.index_put((self.chain, self.step + 1), values)
        return padded[self.chain, self.step]


class ShiftHead(nn.Module):
    """Logits of (shift, no shift) between a turn u and the speaker's previous one u', 0 before the first.

    They are linear in :math:`[u'; u; |u - u'|]`.

    Args:
        width: D of a turn.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.compare = nn.Linear(3 * width, 2)

    def forward(self, turns: Tensor) -> Tensor:
        """Compare turns [G, T, D], each with the one before it: [G, T, 2]."""
        before = torch.cat([torch.zeros_like(turns[:, :1]), turns[:, :-1]], dim=1)
        logits: Tensor = self.compare(torch.cat([before, turns, (turns - before).abs()], dim=2))
        return logits


class EmotionCell(nn.Module):
    """Emotion state e of every turn: what it was, as far as the emotion did not shift, and a new candidate.

    With r = 1 - P(shift) and e' the state before, c = tanh(W s + U (r e')) and e = r e' + (1 - r) c.

    Args:
        party_width: of s.
        width: of e.
    """

    def __init__(self, party_width: int, width: int) -> None:
        super().__init__()
        self.enter, self.keep = nn.Linear(party_width, width), nn.Linear(width, width)

    def forward(self, party: Tensor, shift: Tensor) -> Tensor:
        """States [G, T, E] of party states s [G, T, P] and P(shift) [G, T]; e' is 0 before the first turn."""
        entering, kept = self.enter(party), (1 - shift)[..., None]
        state, states = torch.zeros_like(entering[:, 0]), []
        for new, r in zip(entering.unbind(dim=1), kept.unbind(dim=1), strict=True):
            held = r * state
            state = held + (1 - r) * torch.tanh(new + self.keep(held))
            states.append(state)
        return torch.stack(states, dim=1)


class EmotionMemory(nn.Module):
    """The component: shift head, party state s = GRU(u) over the speaker's own turns, and emotion state.

    Args:
        width: D of a turn u.
        party_width: of s.
        emotion_width: of e.
    """

    def __init__(self, width: int, party_width: int, emotion_width: int) -> None:
        super().__init__()
        self.shift = ShiftHead(width)
        self.party = nn.GRU(width, party_width, batch_first=True)
        self.emotion = EmotionCell(party_width, emotion_width)

    def forward(self, turns: Tensor) -> tuple[Tensor, Tensor]:
        """States e [G, T, E] and logits of (shift, no shift) [G, T, 2] of turns u [G, T, D]."""
        logits = self.shift(turns)
        return self.emotion(self.party(turns)[0], logits.softmax(dim=2)[..., 0]), logits
