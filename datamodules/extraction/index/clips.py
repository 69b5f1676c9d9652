"""Index clips of one's own by a manifest: a CSV file with a row for each utterance."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Literal

from datamodules.extraction.index.clip_folds import Folds, checked_folds, clip_folds
from datamodules.extraction.index.reading import is_file, one_line, read_text, span
from datamodules.extraction.recordings import Half, Index, Recording, Source
from datamodules.storage.problems import Problems
from datamodules.text import has_control, printable

COLUMNS = ("id", "media", "text", "label", "speaker", "start", "end", "half", "audio", "split", "fold")
"""Columns that are read; only ``id`` and one of ``media``, ``audio`` and ``text`` are needed."""

_DELIMITERS = ",;\t"
_MANIFEST = "manifest.csv"

_Defect = Literal["no id", "bad id", "twice", "too long", "bad times", "bad half", "empty", "no media", "no audio"]

_DEFECTS: dict[_Defect, tuple[str, str]] = {
    "no id": ("has no id", "fill the column id; the row is left out"),
    "bad id": ("an id with a slash, a control character or no letter", "rename the utterance; the row is left out"),
    "twice": ("listed more than once; the first row counts", "give each row an id of its own"),
    "too long": ("has more cells than there are columns", "put quotes around a text with commas; the row is left out"),
    "bad times": ("start and end are no times in seconds, start before end", "correct them; the row is left out"),
    "bad half": ("half is none of left, right and whole", "correct it; the row is left out"),
    "empty": ("has neither media nor audio nor text", "fill one of them; the row is left out"),
    "no media": ("its media file does not exist", "give paths relative to the manifest"),
    "no audio": ("its audio file does not exist", "give paths relative to the manifest"),
}
_HALVES: dict[str, Half] = {"": "whole", "whole": "whole", "left": "left", "right": "right"}


@dataclass
class _Rows:
    """Rows of a manifest.

    Attributes:
        columns: names in the first line, in small letters.
        recordings: by id, of the rows that can be used.
        parts: by id, the columns ``split`` and ``fold`` of these rows.
        defects: ids, or numbers of rows without an id, by what is wrong with them.
    """

    columns: tuple[str, ...] = ()
    recordings: dict[str, Recording] = field(default_factory=dict)
    parts: dict[str, tuple[str, str]] = field(default_factory=dict)
    defects: dict[_Defect, list[str]] = field(default_factory=dict)

    def reject(self, name: str, defect: _Defect) -> None:
        self.defects.setdefault(defect, []).append(name)


def index_clips(raw: Path, folds: Folds | None = None, unlabelled: bool = True) -> Index:
    """Index the rows of a manifest.

    ``media`` and ``audio`` are paths relative to the manifest; ``start`` and ``end`` are seconds in both. ``audio``
    is heard instead of the sound track of ``media``.

    Args:
        raw: the manifest, or the folder that holds ``manifest.csv``.
        folds: ``speaker`` (each is tested once, the next one validates), ``column`` (``split``, or ``fold`` from 1: the
            next one validates), or a number of folds among which speakers are dealt; None: ``column`` if the manifest
            has one, otherwise ``speaker``.
        unlabelled: also take the rows without a label, which are in no fold.

    Raises:
        InputError: ``folds`` is none of these.
    """
    chosen = checked_folds(folds)
    path = Path(raw)
    path = path / _MANIFEST if path.is_dir() else path
    problems = Problems()
    rows = _read(path, problems)
    for defect, names in rows.defects.items():
        problems.add(path, *_DEFECTS[defect], names)
    recordings = [recording for _, recording in sorted(rows.recordings.items())]
    labelled = [recording for recording in recordings if recording.label is not None]
    recordings = recordings if unlabelled else labelled
    class_names = tuple(sorted({recording.label for recording in labelled if recording.label}))
    if not recordings and not problems.found:
        problems.add(path, "has no row that can be used", "add a row for each utterance")
    elif recordings and len(class_names) < 2:
        what = f"all labels are {printable(class_names[0], 40)}" if class_names else "no row has a label"
        problems.add(path, f"{what}, so there is nothing to learn", "fill the column label")
    if chosen is None:
        chosen = "column" if {"split", "fold"} & {*rows.columns} else "speaker"
    made = clip_folds(path, labelled, chosen, rows.parts, problems) if len(class_names) > 1 else {}
    return Index(
        corpus="Folder",
        class_names=class_names,
        recordings=tuple(recordings),
        folds=made,
        problems=tuple(problems.found),
        notes=tuple(_notes(labelled, class_names, rows)) if recordings else (),
        facts={"folds": chosen},
    )


def _read(path: Path, problems: Problems) -> _Rows:
    rows = _Rows()
    if not path.is_file():
        problems.add(path, "is not a file" if path.exists() else "does not exist", "give the manifest, a CSV file")
        return rows
    text = read_text(path, problems)
    if "\ufffd" in text:
        problems.add(path, "has bytes that are no UTF-8", "save it as CSV in UTF-8")
    delimiter = max(_DELIMITERS, key=text.partition("\n")[0].count)
    reader = csv.reader(StringIO(text, newline=""), delimiter=delimiter)
    try:
        rows.columns = tuple(cell.strip().lower() for cell in next(reader, []))
        if not _usable_columns(path, rows.columns, problems):
            return rows
        for cells in reader:
            if any(cell.strip() for cell in cells):
                _read_row(f"line {reader.line_num}", cells, path.parent, rows)
    except csv.Error as error:
        problems.add(path, f"line {reader.line_num} is no CSV ({error})", "save it again as CSV in UTF-8")
    return rows


def _usable_columns(path: Path, columns: tuple[str, ...], problems: Problems) -> bool:
    if "id" not in columns or not {"media", "text", "audio"} & {*columns}:
        what = "its first line does not name the columns id and media, audio or text"
        problems.add(path, what, f"begin it with a line of names among {','.join(COLUMNS)}")
        return False
    twice = sorted(name for name, count in Counter(columns).items() if name in COLUMNS and count > 1)
    if twice:
        problems.add(path, f"has more than one column {twice[0]}", "rename one of them")
    return not twice


def _read_row(where: str, cells: list[str], folder: Path, rows: _Rows) -> None:
    row = dict.fromkeys(COLUMNS, "")
    row |= {name: cell.strip() for name, cell in zip(rows.columns, cells, strict=False)}
    name, times = row["id"], _times(row["start"], row["end"])
    defect: _Defect | None = None
    if any(cell.strip() for cell in cells[len(rows.columns) :]):
        defect = "too long"
    elif not name:
        defect = "no id"
    elif has_control(name) or "/" in name or "\ufffd" in name or not name.strip("."):
        defect = "bad id"
    elif name in rows.recordings:
        defect = "twice"
    elif times is None:
        defect = "bad times"
    elif row["half"].lower() not in _HALVES:
        defect = "bad half"
    elif not (row["media"] or row["audio"] or row["text"]):
        defect = "empty"
    if defect is not None or times is None:
        rows.reject(name or where, defect or "bad times")
        return
    media, audio = (_source(row[column], folder, times) for column in ("media", "audio"))
    for column, source in (("media", media), ("audio", audio)):
        if source is not None and not is_file(source.path):
            rows.reject(name, "no media" if column == "media" else "no audio")
    rows.parts[name] = (row["split"], row["fold"])
    rows.recordings[name] = _recording(row, media, audio)


def _times(start: str, end: str) -> tuple[float, float | None] | None:
    """Times of a clip, whose end may be the file's; None if they are no times."""
    found = span(start or "0", end or "1e300")
    return found and (found[0], found[1] if end else None)


