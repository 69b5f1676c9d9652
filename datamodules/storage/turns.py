"""A speaker's turns: which utterances are turns of one speaker in one dialogue, and in which order.

Ids say it where a layout has a ``turn_pattern``; ``ROOT/turns.csv`` says it for any corpus, and wins over ids::

    id,start,dialogue
    ann/01,0.0,monday
    bob/01,3.2,monday
    ann/02,5.9,monday

``start`` is the time at which the turn begins, in seconds from any one point of its dialogue. ``dialogue`` may be left
out: then the ids name the dialogue, if they do, or else a speaker's utterances are one dialogue. Speakers are those of
ids or of ``corpus.json``. The file may be a stranger's: it is bounded in size.
"""

from __future__ import annotations

import csv
import math
import os
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from datamodules.storage.corpus import Corpus, stored_utterances
from datamodules.storage.hdf5 import kind_of
from datamodules.storage.ids import key_of, tidy
from datamodules.storage.layouts import Layout, speaker_of
from datamodules.storage.problems import Problems, Strict
from datamodules.text import printable

IntArray = npt.NDArray[np.int64]

FILE = "turns.csv"
"""The file that says the order of turns, beside ``A``, ``V`` and ``L``."""

LARGEST = 64 * 2**20
"""Bytes of the file: the turns of some million utterances."""

NEEDED, OPTIONAL = ("id", "start"), ("dialogue",)
"""Its columns."""

_REMEDY = "docs/your_own_corpus.md shows one"


class Turn(NamedTuple):
    """Where an utterance stands in a dialogue.

    Attributes:
        chain: a name for one speaker's turns in one dialogue.
        number: of the turn among them; it rises with time.
    """

    chain: str
    number: int


@dataclass(frozen=True)
class Turns:
    """The turns of a corpus.

    Attributes:
        source: ``ids`` or ``turns.csv``.
        known: the turn of each utterance that has one, by id.
    """

    source: str
    known: Mapping[str, Turn]


def turns_path(root: Path) -> Path:
    """Path of the file."""
    return root / FILE


def turn_of(utterance: str, layout: Layout) -> Turn | None:
    """Find the turn by an utterance's id, None if it does not say.

    >>> from datamodules.storage.layouts import IEMOCAP_LAYOUT, MSP_IMPROV_LAYOUT
    >>> turn_of("Ses01F_impro04_M012", IEMOCAP_LAYOUT)
    Turn(chain='Ses01F_impro04_M', number=12)
    >>> turn_of("UTD-IMPROV-S01A-F01-S-FM03", MSP_IMPROV_LAYOUT)
    Turn(chain='UTD-IMPROV-S01A-F01-S-FM', number=3)
    """
    if layout.turn_pattern is None:
        return None
    overlooks_case = layout.match_ids in ("case", "all")
    name = tidy(utterance, layout.match_ids)
    match = re.search(layout.turn_pattern, name, re.IGNORECASE if overlooks_case else 0)
    if match is None or match.lastindex is None:
        return None
    start, end = match.span(match.lastindex)
    chain, number = name[:start] + name[end:], int(name[start:end])
    if layout.dialogue_turns is not None:
        dialogue, number = divmod(number, layout.dialogue_turns)
        chain = f"{chain}/{dialogue}"
    return Turn(key_of(chain, "case") if overlooks_case else chain, number)


def read_turns(
    root: Path, layout: Layout, utterances: Sequence[str], stored: Collection[str], problems: Problems
) -> Turns | None:
    """Find the turns of utterances.

    Args:
        root: the corpus's folder.
        layout: of its ids and speakers.
        utterances: those that need a turn.
        stored: all ids that the corpus has; the file may name them all.
        problems: collects what is wrong.

    Returns:
        the turns; None if there is no file, and not one of the ``utterances`` says its turn.
    """
    path = turns_path(root)
    if os.path.lexists(path):
        return Turns(FILE, _by_file(path, layout, utterances, stored, problems))
    found = {name: turn for name in utterances if (turn := turn_of(name, layout)) is not None}
    if not found:
        return None
    silent = [name for name in utterances if name not in found]
    remedy = f"rename it as the others, or write {FILE}: {_REMEDY}"
    problems.add_if_any(root, silent, "its id does not say which turn it is, as others do", remedy)
    first: dict[Turn, str] = {}
    twice = [name for name, turn in found.items() if first.setdefault(turn, name) != name]
    problems.add_if_any(root, twice, "its id names the same turn as another's", remedy)
    return Turns("ids", found)


