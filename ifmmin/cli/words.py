"""Words of a command line, checked and put in order before a parser is built."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable, Iterator, Sequence

from datamodules.errors import InputError
from datamodules.files import expanded
from datamodules.text import printable
from ifmmin.cli import configurations

_CLASSES = ("--model", "--data")
_WRITTEN = ("--json", "--output")
_UNPRINTABLE = ("Cc", "Zl", "Zp")
_MEANT = {
    "seed": "seed_everything",
    "lr": "model.learning_rate",
    "epochs": "trainer.max_epochs",
    "gpus": "trainer.devices",
}
"""What other programs call an option."""


def checked(words: Iterable[str]) -> list[str]:
    """Words without what no option takes, with ``~`` expanded.

    Raises:
        InputError: a word holds control characters or is not UTF-8, ``~`` names nobody, or a value is YAML that is
            too large.
    """
    found = [_checked(word) for word in words]
    for option, value in _values(found):
        if option in _WRITTEN:
            continue
        if configurations.no_file(value):
            raise InputError(f"{printable(value)}: a pipe or a device, not a file; copy it into one.")
        if value.endswith(configurations.SETTINGS) and (option in _CLASSES or option.startswith("--trainer")):
            configurations.read(value)
    return found


def _values(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Options of a command line with their values."""
    for i, word in enumerate(words):
        if word.startswith("--") and "=" in word:
            option, _, value = word.partition("=")
            yield option, value
        elif i and words[i - 1].startswith("-") and not word.startswith("-"):
            yield words[i - 1], word


def _checked(word: str) -> str:
    option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
    structured = value.lstrip().startswith(("{", "["))  # may be written on several lines
    for letter in word:
        kind = unicodedata.category(letter)
        if kind == "Cs":
            raise InputError(f"{printable(word)}: not UTF-8; rename it, or set a UTF-8 locale.")
        if kind in _UNPRINTABLE and not (structured and letter in "\n\t\r"):
            raise InputError(f"{printable(word)}: holds a control character; leave it out.")
    if structured or ("&" in value and "*" in value):
        configurations.parse(value, printable(option or word, 60))
    if value.startswith("~"):
        value = str(expanded(value))
    return f"{option}{equals}{value}"


def in_order(words: Sequence[str]) -> list[str]:
    """Words with ``--model NAME`` before the first ``--model.option``, and ``--data NAME`` likewise.

    jsonargparse takes an option of a class only once the class is named.
    """
    ordered = list(words)
    for option in _CLASSES:
        first = next((i for i, word in enumerate(ordered) if word.startswith(f"{option}.")), None)
        named = next((i for i, word in enumerate(ordered) if word == option or word.startswith(f"{option}=")), None)
        if first is None or named is None or named < first:
            continue
        takes_next = ordered[named] == option and named + 1 < len(ordered)
        moved = ordered[named : named + 1 + takes_next]
        del ordered[named : named + len(moved)]
        ordered[first:first] = moved
    return ordered


def check_options(words: Sequence[str], known: Iterable[str]) -> None:
    """Refuse options that a command does not have; none is taken by an abbreviation.

    Args:
        words: after the command.
        known: names without ``--``; a name with a dot has groups before its dots. Those of a class are looked at by
            jsonargparse, which knows what a class passes on.

    Raises:
        InputError: with the nearest name.
    """
    names = set(known)
    for word in words:
        if not word.startswith("--") or word == "--":
            continue
        given = word[2:].partition("=")[0].removesuffix("+")
        group, dot, rest = given.partition(".")
        if given in names or (dot and f"--{group}" in _CLASSES):
            continue
        first = rest.removeprefix("init_args.").partition(".")[0].removesuffix("+")
        if not (dot and f"{group}.{first}" in names):
            raise InputError(_unknown(given, names))


def _unknown(given: str, names: set[str]) -> str:
    near = nearest(given, names)
    advice = f"Did you mean --{near}?" if near else "--help lists the options."
    return f"--{printable(given)} is not known. {advice}"


def nearest(given: str, names: Iterable[str]) -> str | None:
    """The known option that a mistyped or bare one means: ``data.fold`` for ``fold`` and ``fodl``."""
    names = sorted(names)
    group, _, leaf = given.rpartition(".")
    leaf = leaf.replace("-", "_").lower()
    if leaf in _MEANT and _MEANT[leaf] in names:
        return _MEANT[leaf]
    leaves: dict[str, str] = {}
    for name in sorted(names, key=lambda name: (name.rpartition(".")[0] != group, name.count("."), name)):
        leaves.setdefault(name.rpartition(".")[2].lower(), name)
    if leaf in leaves:
        return leaves[leaf]
    starting = [name for known, name in leaves.items() if len(leaf) > 2 and known.startswith(leaf)]
    if starting:
        return starting[0]
    close = difflib.get_close_matches(leaf, leaves, n=1, cutoff=0.7)
    return leaves[close[0]] if close else None
