"""Configuration files, checked before a parser reads them: their size, what they would grow to, and their keys.

YAML can name a list within a list within a list ..., so that a file of 400 bytes takes gigabytes ("billion laughs").
"""

from __future__ import annotations

import difflib
import os
import stat
import unicodedata
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
_OF_CLASS = ("class_path", "init_args", "dict_kwargs")
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
    for value in strings(loaded):
        if any(letter not in "\n\t\r" and unicodedata.category(letter) == "Cc" for letter in value):
            raise InputError(f"{shown}: {printable(value, 60)} holds a control character; leave it out.")
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


def strings(value: Any) -> Iterator[str]:
    """All text in a loaded value, names of options too."""
    if isinstance(value, dict):
        for name, each in value.items():
            yield from strings(name)
            yield from strings(each)
    elif isinstance(value, list):
        for each in value:
            yield from strings(each)
    elif isinstance(value, str):
        yield value


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


def check(path: str, options: set[str], elsewhere: set[str]) -> set[str]:
    """Check a configuration file, and the files of settings that it names.

    Args:
        path: of the file.
        options: names of the options that the command has, such as ``trainer.max_epochs``.
        elsewhere: names of those that other commands have.

    Returns:
        the names in the file that only other commands have, or only earlier versions had.

    Raises:
        InputError: as :func:`read`; or a name is not known, or a group of options is none.
    """
    settings, shown = read(path), printable(path)
    known = {name.partition(".")[0] for name in options}
    foreign = set()
    for key, value in settings.items():
        if not isinstance(key, str):
            raise InputError(f"{shown}: {printable(key)} is no name of an option.")
        name = key.partition(".")[0]
        if name not in known | elsewhere | _OLD:
            raise InputError(_unknown(shown, name, known))
        if name not in known:
            foreign.add(key)
        elif key in _GROUPS:
            _check_group(shown, key, value)
            if isinstance(value, str) and value.endswith(SETTINGS):
                read(str(Path(path).expanduser().parent / value))
            if key == "trainer" and isinstance(value, dict):
                of_trainer = {option.removeprefix("trainer.") for option in options if option.startswith("trainer.")}
                for inner in value:
                    if inner not in of_trainer:
                        raise InputError(
                            _unknown(shown, f"trainer.{inner}", {f"trainer.{each}" for each in of_trainer})
                        )
    for inner in _files_named(settings, Path(path).expanduser().parent):
        read(inner)
    return foreign


def _unknown(where: str, name: str, known: set[str]) -> str:
    near = difflib.get_close_matches(name, sorted(known), n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    return f"{where}: the option {printable(name)} is not known.{hint}"


def _check_group(where: str, key: str, value: Any) -> None:
    """Refuse a value of ``trainer``, ``model`` or ``data`` that holds no options."""
    of_class = key in _CLASSES
    if isinstance(value, dict):
        for name in value:
            if not isinstance(name, str) or (of_class and "class_path" in value and name not in _OF_CLASS):
                raise InputError(_unknown(where, f"{key}.{name}", {f"{key}.{each}" for each in _OF_CLASS}))
        inner = value.get("init_args") if of_class else None
        if inner is not None and not isinstance(inner, dict):
            raise InputError(f"{where}: {key}.init_args holds {_kind(inner)}; it takes options by name.")
    elif value is not None and not (isinstance(value, str) and (of_class or value.endswith(SETTINGS))):
        wanted = "a class name, or class_path and init_args" if of_class else "options by name"
        raise InputError(f"{where}: {key} holds {_kind(value)}; it takes {wanted}.")


def class_named(settings: dict[str, Any], key: str) -> str | None:
    """The class that ``model`` or ``data`` names in a checked configuration, None where another file does."""
    value = settings.get(key)
    name = value.get("class_path") if isinstance(value, dict) else value
    return name if isinstance(name, str) and not name.endswith(SETTINGS) else None


def _kind(value: Any) -> str:
    return "a list" if isinstance(value, list) else printable(repr(value), 60)


def no_file(path: str) -> bool:
    """Whether there is a pipe, a socket or a device, from which reading may never end."""
    try:
        mode = Path(path).stat().st_mode
    except (OSError, ValueError):
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)) and path != os.devnull


def _files_named(value: Any, folder: Path) -> Iterator[str]:
    """Files of settings that are named anywhere in ``value`` and are there, and what is no file."""
    for text in strings(value):
        place = str(folder / text)
        if no_file(text) or no_file(place) or (text.endswith(SETTINGS) and Path(place).exists()):
            yield text if no_file(text) else place
