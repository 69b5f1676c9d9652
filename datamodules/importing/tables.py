"""Who is in which split, with which label: a CSV file, or MERBench's ``label.npz``, read without unpickling."""

from __future__ import annotations

import csv
import io
import zipfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.extraction.index.reading import LARGEST, read_text
from datamodules.importing.pickles import plain, read_pickled
from datamodules.storage.description import LONGEST_NAME, check_ids
from datamodules.storage.objects import UnsafePickleError
from datamodules.storage.problems import Problems, Strict
from datamodules.storage.targets import SPLITS
from datamodules.text import has_control, printable

Label = str | float | int

_SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val", "test": "test"}
_IDS = ("id", "name")
_CORPORA = {"train": "train_corpus", "val": "val_corpus", "test": "test_corpus"}
_DELIMITERS = ",;\t"


@dataclass(frozen=True)
class Row:
    """One utterance.

    Attributes:
        utterance: its id.
        label: as it is written.
        split: one of :data:`~datamodules.storage.targets.SPLITS`.
        speaker: who speaks, None where it is not known.
    """

    utterance: str
    label: Label
    split: str
    speaker: str | None = None


def read_table(path: Path, values: bool) -> list[Row]:
    """Read who is in which split.

    Args:
        path: a CSV file with the columns ``id`` (or ``name``), ``label``, ``split`` and perhaps ``speaker``; or an
            ``.npz`` file with the dictionaries ``train_corpus``, ``val_corpus`` and ``test_corpus``: by id, ``emo`` and
            ``val``.
        values: whether labels are values; of an ``.npz`` file ``val`` is read then, otherwise ``emo``.

    Raises:
        CorpusError: it is of another form, an id occurs twice or cannot be stored, a split is unknown or empty; one
            line.
    """
    problems = Strict()
    rows = _from_npz(path, values, problems) if path.suffix == ".npz" else _from_csv(path, problems)
    twice = [name for name, count in Counter(row.utterance for row in rows).items() if count > 1]
    problems.add_if_any(path, twice, "listed more than once", "list it once, in one split")
    check_ids(path, [row.utterance for row in rows], problems)
    outside = [row.utterance for row in rows if ".." in row.utterance.split("/") or row.utterance.startswith("/")]
    problems.add_if_any(path, outside, "an id that leads out of its folder", "rename the utterance")
    for split in SPLITS:
        if not any(row.split == split for row in rows):
            problems.add(path, f"has no {split} utterance", "give at least one")
    return rows


