"""Folders and small text files of a corpus of recordings, read whatever is wrong with them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from datamodules.storage.problems import Problems

LARGEST = 64 * 2**20
"""Bytes read of a label file, a transcript or a manifest."""

_TAG = re.compile(r"\[[^\[\]]*\]")


def read_text(path: Path, problems: Problems) -> str:
    """Text of a file, with bytes that are no UTF-8 replaced; a problem and "" if it cannot be read."""
    try:
        if path.exists() and not path.is_file():  # opening a pipe waits for its writer, for ever
            problems.add(path, "is not a file", "put the text file in its place")
            return ""
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
    except OSError as error:
        problems.add(path, f"cannot be read ({error.strerror or error})", "copy it again")
        return ""
    if len(content) > LARGEST:
        problems.add(path, f"has more than {LARGEST} bytes", "copy the right file")
        return ""
    return content.decode("utf-8-sig", errors="replace")


def files_in(folder: Path, suffix: str, prefix: str = "") -> dict[str, Path]:
    """Plain files of ``folder`` by their stem, sorted; empty if it cannot be listed.

    Hidden files are left out: among them those that a Mac writes beside others (``._Ses01F_impro01.txt``).
    """
    try:
        found = sorted(folder.iterdir())
    except OSError:
        return {}
    return {
        path.stem: path
        for path in found
        if path.suffix.lower() == suffix
        and path.name.startswith(prefix)
        and not path.name.startswith(".")
        and path.is_file()
    }


def folders_in(folder: Path) -> list[Path]:
    """Folders in ``folder``, sorted; none if it cannot be listed."""
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir())
    except OSError:
        return []


def is_file(path: Path) -> bool:
    """Whether ``path`` is a file; False for what no file can be called."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name of 300 letters, or with a NUL
        return False


def span(start: str, end: str) -> tuple[float, float] | None:
    """Times in seconds, None unless 0 <= start < end.

    >>> span("0.25", "1.5"), span("2", "1"), span("nan", "1"), span("a", "b")
    ((0.25, 1.5), None, None, None)
    """
    try:
        first, last = float(start), float(end)
    except ValueError:
        return None
    return (first, last) if 0 <= first < last < math.inf else None


def without_tags(words: str) -> str:
    """Words without ``[LAUGHTER]`` and the like.

    >>> without_tags("Yes. [LAUGHTER] I know.")
    'Yes. I know.'
    """
    return one_line(_TAG.sub(" ", words))


def one_line(text: str) -> str:
    """``text`` without blanks around it, each run of blanks and line ends one blank."""
    return " ".join(text.split())


def splits_of(ids_by_group: Mapping[str, Iterable[str]], val: str, test: str) -> dict[str, tuple[str, ...]]:
    """Splits of a fold: one group validates, one tests, all others train.

    >>> splits_of({"a": ["u2", "u1"], "b": ["u3"], "c": ["u4"]}, val="b", test="c")
    {'train': ('u1', 'u2'), 'val': ('u3',), 'test': ('u4',)}
    """
    train = [name for group, ids in ids_by_group.items() if group not in (val, test) for name in ids]
    held_out = (ids_by_group.get(group, ()) for group in (val, test))
    return dict(zip(("train", "val", "test"), (tuple(sorted(ids)) for ids in (train, *held_out)), strict=True))


def report_empty_splits(path: Path, folds: Mapping[int, Mapping[str, Sequence[str]]], problems: Problems) -> None:
    """Report the folds that cannot be used, in one line for each split."""
    for split in ("train", "val", "test"):
        empty = [str(fold) for fold, splits in folds.items() if not splits[split]]
        if empty:
            what = f"fold {', '.join(empty)} has no {split} utterance"
            problems.add(path, what, "bring the missing recordings, or leave this fold out")


def compared(counts: Mapping[str, int], published: Mapping[str, int]) -> str:
    """Counts beside published ones, in words.

    >>> compared({"angry": 2, "sad": 1}, {"angry": 2, "sad": 3})
    'angry 2, sad 1: 3 in all; published: angry 2, sad 3: 5 in all'
    """
    ours, theirs = (
        f"{', '.join(f'{name} {count}' for name, count in numbers.items())}: {sum(numbers.values())} in all"
        for numbers in ({name: counts.get(name, 0) for name in published}, published)
    )
    return f"{ours}; published: {theirs}"