def corpus_turns(corpus: Corpus, layout: Layout, splits: Sequence[IntArray]) -> IntArray:
    """Find the turns of a corpus, for a model that reads a speaker's earlier turns.

    Args:
        corpus: N utterances.
        layout: of its ids and speakers.
        splits: the positions of each split's utterances, which share none.

    Returns:
        int64 [N, 3], as in :class:`~datamodules.batches.batch.Batch`.

    Raises:
        CorpusError: the turn of an utterance is not known; ``turns.csv`` is damaged, or of another corpus.
    """
    problems = Strict()
    stored = stored_utterances(corpus.root, layout) if turns_bytes(corpus.root) is not None else ()
    turns = read_turns(corpus.root, layout, corpus.utterances, stored, problems)
    if turns is None:
        what = f"the model reads a speaker's earlier turns, but the ids of {layout.name} do not say which they are"
        problems.add(corpus.root, f"{what}, and there is no {FILE}", f"write it ({_REMEDY}), or choose another model")
        raise AssertionError("the line before has raised")
    return turn_table([turns.known[name] for name in corpus.utterances], splits)


def turns_bytes(root: Path) -> bytes | None:
    """Content of the file, None without one or where it cannot be read."""
    path = turns_path(root)
    try:
        return path.read_bytes() if path.is_file() and path.stat().st_size <= LARGEST else None
    except OSError:
        return None


def turn_table(turns: Sequence[Turn], splits: Sequence[IntArray]) -> IntArray:
    """Number chains and positions for :attr:`~datamodules.batches.batch.Batch.turn`.

    A chain is inside one split: what a speaker says in another one is another chain.

    Args:
        turns: of the N utterances of a corpus.
        splits: the positions of each split's utterances, which share none.

    Returns:
        int64 [N, 3]: chain, position in it, step since the turn before it.

    >>> turns = [Turn("a", 5), Turn("b", 0), Turn("a", 2), Turn("a", 1)]
    >>> turn_table(turns, [np.array([0, 1, 2]), np.array([3])]).tolist()
    [[0, 1, 3], [1, 0, 0], [0, 0, 0], [2, 0, 0]]
    """
    table = np.zeros((len(turns), 3), dtype=np.int64)
    count = 0
    for rows in splits:
        chains: dict[str, list[int]] = {}
        for row in rows.tolist():
            chains.setdefault(turns[row].chain, []).append(row)
        for members in chains.values():
            members.sort(key=lambda row: turns[row].number)
            numbers = np.array([turns[row].number for row in members], dtype=np.int64)
            table[members] = np.stack(
                [np.full_like(numbers, count), np.arange(len(numbers)), np.diff(numbers, prepend=numbers[0])], axis=1
            )
            count += 1
    return table


@dataclass(frozen=True)
class _Row:
    """One row: line of the file, cells; ``dialogue`` is None without such a column."""

    line: int
    utterance: str
    start: float
    dialogue: str | None


def _by_file(
    path: Path, layout: Layout, utterances: Sequence[str], stored: Collection[str], problems: Problems
) -> dict[str, Turn]:
    """The turn of each of ``utterances`` in the file: its rank by start among the rows of its chain."""
    rule = layout.match_ids
    known = {key_of(name, rule) for name in (*stored, *utterances)}
    chains: dict[str, list[tuple[float, str]]] = {}
    seen: set[str] = set()
    for row in _rows(path, problems):
        key = key_of(row.utterance, rule)
        if key not in known:
            what = f"line {row.line}: an id that no feature file has"
            problems.add(path, what, "correct it, or leave the row out", (row.utterance,))
        elif key in seen:
            problems.add(path, f"line {row.line}: listed before", "list it once", (row.utterance,))
        elif (chain := _chain(row, layout)) is None:
            remedy = "give its speaker in corpus.json, or leave the row out"
            problems.add(path, f"line {row.line}: nothing says who speaks", remedy, (row.utterance,))
        else:
            chains.setdefault(chain, []).append((row.start, key))
        seen.add(key)
    turns: dict[str, Turn] = {}
    for chain, members in chains.items():
        members.sort()
        for number, (start, key) in enumerate(members):
            turns[key] = Turn(chain, number)
            if number and members[number - 1][0] == start:
                what = f"starts at {start:g}, as another turn of its speaker in this dialogue does"
                problems.add(path, what, "correct one of them, or name their dialogues", (key,))
    silent = [name for name in utterances if key_of(name, rule) not in seen]
    problems.add_if_any(path, silent, "has no row", "add one with its start")
    return {name: turns[key] for name in utterances if (key := key_of(name, rule)) in turns}