def _source(cell: str, folder: Path, times: tuple[float, float | None]) -> Source | None:
    # A manifest written on Windows has backslashes.
    return Source(folder / cell.replace("\\", "/"), *times) if cell else None


def _recording(row: Mapping[str, str], media: Source | None, audio: Source | None) -> Recording:
    there = {source: source is not None and is_file(source.path) for source in (media, audio)}
    sound = audio or media
    absent = {}
    if not there[sound]:
        absent["audio"] = "no such file" if sound else "no media"
    if not there[media]:
        absent["visual"] = "no such file" if media else "no media"
    text = one_line(row["text"])
    if not text:
        absent["text"] = "no transcript"
    return Recording(
        utterance=row["id"],
        sound=sound if there[sound] else None,
        picture=media if there[media] else None,
        text=text or None,
        half=_HALVES[row["half"].lower()],
        label=row["label"] or None,
        speaker=row["speaker"] or None,
        absent=absent,
    )


def _notes(labelled: list[Recording], class_names: tuple[str, ...], rows: _Rows) -> list[str]:
    counts = Counter(recording.label for recording in labelled)
    notes = [f"{', '.join(f'{name} {counts[name]}' for name in class_names) or 'no labels'}: {len(labelled)} in all"]
    ignored = [printable(name, 40) for name in rows.columns if name and name not in COLUMNS]
    if ignored:
        notes.append(f"columns that are not read: {', '.join(ignored)}")
    return notes
