"""Configuration files, checked before a parser reads them: their size, what they would grow to, and their keys.

YAML can name a list within a list within a list ..., so that a file of 400 bytes takes gigabytes ("billion laughs").
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from datamodules.errors import InputError
from datamodules.text import printable

SETTINGS = (".yaml", ".yml", ".json")
"""How the name of a file of settings ends."""

MAX_BYTES = 1_000_000
MAX_DEPTH = 40
MAX_NODES = 100_000
"""Values of a file, each alias counted as what it stands for."""

_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "seq", "map")}
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_GROUPS = ("trainer", "model", "data")
_CLASSES = ("model", "data")  # may be given by name alone
_OLD = {"weights_only", "verbose", "return_predictions"}  # written by earlier versions, without an effect


def read(path: str) -> dict[str, Any]:
    """Read a configuration file.

    Raises:
        InputError: it is not there, no file, too large, no text, no YAML, or holds more than plain values.
    """
    place = Path(path).expanduser()
    shown = printable(path)
    if place.is_dir():
        raise InputError(f"{shown}: a folder; name the configuration file in it.")
    if not place.exists():
        raise InputError(f"{shown}: there is no such configuration file.")
    if not place.is_file():
        raise InputError(f"{shown}: not a file; a configuration is a file in YAML or JSON.")
    if place.stat().st_size > MAX_BYTES:
        raise InputError(f"{shown}: has {place.stat().st_size:,} bytes; a configuration has at most {MAX_BYTES:,}.")
    try:
        text = place.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{shown}: not UTF-8 (byte {error.start}); save it as UTF-8.") from error
    loaded = parse(text, shown)
    if not isinstance(loaded, dict):
        what = "empty" if loaded is None else f"holds {_kind(loaded)}"
        raise InputError(f"{shown}: {what}, not options by name, such as 'seed_everything: 1'.")
    return loaded


def parse(text: str, where: str) -> Any:
    """The plain values of a YAML or JSON text.

    Raises:
        InputError: it is broken, too deep, too large once its aliases are followed, or names types.
    """
    try:
        _check_size(text, where)
        return yaml.load(text, _LOADER)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f" line {mark.line + 1}:" if mark else ""
        raise InputError(f"{where}:{line} not YAML ({printable(error.problem or error.context)}).") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = printable(str(error).partition("\n")[0])
        raise InputError(f"{where}: not YAML ({reason}).") from error


def _check_size(text: str, where: str) -> None:
    """Count what a text would grow to; nothing is built."""
    open_nodes: list[tuple[str | None, int]] = []  # the anchors of open lists and mappings, and the count before them
    sizes: dict[str, int] = {}
    total = 0
    for event in yaml.parse(text, _LOADER):
        line = f"{where}: line {event.start_mark.line + 1}:"
        tag = getattr(event, "tag", None)
        if tag is not None and tag not in _TAGS:
            raise InputError(f"{line} the type {printable(tag)} is not allowed; write plain values.")
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise InputError(f"{line} *{printable(event.anchor)} stands for nothing above, or holds itself.")
            total += sizes[event.anchor]
        elif isinstance(event, yaml.ScalarEvent):
            total += 1
            if event.anchor:
                sizes[event.anchor] = 1
        elif isinstance(event, yaml.CollectionStartEvent):
            open_nodes.append((event.anchor, total))
            total += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_nodes.pop()
            if anchor:
                sizes[anchor] = total - before
        if len(open_nodes) > MAX_DEPTH:
            raise InputError(f"{line} nested more than {MAX_DEPTH} deep; a configuration is not.")
        if total > MAX_NODES:
            raise InputError(f"{line} grows to more than {MAX_NODES:,} values; a configuration does not.")


def check(path: str, known: set[str], elsewhere: set[str]) -> set[str]:
    """Check a configuration file, and the files of settings that it names.

    Args:
        path: of the file.
        known: names of the options that the command has.
        elsewhere: names of those that other commands have.

    Returns:
        the names in the file that only other commands have, or only earlier versions had.

    Raises:
        InputError: as :func:`read`; or a name is not known, or a group of options is none.
    """
    settings, shown = read(path), printable(path)
    foreign = set()
    for key, value in settings.items():
        if not isinstance(key, str):
            raise InputError(f"{shown}: {printable(key)} is no name of an option.")
        name = key.partition(".")[0]
        if name not in known | elsewhere | _OLD:
            near = difflib.get_close_matches(name, sorted(known), n=1)
            hint = f" Did you mean {near[0]}?" if near else f" There are: {', '.join(sorted(known))}."
            raise InputError(f"{shown}: the option {printable(name)} is not known.{hint}")
        if name not in known:
            foreign.add(key)
        elif key in _GROUPS:
            _check_group(shown, key, value)
    for inner in _files_named(settings, Path(path).expanduser().parent):
        read(inner)
    return foreign


def _check_group(where: str, key: str, value: Any) -> None:
    if value is None or isinstance(value, dict) or (isinstance(value, str) and (key in _CLASSES or _is_file(value))):
        if isinstance(value, dict) and not all(isinstance(name, str) for name in value):
            raise InputError(f"{where}: {key} holds a name that is no text.")
        return
    wanted = "a class name, or class_path and init_args" if key in _CLASSES else "options by name"
    raise InputError(f"{where}: {key} holds {_kind(value)}; it takes {wanted}.")


def _kind(value: Any) -> str:
    return "a list" if isinstance(value, list) else printable(repr(value), 60)


def _is_file(value: str) -> bool:
    return value.endswith(SETTINGS)


def _files_named(value: Any, folder: Path) -> Iterator[str]:
    """Files of settings that are named anywhere in ``value`` and are there."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from _files_named(each, folder)
    elif isinstance(value, str) and _is_file(value) and (folder / value).exists():
        yield str(folder / value)
