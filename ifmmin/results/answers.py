"""Answers for utterances of media files: as text, JSON and CSV."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from datamodules.conditions import MODALITIES
from datamodules.files import atomic_path
from datamodules.text import csv_cell, printable
from ifmmin.results.csv_files import safe, write_rows

_VALUE = "value"
"""What a regression's answer is called."""


@dataclass(frozen=True)
class Answer:
    """What a model says of one utterance.

    Attributes:
        name: of the file, ``memory`` without one.
        start: seconds from its beginning.
        end: seconds from its beginning.
        probability: of each class by name, or ``{"value": ...}`` of a regression; empty where there is a ``problem``.
        condition: what the model saw, such as ``{a,v}``.
        frames: how many there are of each modality that it saw.
        absent: why, by modality, of those that it did not see.
        each: what each modality that it saw says alone; None where the model does not answer that, or it cannot be
            calibrated as asked.
        faces: in how many frames a face was found, and how many were looked at; None where none was.
        text: the words; None without any.
        remarks: of what was used although it is not as it should be: ``clipped``, ``several faces``, ...
        problem: why there is no answer; blank where there is one.
        calibrated: whether probabilities, those of ``each`` too, are at the temperatures that ``fit`` found.
        abstained: whether no class is as probable as the caller wants.
    """

    name: str
    start: float = 0.0
    end: float = 0.0
    probability: dict[str, float] = field(default_factory=dict)
    condition: str = "{}"
    frames: dict[str, int] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    each: dict[str, dict[str, float] | None] = field(default_factory=dict)
    faces: tuple[int, int] | None = None
    text: str | None = None
    remarks: tuple[str, ...] = ()
    problem: str = ""
    calibrated: bool = False
    abstained: bool = False

    @property
    def prediction(self) -> str | float | None:
        """Name of the most probable class, or the value of a regression; None without an answer, or if it abstains."""
        return None if self.abstained else most_probable(self.probability)

    def to_dict(self) -> dict[str, Any]:
        """As plain data, for JSON."""
        return {**asdict(self), "prediction": self.prediction}


def most_probable(probability: Mapping[str, float]) -> str | float | None:
    """Name of the most probable class, or the value of a regression; None of nothing.

    >>> most_probable({"angry": 0.3, "sad": 0.7}), most_probable({"value": -1.5})
    ('sad', -1.5)
    """
    if not probability:
        return None
    if [*probability] == [_VALUE]:
        return probability[_VALUE]
    return max(probability, key=lambda name: probability[name])


def spoken(probability: Mapping[str, float] | None, most: int | None = None) -> str:
    """Probabilities in words, the largest first.

    Args:
        probability: by class, or a regression's value; None where the model does not answer.
        most: classes that are named at most; None: all.

    >>> spoken({"angry": 0.3, "sad": 0.7}), spoken({"angry": 0.3, "sad": 0.7}, 1), spoken(None), spoken({"value": 1.5})
    ('sad 0.70 · angry 0.30', 'sad 0.70', '–', '1.500')
    """
    if not probability:
        return "–"
    if [*probability] == [_VALUE]:
        return f"{probability[_VALUE]:.3f}"
    ranked = sorted(probability.items(), key=lambda item: -item[1])[:most]
    return " · ".join(f"{printable(name, 40)} {value:.2f}" for name, value in ranked)


def alone(answer: Answer) -> str:
    """What each modality alone says; blank where there is only one."""
    if len(answer.each) < 2:
        return ""
    return ", ".join(f"{{{modality[0]}}} {spoken(says, 1)}" for modality, says in answer.each.items())


def said(answer: Answer) -> str:
    """What the model saw and what it says.

    >>> said(Answer("clip.mp4", probability={"angry": 0.6, "sad": 0.4}, condition="{a}", calibrated=True))
    '{a}, calibrated: angry 0.60 · sad 0.40'
    >>> said(Answer("clip.mp4", probability={"angry": 0.6, "sad": 0.4}, condition="{a}", abstained=True))
    '{a}: abstains (angry 0.60 · sad 0.40)'
    """
    seen = f"{answer.condition}, calibrated" if answer.calibrated else answer.condition
    probabilities = spoken(answer.probability)
    return f"{seen}: abstains ({probabilities})" if answer.abstained else f"{seen}: {probabilities}"


