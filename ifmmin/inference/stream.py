"""Answers for a stream: frames arrive, and an answer comes every second."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy.typing as npt
import torch
from torch import Tensor

from datamodules.conditions import MODALITIES
from datamodules.errors import InputError
from datamodules.storage.features import LONGEST
from datamodules.text import printable
from ifmmin.inference.answer import Answer
from ifmmin.inference.features import FrameReader, ReadFrames, count_lost
from ifmmin.inference.incremental import StreamedModel, incremental_encoders, stand_in

if TYPE_CHECKING:
    from ifmmin.inference.predictor import Predictor

_ROUNDING = 1e-9


class _Frames(NamedTuple):
    """Frames [T, D] as given, and the seconds at which each has arrived, float64 [T]."""

    values: Tensor
    seconds: Tensor


class Stream:
    """Answers every ``every`` seconds to frames that arrive.

    One :meth:`push` hands over what arrived in the same span of time, of every modality; a modality that is left out
    was silent in it, and may come back. The stream's time goes on by the longest of them. A frame with a NaN is lost:
    its time has passed, and its values are zeros after normalisation.

    Without a window an answer is of everything since the start, or :meth:`reset`: what
    :meth:`~ifmmin.Predictor.predict` says of all frames that were pushed. With one it is of the last seconds.

    A modality that an LSTM reads forwards, or a text CNN, is read incrementally without a window: state and maximum are
    kept, so that a push costs its new frames alone and memory does not grow. One that is read otherwise (in both
    directions, by attention, normalised per utterance) keeps its frames, and every answer reads them again.

    Args:
        predictor: of a trained model.
        every: seconds from answer to answer.
        rate: frames a second of the modalities that tell the time; frames of others, such as words, arrive at the end
            of their push.
        window_seconds: how far back an answer looks; None: to the start.

    Attributes:
        seconds: of the stream so far.
        incremental: names of the modalities that are read incrementally.

    Raises:
        InputError: there is no rate, or a number is not positive, or a window is below ``every`` or of more than
            :data:`~datamodules.storage.features.LONGEST` frames.
    """

    def __init__(
        self, predictor: Predictor, every: float, rate: Mapping[str, float], window_seconds: float | None = None
    ) -> None:
        _check_numbers(every, rate, window_seconds)
        self.predictor = predictor
        self.every = every
        self.rate = dict(rate)
        self.window_seconds = window_seconds
        self._reader: FrameReader = predictor.reader
        self._encoders: dict[int, list[str]] = {}
        if window_seconds is None:  # a window moves on, but a state cannot forget
            self._encoders = {
                modality: names
                for modality, names in incremental_encoders(predictor.model).items()
                if self._reader.normalization[modality] != "utterance"
            }
        self.incremental = tuple(MODALITIES[modality] for modality in self._encoders)
        self.reset()

    def reset(self) -> None:
        """Forget all frames, as at the start of another utterance."""
        self.seconds = 0.0
        self._answers = 0
        self._streamed = StreamedModel(self.predictor.model, self._encoders)
        self._kept: list[deque[_Frames]] = [deque() for _ in MODALITIES]
        self._lengths, self._lost = [0, 0, 0], [0, 0, 0]

    def __repr__(self) -> str:
        """Model, clock and window, and which modalities are read incrementally, in three lines."""
        rates = ", ".join(f"{name} {rate:g}" for name, rate in self.rate.items())
        window = "since the start" if self.window_seconds is None else f"of the last {self.window_seconds:g} s"
        again = [name for name in MODALITIES if name not in self.incremental]
        reads = [f"{_listed(self.incremental)} incrementally"] * bool(self.incremental)
        reads += [f"{_listed(again)} again for each answer"] * bool(again)
        return (
            f"Stream: {type(self.predictor.model).__name__}, an answer {window} every {self.every:g} s\n"
            f"  frames a second: {rates}\n"
            f"  reads: {', '.join(reads)}"
        )

    def push(self, **frames: npt.ArrayLike | Tensor | None) -> list[Answer]:
        """Hand over the frames [T, D] that arrived since the last push, by modality.

        Args:
            **frames: as of :meth:`~ifmmin.Predictor.predict`, not normalised; what was silent is left out or None.

        Returns:
            the answers that came due: none in a push that ends before the next one, several in a long one, each of the
            frames that had arrived by its ``seconds``. Where nothing can be answered there is none: nothing was seen
            yet, or only what the model does not answer; :meth:`answer` says why.

        Raises:
            InputError: frames are such as :meth:`~ifmmin.Predictor.predict` refuses, or so many are kept that no model
                reads them; the stream is then as before. Or an answer is not finite: the frames are taken then, and
                :meth:`reset` forgets them.
        """
        given = self._reader.check(frames)
        self._check_room(given)
        arrives = {modality: self._arrivals(modality, len(values)) for modality, values in given.items()}
        clocks = {modality for modality in given if MODALITIES[modality] in self.rate}
        end = max((float(arrives[modality][-1]) for modality in clocks), default=self.seconds)
        for modality in given.keys() - clocks:
            arrives[modality] = torch.full_like(arrives[modality], end)
        found: list[Answer] = []
        taken = dict.fromkeys(given, 0)
        failure: InputError | None = None
        while (due := (self._answers + 1) * self.every) <= end + _ROUNDING:
            self._take(given, arrives, taken, due)
            self.seconds, self._answers = due, self._answers + 1
            if (read := self._read()) is not None:
                try:
                    found.append(self._answer(read))
                except InputError as error:  # the clock goes on
                    failure = failure or error
        self._take(given, arrives, taken, math.inf)
        self.seconds = end
        self._forget()
        if failure is not None:
            raise failure
        return found

    def answer(self) -> Answer:
        """Answer of now, whenever it is.

        Raises:
            InputError: nothing was seen yet or in the window, or only what the model does not answer; the answer is not
                finite.
        """
        read = self._all()
        if not any(read.present):
            lost = f" but {' and '.join(read.lost)} whose every frame is NaN" if read.lost else ""
            where = "yet" if self.window_seconds is None else f"in the last {self.window_seconds:g} s"
            raise InputError(f"the stream has seen nothing {where}{lost}; push frames of {', '.join(MODALITIES)}.")
        self.predictor.check_answered(read)
        return self._answer(read)

    # Reading.

    def _arrivals(self, modality: int, count: int) -> Tensor:
        """Float64 [count]: when each of the next frames of a modality has arrived."""
        rate = self.rate.get(MODALITIES[modality], math.inf)
        return self.seconds + torch.arange(1, count + 1, dtype=torch.float64) / rate

    def _check_room(self, given: Mapping[int, Tensor]) -> None:
        """Refuse frames that would be kept beyond what is read of an utterance.

        Raises:
            InputError: there are so many.
        """
        for modality, values in given.items():
            name, kept = MODALITIES[modality], self._length(modality) + len(values)
            if modality not in self._encoders and self.window_seconds is None and kept > LONGEST:
                raise InputError(
                    f"{name}: {kept} frames since the start, more than {LONGEST}, and each answer of "
                    f"{type(self.predictor.model).__name__} reads them again; give window_seconds, or reset()."
                )

    def _length(self, modality: int) -> int:
        return sum(len(each.values) for each in self._kept[modality])

    def _take(
        self, given: Mapping[int, Tensor], arrives: Mapping[int, Tensor], taken: dict[int, int], until: float
    ) -> None:
        """Read the frames that have arrived by ``until``, those after the first ``taken``."""
        for modality, values in given.items():
            first = taken[modality]
            last = int((arrives[modality] <= until + _ROUNDING).sum())
            if last > first:
                self._append(modality, _Frames(values[first:last], arrives[modality][first:last]))
                taken[modality] = last

    def _append(self, modality: int, frames: _Frames) -> None:
        if modality not in self._encoders:
            self._kept[modality].append(frames)
            return
        lost = count_lost(frames.values)
        self._lengths[modality] += len(frames.values)
        self._lost[modality] += lost
        normal = self._reader.normalise(modality, frames.values).to(self.predictor.model.device)
        with torch.inference_mode():
            self._streamed.push(modality, normal)

    def _forget(self) -> None:
        """Drop frames that no later answer sees."""
        if self.window_seconds is None:
            return
        for kept in self._kept:
            while kept and float(kept[0].seconds[-1]) <= self.seconds - self.window_seconds + _ROUNDING:
                kept.popleft()

    # Answering.

    def _all(self) -> ReadFrames:
        """Everything that an answer of now sees."""
        found: list[Tensor | None] = [None, None, None]
        lost: dict[str, int] = {}
        for modality, name in enumerate(MODALITIES):
            if modality in self._encoders:
                length, count = self._lengths[modality], self._lost[modality]
                if count < length:
                    dim = self.predictor.feature_dims[modality]
                    found[modality] = stand_in(length, dim, self.predictor.model.device)
            else:
                values = self._window(modality)
                length, count = len(values), count_lost(values)
                if count < length:
                    found[modality] = self._reader.normalise(modality, values.clone())
            if count:
                lost[name] = count
        return ReadFrames(found, lost)

    def _window(self, modality: int) -> Tensor:
        """Frames [T, D] as given that an answer of now sees, of a modality that is read again."""
        kept = self._kept[modality]
        if not kept:
            return torch.zeros(0, self.predictor.feature_dims[modality])
        if len(kept) > 1:  # joined once, not again for every answer
            joined = _Frames(*(torch.cat(parts) for parts in zip(*kept, strict=True)))
            kept.clear()
            kept.append(joined)
        values, seconds = kept[0]
        if self.window_seconds is None:
            return values
        recent = seconds > self.seconds - self.window_seconds + _ROUNDING
        kept[0] = _Frames(values[recent], seconds[recent])
        if not len(kept[0].values):
            kept.clear()
        return values[recent]

    def _read(self) -> ReadFrames | None:
        """What an answer sees, or None where the model has none to it."""
        read = self._all()
        return read if any(read.present) and self.predictor.model.answers(read.condition) else None

    def _answer(self, read: ReadFrames) -> Answer:
        answer = self.predictor.answer_read([read], model=self._streamed.view)[0]
        answer.seconds = self.seconds
        return answer


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def _check_numbers(every: float, rate: Mapping[str, float], window_seconds: float | None) -> None:
    """Refuse a clock that does not go on.

    Raises:
        InputError: see :class:`Stream`.
    """
    if unknown := [name for name in rate if name not in MODALITIES]:
        raise InputError(
            f"rate: {printable(repr(unknown[0]), 60)} is no modality: give frames a second of {', '.join(MODALITIES)}."
        )
    if not rate:
        raise InputError('rate: give the frames a second of at least one modality, such as {"audio": 100}.')
    numbers = {"every": every, **{f"rate of {name}": value for name, value in rate.items()}}
    if window_seconds is not None:
        numbers["window_seconds"] = window_seconds
    for name, value in numbers.items():
        given: object = value
        if not isinstance(given, int | float):
            raise InputError(f"{name} {printable(repr(given), 60)}: give a number above 0.")
        if not (math.isfinite(value) and value > 0):
            raise InputError(f"{name} {value:g}: give a number above 0.")
    if window_seconds is not None:
        if window_seconds < every:
            raise InputError(f"window_seconds {window_seconds:g}: give at least every, {every:g}.")
        if (most := window_seconds * max(rate.values())) > LONGEST:
            raise InputError(f"window_seconds {window_seconds:g}: {most:.0f} frames, more than {LONGEST}; give fewer.")