def _chain(row: _Row, layout: Layout) -> str | None:
    if row.dialogue is None and (turn := turn_of(row.utterance, layout)) is not None:
        return turn.chain
    speaker = speaker_of(row.utterance, layout)
    return None if speaker is None else f"{speaker}\0{row.dialogue or ''}"


def _rows(path: Path, problems: Problems) -> Iterator[_Row]:
    """Yield the rows that can be used."""
    text = _text(path, problems)
    if text is None:
        return
    reader = csv.reader(StringIO(text, newline=""))
    try:
        columns = [cell.strip() for cell in next(reader, [])]
        if not _usable(path, columns, problems):
            return
        for cells in reader:
            if any(cell.strip() for cell in cells):
                row = _row(path, reader.line_num, columns, cells, problems)
                if row is not None:
                    yield row
    except csv.Error as error:
        problems.add(path, f"line {reader.line_num} is no CSV ({error})", "save it again as CSV in UTF-8")


def _usable(path: Path, columns: Sequence[str], problems: Problems) -> bool:
    lacking = [name for name in NEEDED if name not in columns]
    odd = [name for name in columns if name not in (*NEEDED, *OPTIONAL)]
    twice = [name for name, count in Counter(columns).items() if count > 1]
    what = None
    if lacking:
        what = f"its first line does not name the column {lacking[0]}"
    elif odd:
        what = f"has a column {printable(odd[0], 60)!r}, where there are {', '.join((*NEEDED, *OPTIONAL))}"
    elif twice:
        what = f"has more than one column {twice[0]}"
    if what is not None:
        problems.add(path, what, f"begin it with a line id,start or id,start,dialogue: {_REMEDY}")
    return what is None


def _row(path: Path, line: int, columns: Sequence[str], cells: Sequence[str], problems: Problems) -> _Row | None:
    if len(cells) != len(columns):
        problems.add(path, f"line {line}: has {len(cells)} cells, not {len(columns)}", "quote cells that hold commas")
        return None
    values = dict(zip(columns, cells, strict=True))
    try:
        start = float(values["start"])
    except ValueError:
        start = math.nan
    what = None
    if not 0 <= start < math.inf:
        what = f"start {printable(values['start'], 40)!r} is no number of seconds from 0 on"
    elif "dialogue" in values and not values["dialogue"].strip():
        what = "names no dialogue, as others do"
    if what is not None:
        problems.add(path, f"line {line}: {what}", "correct the cell", (values["id"],))
        return None
    dialogue = values["dialogue"].strip() if "dialogue" in values else None
    return _Row(line, values["id"], start, dialogue)


def _text(path: Path, problems: Problems) -> str | None:
    """Content of the file, None if it cannot be read."""
    if path.exists() and not path.is_file():  # to open a pipe would wait for its writer, for ever
        problems.add(path, f"is {kind_of(path)}, not a file", "put a table of turns in its place, or move it away")
        return None
    try:
        with path.open("rb") as stream:
            content = stream.read(LARGEST + 1)
    except OSError as error:
        problems.add(path, f"cannot be read ({error.strerror or error})", "let yourself read it, or move it away")
        return None
    if len(content) > LARGEST:
        problems.add(path, f"has more than the {LARGEST} bytes that a table of turns may have", "leave rows out")
        return None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        problems.add(path, "is not UTF-8", "save it as CSV in UTF-8")
        return None
