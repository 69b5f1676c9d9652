"""Folds of clips of one's own: by speaker, by a column of the manifest, or a number of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from datamodules.errors import InputError
from datamodules.extraction.index.reading import splits_of
from datamodules.extraction.recordings import Recording
from datamodules.storage.problems import Problems
from datamodules.storage.targets import SPLITS
from datamodules.text import printable

Folds = Literal["speaker", "column"] | int | str

Splits = dict[int, dict[str, tuple[str, ...]]]

_SPLIT_NAMES = {"train": "train", "trn": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val"}
_SPLIT_NAMES |= {"test": "test", "tst": "test"}

_FEWEST = 3
"""Groups that a fold needs: one to train on, one that validates, one to test."""


def checked_folds(folds: Folds | None) -> Literal["speaker", "column"] | int | None:
    """``folds`` as :func:`clip_folds` takes it: a number may be given as text.

    Raises:
        InputError: it is neither ``speaker`` nor ``column`` nor a number of at least three.
    """
    if folds is None or folds == "speaker" or folds == "column":
        return None if folds is None else "speaker" if folds == "speaker" else "column"
    if _is_number(str(folds)) and int(folds) >= _FEWEST:
        return int(folds)
    raise InputError(f"folds {printable(folds)}: give speaker, column, or a number of at least {_FEWEST}.")


def _is_number(text: str) -> bool:
    return text.isdecimal() and len(text) < 10  # Python refuses to read a number of 5000 digits


def clip_folds(
    path: Path,
    labelled: Sequence[Recording],
    folds: Literal["speaker", "column"] | int,
    parts: Mapping[str, tuple[str, str]],
    problems: Problems,
) -> Splits:
    """Utterances of each split of each fold, in the order of ids; {} and a problem if there can be no fold.

    Args:
        path: the manifest, which problems name.
        labelled: the utterances to divide.
        folds: how, see :func:`~datamodules.extraction.index.clips.index_clips`.
        parts: ``split`` and ``fold`` of each utterance, as the manifest has them.
        problems: collects what is wrong.
    """
    if folds == "column":
        return _by_column(path, labelled, parts, problems)
    nobody = [recording.utterance for recording in labelled if not recording.speaker]
    if folds == "speaker":
        problems.add_if_any(path, nobody, "has no speaker", "fill the column speaker; the row is in no fold")
        groups: dict[str, list[str]] = {}
        for recording in labelled:
            if recording.speaker:
                groups.setdefault(recording.speaker, []).append(recording.utterance)
        return _rotated(path, [groups[speaker] for speaker in sorted(groups)], "speakers", problems)
    if nobody:
        what = f"{len(nobody)} labelled rows have no speaker, so one person may be in train and test"
        problems.add(path, what, "fill the column speaker")
    units = len({recording.speaker or (recording.utterance,) for recording in labelled})
    if units < folds:
        problems.add(path, f"has {units} speakers, too few for {folds} folds", "ask for fewer --folds")
        return {}
    return _rotated(path, _dealt(labelled, folds), "folds", problems)


def _rotated(path: Path, groups: Sequence[Sequence[str]], what: str, problems: Problems) -> Splits:
    """Each group is tested once, the next one validates, the others train."""
    if len(groups) < _FEWEST:
        remedy = "add recordings, or give the column split and --folds column"
        problems.add(path, f"has {len(groups)} {what}, where folds need {_FEWEST}", remedy)
        return {}
    named = {str(number): ids for number, ids in enumerate(groups)}
    return {
        number + 1: splits_of(named, val=str((number + 1) % len(groups)), test=str(number))
        for number in range(len(groups))
    }


def _dealt(labelled: Sequence[Recording], folds: int) -> list[list[str]]:
    """Deal speakers to groups of about the same classes, those with most utterances first.

    Each goes where its classes are rarest so far. An utterance without a speaker counts as a speaker of its own.
    """
    units: dict[str | tuple[str], list[Recording]] = {}
    for recording in labelled:
        units.setdefault(recording.speaker or (recording.utterance,), []).append(recording)
    groups: list[list[str]] = [[] for _ in range(folds)]
    counts: list[Counter[str | None]] = [Counter() for _ in range(folds)]
    for _, unit in sorted(units.items(), key=lambda item: (-len(item[1]), str(item[0]))):
        classes = Counter(recording.label for recording in unit)
        group = min(
            range(folds),
            key=lambda number: (sum(counts[number][name] * classes[name] for name in classes), len(groups[number])),
        )
        groups[group] += [recording.utterance for recording in unit]
        counts[group] += classes
    return groups


def _by_column(
    path: Path, labelled: Sequence[Recording], parts: Mapping[str, tuple[str, str]], problems: Problems
) -> Splits:
    """One fold by the column ``split``, or as many as the column ``fold`` has numbers."""
    ids = [recording.utterance for recording in labelled]
    splits, numbers = ({name: parts[name][column] for name in ids if parts[name][column]} for column in (0, 1))
    if splits and numbers:
        problems.add(path, "has both columns split and fold; split is taken", "remove one of them")
    taken = splits or numbers
    if not taken:
        problems.add(path, "has no column split or fold that is filled", "fill one of them, or give --folds speaker")
        return {}
    left = [name for name in ids if name not in taken]
    problems.add_if_any(path, left, "has no split or fold", "fill the column; the row is in no fold")
    if splits:
        return _by_split(path, splits, problems)
    bad = [name for name, number in numbers.items() if not _is_number(number) or int(number) < 1]
    problems.add_if_any(path, bad, "fold is no number from 1", "correct it; the row is in no fold")
    groups: dict[int, list[str]] = {}
    for name in numbers.keys() - bad:
        groups.setdefault(int(numbers[name]), []).append(name)
    if sorted(groups) != list(range(1, len(groups) + 1)):
        found = ", ".join(map(str, sorted(groups)))
        problems.add(path, f"folds are {found}, and become 1 to {len(groups)} in this order", "number them from 1")
    return _rotated(path, [groups[number] for number in sorted(groups)], "folds", problems)


def _by_split(path: Path, splits: Mapping[str, str], problems: Problems) -> Splits:
    by_split: dict[str, list[str]] = {split: [] for split in SPLITS}
    bad = [name for name, split in splits.items() if split.lower() not in _SPLIT_NAMES]
    problems.add_if_any(path, bad, "split is none of train, val and test", "correct it; the row is in no fold")
    for name in splits.keys() - bad:
        by_split[_SPLIT_NAMES[splits[name].lower()]].append(name)
    empty = [split for split in SPLITS if not by_split[split]]
    if empty:
        problems.add(path, f"no labelled row has the split {empty[0]}", "give each split some rows")
    return {1: {split: tuple(sorted(names)) for split, names in by_split.items()}}
