"""What the page shows, as plain data: the answer of what works, those of all conditions, and what each sensor gave."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from datamodules.conditions import CONDITIONS, MODALITIES, present_under
from datamodules.errors import InputError
from datamodules.text import printable
from ifmmin.inference import Answer, Features, Predictor

SPOKEN = {"audio": "audio", "visual": "video", "text": "text"}
"""What the page calls a modality's sensor."""


@dataclass(frozen=True)
class Row:
    """One condition.

    Attributes:
        condition: of :data:`~datamodules.conditions.CONDITIONS`.
        answer: under it; None where there is none.
        reason: why there is none; blank where there is one.
    """

    condition: str
    answer: Answer | None = None
    reason: str = ""


@dataclass(frozen=True)
class Report:
    """Answers for one utterance whose sensors work or are broken.

    Attributes:
        answer: of everything that works; None where there is none.
        problem: why there is none; blank where there is one.
        rows: the seven conditions.
        calibrated: whether probabilities are at the temperatures of their conditions; None of a regression.
        shares: what each modality gave to the answer, by exact Shapley values; empty where they are not known.
        unshared: why they are not known.
        uninformed: the probability of the predicted class, or the value, before anything is seen.
        absent: why, by modality, of those that the answer does not rest on.
        lost: how many frames are NaN and how many there are, by modality, of those that lost any.
        scale: least and greatest value of a regression; None of a classification.
    """

    answer: Answer | None
    problem: str
    rows: tuple[Row, ...]
    calibrated: bool | None
    shares: Mapping[str, float] = field(default_factory=dict)
    unshared: str = ""
    uninformed: float = 0.0
    absent: Mapping[str, str] = field(default_factory=dict)
    lost: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    scale: tuple[float, float] | None = None


def report(
    predictor: Predictor,
    features: Features,
    works: Collection[str] = MODALITIES,
    abstain_below: float | None = None,
) -> Report:
    """Answer from the sensors that work, and under every condition that they allow.

    Args:
        predictor: of a trained model.
        features: see :meth:`ifmmin.Predictor.predict`; may be empty.
        works: modalities whose sensor works.
        abstain_below: see :meth:`ifmmin.Predictor.predict`; of no use to a regression, whose answers have no
            probability.

    Raises:
        InputError: frames are such as :meth:`ifmmin.Predictor.predict` refuses, those of broken sensors included.
    """
    model, task = predictor.model, predictor.model.task
    checked = predictor.reader.check(features)
    frames = {MODALITIES[modality]: values for modality, values in checked.items()}
    nan = {name: int(values.isnan().any(dim=1).sum()) for name, values in frames.items()}
    absent: dict[str, str] = {}
    for name in MODALITIES:
        if name not in works:
            absent[name] = "switched off"
        elif name not in frames:
            absent[name] = "not given"
        elif nan[name] == len(frames[name]):
            absent[name] = "lost: every frame is NaN"
    reasons = {name: _reason(predictor, name, absent) for name in CONDITIONS}
    possible = [name for name in CONDITIONS if not reasons[name]]
    calibrated = bool(task.class_names) and {*possible} <= model.temperatures.keys()
    given: list[Features] = [{name: frames[name] for name in _named(condition)} for condition in possible]
    threshold = abstain_below if task.class_names else None
    answers = predictor.predict_many(given, calibrated=calibrated, abstain_below=threshold)
    found = dict(zip(possible, answers, strict=True))
    rows = tuple(Row(name, found.get(name), reasons[name]) for name in CONDITIONS)
    scale = None if task.class_names else (float(task.spec()["low"]), float(task.spec()["high"]))
    condition = "".join(name[0] for name in MODALITIES if name not in absent)
    seen = {name: frames[name] for name in MODALITIES if name not in absent}
    common: dict[str, Any] = {
        "rows": rows,
        "calibrated": calibrated if task.class_names else None,
        "absent": absent,
        "lost": {name: (nan[name], len(frames[name])) for name in frames if nan[name] and name in works},
        "scale": scale,
    }
    if condition not in found:
        problem = reasons[condition] if condition else _nothing(absent)
        return Report(answer=None, problem=problem, **common)
    parts = [name for name in CONDITIONS if {*name} <= {*condition}]
    if unanswered := [name for name in parts if name not in found]:
        without = ", ".join(_spoken(name) for name in unanswered)
        unshared = f"shares need the answer from {without} alone, which {type(model).__name__} does not give"
        return Report(answer=found[condition], problem="", unshared=unshared, **common)
    explanation = predictor.explain(seen, calibrated=calibrated)
    predicted = max(explanation.answer, key=lambda name: explanation.answer[name])
    return Report(
        answer=found[condition],
        problem="",
        shares=explanation.of(predicted),
        uninformed=explanation.uninformed[predicted],
        **common,
    )


def read_upload(path: str | Path, modality: str) -> npt.NDArray[Any]:
    """Read a .npy file without running anything in it, or filling memory by what it says of its size.

    Args:
        path: of the file.
        modality: it is of.

    Raises:
        InputError: it is no .npy file of numbers, truncated, or empty.
    """
    path = Path(path)
    shown = f"{modality}: {printable(path.name, 80)}"
    try:
        if not path.stat().st_size:
            raise InputError(f"{shown}: is empty; give a .npy file that numpy.save wrote.")
        with path.open("rb") as file:
            if file.read(6) != b"\x93NUMPY":
                raise InputError(f"{shown}: is no .npy file; give one that numpy.save wrote.")
        array: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise InputError(f"{shown}: cannot be read ({error.strerror}); give it again.") from error
    except (ValueError, EOFError, SyntaxError, MemoryError, OverflowError) as error:
        why = "holds Python objects, which are never read" if "object" in str(error) else "is damaged or cut off"
        raise InputError(f"{shown}: {why}; save an array of numbers by numpy.save.") from error
    if array.dtype.kind not in "biuf":
        raise InputError(f"{shown}: holds {printable(array.dtype, 60)}, no numbers; save an array of floats.")
    return array


def _named(condition: str) -> list[str]:
    return [name for name, there in zip(MODALITIES, present_under(condition), strict=True) if there]


def _spoken(condition: str) -> str:
    return " and ".join(SPOKEN[name] for name in _named(condition))


def _reason(predictor: Predictor, condition: str, absent: Mapping[str, str]) -> str:
    """Why there is no answer under a condition; blank if there is one."""
    if gone := [f"{SPOKEN[name]} is {absent[name]}" for name in _named(condition) if name in absent]:
        return "; ".join(gone)
    if not predictor.model.answers(condition):
        return f"{type(predictor.model).__name__} does not answer from {_spoken(condition)}"
    return ""


def _nothing(absent: Mapping[str, str]) -> str:
    each = "; ".join(f"{SPOKEN[name]} is {why}" for name, why in absent.items())
    return f"no sensor is left to answer from: {each}"