def _from_csv(path: Path, problems: Problems) -> list[Row]:
    if not path.is_file():
        problems.add(
            path, "is no file" if path.exists() else "does not exist", "give the CSV file of labels and splits"
        )
    text = read_text(path, problems)
    if "\ufffd" in text:
        problems.add(path, "has bytes that are no UTF-8", "save it as CSV in UTF-8")
    delimiter = max(_DELIMITERS, key=text.partition("\n")[0].count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    rows = []
    try:
        columns = [cell.strip().lower() for cell in next(reader, [])]
        named = next((name for name in _IDS if name in columns), None)
        if named is None or not {"label", "split"} <= {*columns}:
            what = "its first line does not name the columns id, label and split"
            problems.add(path, what, "begin it with id,label,split; a column speaker may follow")
        for cells in reader:
            if any(cell.strip() for cell in cells):
                found = dict(zip(columns, (cell.strip() for cell in cells), strict=False))
                rows.append(_row(path, reader.line_num, found.get(str(named), ""), found, problems))
    except csv.Error as error:
        problems.add(path, f"line {reader.line_num} is no CSV ({error})", "save it again as CSV in UTF-8")
    return rows


def _row(path: Path, line: int, name: str, found: dict[str, str], problems: Problems) -> Row:
    split = _SPLITS.get(found.get("split", "").lower())
    if not name:
        problems.add(path, f"line {line} has no id", "fill the column, or remove the line")
    if split is None:
        what = f"split {printable(found.get('split', ''), 40)!r} is none of {', '.join(_SPLITS)}"
        problems.add(path, what, "name one of them", [name])
    speaker = found.get("speaker") or None
    if speaker is not None and (has_control(speaker) or len(speaker) > LONGEST_NAME):
        problems.add(
            path, f"a speaker with control characters or of more than {LONGEST_NAME} letters", "rename", [name]
        )
    return Row(name, found.get("label", ""), split or "", speaker)


def _from_npz(path: Path, values: bool, problems: Problems) -> list[Row]:
    wanted, rows = "val" if values else "emo", []
    try:
        with zipfile.ZipFile(path) as archive:
            for split, member in _CORPORA.items():
                for name, entry in _dictionary(archive, f"{member}.npy").items():
                    label = plain(entry).get(wanted) if isinstance(plain(entry), dict) else None
                    if not isinstance(name, str) or not isinstance(label, (str, int, float)):
                        raise UnsafePickleError(f"has no {wanted} of {printable(name, 60)}")
                    rows.append(Row(name, label, split))
    except UnsafePickleError as error:
        problems.add(path, str(error), "copy it again, or write a CSV file of id,label,split")
    except FileNotFoundError:
        problems.add(path, "does not exist", "give the file of labels and splits")
    except Exception as error:  # zipfile and NumPy's header can raise anything
        what = f"is not an .npz file of {', '.join(_CORPORA.values())} ({printable(error, 60) or type(error).__name__})"
        problems.add(path, what, "copy it again, or write a CSV file of id,label,split")
    return rows


def _dictionary(archive: zipfile.ZipFile, member: str) -> dict[Any, Any]:
    """A dictionary that NumPy saved as an array of one object."""
    with archive.open(member) as file:
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise UnsafePickleError(f"has more than {LARGEST} bytes in {member}")
    stream = io.BytesIO(content)
    if np.lib.format.read_magic(stream) == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
    else:
        shape, _, dtype = np.lib.format.read_array_header_2_0(stream)
    found = plain(read_pickled(stream.read())) if dtype == np.dtype(object) and shape == () else None
    if not isinstance(found, dict):
        raise UnsafePickleError(f"has no dictionary in {member}")
    return found


def class_numbers(path: Path, rows: Iterable[Row], classes: tuple[str, ...]) -> tuple[tuple[str, ...], dict[str, str]]:
    """Classes in label order, and the class of each utterance.

    Args:
        path: of the table, for problems.
        rows: of it.
        classes: in label order; empty: those that occur, sorted. Whole numbers are places in it, from 0.

    Raises:
        CorpusError: there are fewer than two classes, or a label is none of them.
    """
    problems, rows = Strict(), list(rows)
    numbers = [row.utterance for row in rows if _number(row.label) is not None]
    if numbers and not classes:
        what = f"label {rows[0].label} is a number"
        problems.add(path, what, "name classes in label order by --classes, or the ends of a scale by --low and --high")
    names = classes or tuple(sorted({str(row.label) for row in rows}))
    labels = {}
    for row in rows:
        number = None if str(row.label) in names else _number(row.label)
        labels[row.utterance] = names[number] if number is not None and 0 <= number < len(names) else str(row.label)
    strange = [name for name, label in labels.items() if label not in names or not label]
    first = labels[strange[0]] if strange else ""
    what = f"label {printable(first, 40)!r} is none of {printable(', '.join(names), 200)}"
    problems.add_if_any(path, strange, what, "correct it, or leave the utterance out")
    if len(names) < 2:
        problems.add(path, "all labels are the same, so there is nothing to learn", "give at least two classes")
    return names, labels


def scale_values(path: Path, rows: Iterable[Row], low: float, high: float) -> dict[str, float]:
    """The value of each utterance.

    Raises:
        CorpusError: one is no number, or outside the scale.
    """
    values, strange, shown = {}, [], ""
    for row in rows:
        try:
            values[row.utterance] = float(row.label)
        except ValueError:
            values[row.utterance] = float("nan")
        if not low <= values[row.utterance] <= high:
            strange.append(row.utterance)
            shown = shown or printable(row.label, 40)
    what = f"label {shown} is no number from {low:g} to {high:g}"
    Strict().add_if_any(path, strange, what, "correct it, or leave the utterance out")
    return values


def _number(label: Label) -> int | None:
    try:
        value = float(label)
    except ValueError:
        return None
    return int(value) if value.is_integer() else None
