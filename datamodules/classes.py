"""Which classes are told apart: some of those in label files, in an order of one's own, merged and renamed.

::

    --data.classes angry,happy+excited,neutral,sad       merge two, leave the others out
    --data.classes 'joy=happy+excited,sad'               give the merged class a name
    --data.label_names angry,happy,neutral,sad,excited,frustrated
                                                         what the columns or numbers of the label files are called
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from datamodules.errors import InputError
from datamodules.labels import Classes, LabelScheme, ReadLabels
from datamodules.storage.problems import Problems
from datamodules.text import has_control, printable

LONGEST_NAME = 100
"""Letters of the name of a class."""

_CLASSES, _LABEL_NAMES = "--data.classes", "--data.label_names"


@dataclass(frozen=True)
class ChosenClasses(Classes):
    """Classes made of those in label files; an utterance of another class is left out.

    Attributes:
        names: in label order; label c is ``names[c]``.
        stored: names of the columns or numbers of label files, in their order.
        members: of each of ``names``, the stored classes it is made of.

    >>> print(ChosenClasses(("joy", "sad"), ("sad", "happy", "calm"), (("happy",), ("sad",))))
    joy (happy), sad of the label files' sad, happy, calm
    """

    stored: tuple[str, ...] = ()
    members: tuple[tuple[str, ...], ...] = ()

    def __str__(self) -> str:
        """In words, as a run prints it."""
        made = (
            name if parts == (name,) or "+".join(parts) == name else f"{name} ({', '.join(parts)})"
            for name, parts in zip(self.names, self.members, strict=True)
        )
        return f"{', '.join(made)} of the label files' {', '.join(self.stored)}"

    @property
    def membership(self) -> npt.NDArray[np.bool_]:
        """Bool [S, C]: whether a stored class is part of a class."""
        return np.array([[name in parts for parts in self.members] for name in self.stored])

    @property
    def made_of(self) -> dict[str, list[str]] | None:
        """Stored classes by class; None if all are told apart under their own names, in whatever order."""
        own = all(parts == (name,) for name, parts in zip(self.names, self.members, strict=True))
        if own and {*self.names} == {*self.stored}:
            return None
        return {name: [*parts] for name, parts in zip(self.names, self.members, strict=True)}

    def merged(self, counts: Mapping[str, int]) -> dict[str, int]:
        """Utterances by class from those by stored class."""
        return {
            name: sum(counts.get(part, 0) for part in parts)
            for name, parts in zip(self.names, self.members, strict=True)
        }

    def read(
        self, path: Path, ids: list[str], labels: npt.NDArray[Any], problems: Problems, drop_unknown: bool = False
    ) -> ReadLabels | None:
        """Read as :class:`~datamodules.labels.Classes` does, then merge and leave out.

        Probabilities of merged classes are added. An utterance is left out if a class that is left out is more
        probable than each of the others; of the rest the probabilities are scaled to add up to 1.
        """
        read = Classes(self.stored).read(path, ids, labels, problems, drop_unknown)
        if read is None:
            return None
        membership = self.membership
        chosen = np.array([any(name in parts for parts in self.members) for name in self.stored])
        soft, number, top = None, membership.argmax(axis=1)[read.numbers], read.numbers
        kept: npt.NDArray[np.bool_] = chosen[read.numbers]
        if read.soft is not None:
            mass = read.soft.astype(np.float64) @ membership
            others = np.where(chosen, 0.0, read.soft)
            number, top = mass.argmax(axis=1), others.argmax(axis=1)
            kept = mass.max(axis=1) >= others.max(axis=1)
            total = mass.sum(axis=1, keepdims=True)
            soft = (mass / np.where(total > 0, total, 1)).astype(np.float32)
        left = Counter(self.stored[place] for place in top[read.known & ~kept].tolist())
        left_out = {name: left[name] for name in self.stored if left[name]}
        return ReadLabels(np.where(kept, number, 0).astype(np.int64), soft, read.known & kept, left_out)


def choose_classes(
    labels: LabelScheme,
    corpus: str,
    classes: str | Sequence[str] | None,
    label_names: str | Sequence[str] | None,
    described: bool = False,
) -> LabelScheme:
    """Give the classes that two options name.

    Args:
        labels: of the corpus.
        corpus: its name, for messages.
        classes: what is told apart, in label order: a list, or text with commas, of ``NAME``, of ``NAME+NAME`` for
            classes merged into one, or of ``NEW=NAME+NAME`` to call it otherwise. None: all of the label files.
        label_names: what the columns or numbers of label files are called, in their order, in the same form. None: as
            the corpus calls them; ``classes`` that has all of those and more, and merges none, names them too.
        described: whether a ``corpus.json`` names the classes of the label files.

    Returns:
        ``labels`` itself where nothing else is chosen than it has.

    Raises:
        InputError: labels are values; a class is unknown, named twice or chosen twice, or fewer than two are left.
    """
    if classes is None and label_names is None:
        return labels
    if not isinstance(labels, Classes) or not labels.names:
        option = _LABEL_NAMES if classes is None else _CLASSES
        raise InputError(f"{option}: the labels of {corpus} are no classes.")
    own = labels.stored if isinstance(labels, ChosenClasses) else labels.names
    wanted = None if classes is None else _listed(classes, own, _CLASSES)
    stored = own
    if label_names is not None:
        stored = tuple(_listed(label_names, own, _LABEL_NAMES))
        if described and stored != own:
            raise InputError(f"{_LABEL_NAMES}: corpus.json names the classes of {corpus}: {_shown(own)}.")
    elif wanted is not None and not described and {*wanted} > {*own} and not any(map(_is_made, wanted)):
        stored = tuple(wanted)
    _check_names(stored, _LABEL_NAMES if label_names is not None else _CLASSES)
    made: dict[str, tuple[str, ...]] = {name: (name,) for name in stored}
    if wanted is not None:
        parsed = [_parse(word, stored) for word in wanted]
        _check_names([name for name, _ in parsed], _CLASSES)
        made = dict(parsed)
    used = Counter(part for parts in made.values() for part in parts)
    if twice := [name for name, count in used.items() if count > 1]:
        raise InputError(f"{_CLASSES}: {printable(twice[0])} is chosen twice.")
    if stored == labels.names and [*made.items()] == [(name, (name,)) for name in stored]:
        return labels
    return ChosenClasses(tuple(made), stored, tuple(made.values()))


def _listed(given: str | Sequence[str], known: Sequence[str], option: str) -> list[str]:
    """Words of an option; text is split at commas."""
    words = [given] if isinstance(given, str) and given in known else given
    found = [word.strip() for word in (words.split(",") if isinstance(words, str) else words)]
    if not all(found):
        raise InputError(f"{option} {printable(repr(given), 60)}: an empty name.")
    return found


def _is_made(word: str) -> bool:
    return "+" in word or "=" in word


def _parse(word: str, stored: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """Name and members of one class; a stored name is taken whole, whatever signs it has."""
    if word in stored:
        return word, (word,)
    name, equals, made = word.partition("=")
    made = made if equals else word
    parts = (made.strip(),) if made.strip() in stored else tuple(part.strip() for part in made.split("+"))
    for part in parts:
        if part not in stored:
            near = difflib.get_close_matches(part, stored, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise InputError(
                f"{_CLASSES}: there is no class {printable(repr(part), 60)}.{hint} The label files have "
                f"{_shown(stored)}; if others, name them in the order of their columns or numbers by {_LABEL_NAMES}."
            )
    return (name.strip() if equals else "+".join(parts)), parts


def _check_names(names: Sequence[str], option: str) -> None:
    if len(names) < 2:
        raise InputError(f"{option} {_shown(names)}: give at least two classes.")
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise InputError(f"{option}: {printable(twice[0])} is there twice.")
    if odd := [name for name in names if has_control(name) or not 0 < len(name) <= LONGEST_NAME]:
        raise InputError(f"{option}: {printable(repr(odd[0]), 60)} is no name of 1 to {LONGEST_NAME} letters.")


def _shown(names: Sequence[str]) -> str:
    return printable(", ".join(names), 200)