def block(answer: Answer, remedy: Mapping[str, str] | None = None) -> str:
    """An answer in several lines.

    Args:
        answer: to show.
        remedy: what the user can do, by modality, where it is absent.
    """
    seconds = answer.end - answer.start
    lines = [f"{answer.name} · {seconds:.1f} s" if seconds else answer.name]
    for modality in MODALITIES:
        if modality in answer.absent:
            advice = (remedy or {}).get(modality, "")
            lines.append(f"  {modality:<6}  absent: {printable(answer.absent[modality])}{advice}")
        elif modality == "visual" and answer.faces is not None:
            found, looked_at = answer.faces
            lines.append(f"  {modality:<6}  {_count(found, 'face')} in {_count(looked_at, 'frame')}")
        elif modality in answer.frames:
            what = "token" if modality == "text" else "frame"
            lines.append(f"  {modality:<6}  {_count(answer.frames[modality], what)}")
    if answer.remarks:
        lines.append(f"  note    {', '.join(answer.remarks)}")
    each = alone(answer)
    lines.append(f"{said(answer)}          what each alone says: {each}" if each else said(answer))
    return "\n".join(lines)


def line(answer: Answer, begins: str) -> str:
    """An answer, or why there is none, in one line that begins with what it is about."""
    words = f'  "{printable(answer.text, 40)}"' if answer.text else ""
    if answer.problem:
        return f"{begins}{words}  no answer: {printable(answer.problem, 300)}"
    each = alone(answer)
    return f"{begins}{words}  {said(answer)}{f'   alone: {each}' if each else ''}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def write_answers(path: Path, answers: Iterable[Answer], class_names: Sequence[str]) -> None:
    """Write a CSV file with a row for each answer, whole or not at all.

    The columns are ``file``, ``start`` and ``end`` in seconds, ``words``; then as in the files of a corpus's
    predictions ``condition``, ``audio``, ``visual``, ``text``, ``p_<class>`` and ``prediction``, empty where
    ``abstained`` is 1; ``calibrated``; then ``alone_audio``, ``alone_visual``, ``alone_text``, what each alone
    predicts, ``absent`` and ``remarks``; ``problem`` says why there is no answer.

    Args:
        path: ends in ``.csv``.
        answers: to write.
        class_names: of the model; none of a regression.

    Raises:
        OSError: it cannot be written; it names ``path``.
    """
    heading = ["file", "start", "end", "words", "condition", *MODALITIES, *(f"p_{name}" for name in class_names)]
    heading += ["prediction", "abstained", "calibrated"]
    heading += [*(f"alone_{modality}" for modality in MODALITIES), "absent", "remarks", "problem"]
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        write_rows(file, [safe(heading)])
        write_rows(file, (_cells(answer, class_names) for answer in answers))


def _cells(answer: Answer, class_names: Sequence[str]) -> list[str | int | None]:
    condition = "".join(letter for letter in answer.condition if letter.isalpha())
    return [
        csv_cell(answer.name),
        f"{answer.start:.3f}",
        f"{answer.end:.3f}",
        csv_cell(answer.text or ""),
        condition,
        *(int(modality in answer.frames) for modality in MODALITIES),
        *(_cell(answer.probability.get(name)) for name in class_names),
        _cell(answer.prediction),
        int(answer.abstained),
        int(answer.calibrated),
        *(_cell(most_probable(answer.each.get(modality) or {})) for modality in MODALITIES),
        csv_cell("; ".join(f"{modality}: {why}" for modality, why in answer.absent.items())),
        csv_cell(", ".join(answer.remarks)),
        csv_cell(answer.problem),
    ]


def _cell(value: str | float | None) -> str | None:
    """A number reads back to the same float32, as in the files of a corpus's predictions."""
    return f"{value:.9g}" if isinstance(value, float) else None if value is None else csv_cell(value)
