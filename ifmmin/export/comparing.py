"""Comparison of a written network with the predictor that it replaces."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from datamodules.conditions import CONDITIONS, MODALITIES, present_under
from datamodules.errors import InputError
from datamodules.text import printable
from ifmmin.export.dependencies import require
from ifmmin.export.network import INPUTS
from ifmmin.inference import Predictor

LENGTHS = (1, 2, 7, 64, 300)
"""Frames of single utterances that are compared, under every condition."""

BATCHES = (3, 17)
"""Utterances of the batches that are compared, of random lengths up to the longest."""

_TIMED, _TIMES = 64, 20

FloatArray = npt.NDArray[np.float32]


class Comparison(NamedTuple):
    """How a network and its predictor agree.

    Attributes:
        answers: how many were compared.
        difference: the largest, infinite where one is not finite.
        condition: of that answer.
        frames: lengths of audio, visual and text there.
        load_seconds: to open the network.
        milliseconds: median of one answer to a complete utterance of 64 frames.
    """

    answers: int
    difference: float
    condition: str
    frames: tuple[int, ...]
    load_seconds: float
    milliseconds: float


class _Case(NamedTuple):
    """A batch: frames [B, T, D] with NaN in lost ones and behind the last, lengths [B, 3], a condition for each row."""

    frames: list[FloatArray]
    lengths: npt.NDArray[np.int64]
    conditions: list[str]

    @property
    def present(self) -> npt.NDArray[np.bool_]:
        return np.array([present_under(condition) for condition in self.conditions])

    def inputs(self) -> dict[str, npt.NDArray[Any]]:
        """What the network is given."""
        return dict(zip(INPUTS, (*self.frames, self.lengths, self.present), strict=True))

    def features(self, row: int) -> dict[str, FloatArray]:
        """What the predictor is given."""
        shown = zip(MODALITIES, self.frames, self.lengths[row], self.present[row], strict=True)
        return {name: frames[row, :length] for name, frames, length, present in shown if present}


class Drawn:
    """Random utterances of the size of those that a model was trained on.

    Args:
        predictor: whose widths, and conditions that it answers.
        trained_on: its checkpoint's record of the training data, for the scale of frames.
        seed: of the draws.
    """

    def __init__(self, predictor: Predictor, trained_on: Mapping[str, Any], seed: int = 0) -> None:
        self.conditions = [condition for condition in CONDITIONS if predictor.model.answers(condition)]
        self.widths = predictor.feature_dims
        self._random = np.random.default_rng(seed)
        found = [trained_on["statistics"].get(name) for name in MODALITIES]
        self._scales = [(0.0, 1.0) if each is None else (each["mean"].numpy(), each["std"].numpy()) for each in found]

    def case(
        self, lengths: Sequence[Sequence[int]], conditions: Sequence[str], padding: int = 0, lost: float = 0.0
    ) -> _Case:
        """A batch of utterances of these lengths [B][3], with so many more frames of padding.

        Of the frames behind the first, a share ``lost`` has a NaN; so has the first of every other utterance.
        """
        sizes = np.array(lengths, dtype=np.int64)
        frames = []
        for modality, (width, (mean, std)) in enumerate(zip(self.widths, self._scales, strict=True)):
            shape = (len(sizes), int(sizes[:, modality].max()) + padding, width)
            drawn = (mean + std * self._random.standard_normal(shape)).astype(np.float32)
            drawn[np.arange(shape[1]) >= sizes[:, modality, None]] = np.nan
            if lost and width:
                gone = self._random.random(shape[:2]) < lost
                gone[:, 0] = (np.arange(len(sizes)) % 2 == 1) & (sizes[:, modality] > 1)
                gone[:, 1:2] &= ~gone[:, :1]
                drawn[gone, self._random.integers(width)] = np.nan
            frames.append(drawn)
        return _Case(frames, sizes, list(conditions))

    def cases(self, lengths: Sequence[int] = LENGTHS, batches: Sequence[int] = BATCHES) -> Iterator[_Case]:
        """Single utterances of each length under each condition, and batches of all conditions."""
        for number, length in enumerate(lengths):
            for condition in self.conditions:
                yield self.case([[length] * len(MODALITIES)], [condition], padding=number)
        for size in batches:
            drawn = self._random.integers(1, max(lengths) + 1, (size, len(MODALITIES)))
            drawn[self._random.random(drawn.shape) < 0.3] = 1
            shown = [self.conditions[row % len(self.conditions)] for row in range(size)]
            yield self.case(drawn.tolist(), shown, lost=0.2)


def open_network(path: Path) -> Any:
    """Open a network with onnxruntime on the CPU.

    Raises:
        InputError: onnxruntime is not installed, or cannot use the network.
    """
    runtime = require("onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level = 4  # its errors are raised as well
    try:
        return runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own kinds have no common base
        raise InputError(f"onnxruntime cannot use this network ({_reason(error)}).") from error


def compare(predictor: Predictor, trained_on: Mapping[str, Any], path: Path) -> Comparison:
    """Compare a network with the predictor on random utterances: seven conditions, lengths from 1 to 300, batches.

    Raises:
        InputError: the network fails on one of them.
    """
    started = time.perf_counter()
    session = open_network(path)
    loaded = time.perf_counter() - started
    drawn = Drawn(predictor, trained_on)
    count, worst = 0, Comparison(0, -1.0, "", (), loaded, math.nan)
    for case in drawn.cases():
        answers = _answers(session, case)
        for row, condition in enumerate(case.conditions):
            wanted = np.array([*predictor.predict(case.features(row)).values()])
            difference = float(np.abs(answers[row] - wanted).max())
            count += 1
            if not difference <= worst.difference:
                frames = tuple(case.lengths[row].tolist())
                difference = difference if math.isfinite(difference) else math.inf
                worst = worst._replace(difference=difference, condition=condition, frames=frames)
    return worst._replace(answers=count, milliseconds=_milliseconds(session, drawn))


def _answers(session: Any, case: _Case) -> FloatArray:
    try:
        answers: FloatArray = session.run(None, case.inputs())[0]
    except Exception as error:
        lengths = case.lengths.max(axis=0).tolist()
        raise InputError(f"the network fails at lengths {lengths} ({_reason(error)}).") from error
    return answers


def _milliseconds(session: Any, drawn: Drawn) -> float:
    inputs = drawn.case([[_TIMED] * len(MODALITIES)], drawn.conditions[-1:]).inputs()
    times = []
    for _ in range(_TIMES):
        started = time.perf_counter()
        session.run(None, inputs)
        times.append(time.perf_counter() - started)
    return 1000 * float(np.median(times))


def _reason(error: Exception) -> str:
    return printable(" ".join(str(error).split()), 200)
