"""Encoders that read a stream: what was pooled so far is kept, so that new frames cost only themselves."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class RunningPool(ABC):
    """What an encoder pooled of the frames of one sequence so far, in memory that does not grow with them.

    After any number of calls of :meth:`push`, :meth:`pooled` is what ``SequenceEncoder.pool`` gives of all their frames
    together, up to rounding.
    """

    @abstractmethod
    def push(self, frames: Tensor) -> None:
        """Read further frames [T, D], T at least 1."""

    @abstractmethod
    def pooled(self) -> Tensor:
        """[1, P]; after at least one frame."""


class RunningLSTM(RunningPool):
    """Of a one-directional LSTM, whose state is kept.

    Args:
        rnn: one layer, forwards.
        attention: W and u of attention over time, u · tanh(W o_t + b); None: the maximum over time, or the last state.
        last: pool the last state.
    """

    def __init__(self, rnn: nn.LSTM, attention: tuple[nn.Module, nn.Module] | None = None, last: bool = False) -> None:
        self.rnn = rnn
        self.attention = attention
        self.last = last
        self._state: tuple[Tensor, Tensor] | None = None
        self._pooled: Tensor | None = None
        self._score: Tensor | None = None
        self._weight: Tensor | None = None

    def push(self, frames: Tensor) -> None:
        """See :class:`RunningPool`."""
        states, self._state = self.rnn(frames[:, None], self._state)  # [T, 1, E]
        if self.last:
            self._pooled = states[-1]
        elif self.attention is None:
            largest = states.amax(dim=0)
            self._pooled = largest if self._pooled is None else torch.maximum(self._pooled, largest)
        else:
            self._attend(states, self.attention)

    def _attend(self, states: Tensor, attention: tuple[nn.Module, nn.Module]) -> None:
        """Softmax over time in one pass: sums are relative to the largest score so far, and scaled when it grows."""
        weights, vector = attention
        scores = vector(torch.tanh(weights(states)))  # [T, 1, 1]
        score = scores.amax(dim=0)
        if self._score is not None:
            score = torch.maximum(score, self._score)
        shares = (scores - score).exp()
        weight, pooled = shares.sum(dim=0), (shares * states).sum(dim=0)
        if self._score is not None and self._weight is not None and self._pooled is not None:
            scale = (self._score - score).exp()
            weight, pooled = weight + scale * self._weight, pooled + scale * self._pooled
        self._score, self._weight, self._pooled = score, weight, pooled

    def pooled(self) -> Tensor:
        """See :class:`RunningPool`."""
        assert self._pooled is not None
        return self._pooled if self._weight is None else self._pooled / self._weight


class RunningConvolutions(RunningPool):
    """Of convolutions over time with ReLU and the maximum: the last frames are kept, as many as a window still needs.

    Args:
        convolutions: one per width.
        widest: the largest width; a sequence is read as if zero frames followed it up to this length.
    """

    def __init__(self, convolutions: Sequence[nn.Module], widest: int) -> None:
        self.convolutions = convolutions
        self.widest = widest
        self._frames = 0
        self._tail: Tensor | None = None
        self._largest: list[Tensor | None] = [None] * len(convolutions)

    def push(self, frames: Tensor) -> None:
        """See :class:`RunningPool`."""
        self._frames += len(frames)
        known = frames if self._tail is None else torch.cat([self._tail, frames])
        before = 0 if self._tail is None else len(self._tail)
        for place, convolution in enumerate(self.convolutions):
            width = _width(convolution)
            # Windows that end in a frame that was here before are counted already.
            self._largest[place] = _larger(self._largest[place], convolution, known[max(0, before - width + 1) :])
        self._tail = known[max(0, len(known) - self.widest + 1) :].clone()

    def pooled(self) -> Tensor:
        """See :class:`RunningPool`."""
        largest = self._largest
        if self._frames < self.widest:  # the tail is then the whole sequence
            assert self._tail is not None
            padded = F.pad(self._tail, (0, 0, 0, self.widest - self._frames))
            largest = [_larger(None, convolution, padded) for convolution in self.convolutions]
        return torch.cat([each for each in largest if each is not None], dim=1).relu()


def _width(convolution: nn.Module) -> int:
    assert isinstance(convolution, nn.Conv1d)
    return int(convolution.kernel_size[0])


def _larger(largest: Tensor | None, convolution: nn.Module, frames: Tensor) -> Tensor | None:
    """The larger of [1, channels] and the responses of a convolution to frames [T, D]."""
    if len(frames) < _width(convolution):
        return largest
    found: Tensor = convolution(frames.t()[None]).amax(dim=2)
    return found if largest is None else torch.maximum(largest, found)
