"""How a feature file was made: the JSON attribute ``extraction`` of the file.

It holds no path, no time and no user name, so that the same recordings and the same recipe give the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from h5py import h5a, h5f, h5s, h5t

from datamodules.storage.hdf5 import H5_ERRORS
from datamodules.text import has_control, printable

ATTRIBUTE = "extraction"

FORMAT = 1

LARGEST = 256 * 1024
"""Bytes of the attribute; a stranger's file may claim any size."""

DEEPEST, MOST_VALUES, LONGEST_NAME, LONGEST_TEXT = 12, 50_000, 200, 10_000
"""How deep the attribute's content may be nested, and how much it may have; a checkpoint holds as much."""

_KINDS: Mapping[str, type | tuple[type, ...]] = {
    "extractor": str,
    "options": dict,
    "recipe": dict,
    "detector": (dict, type(None)),
    "rate": int,
    "width": int,
    "ifmmin": str,
    "corpus": str,
    "facts": dict,
    "utterances": str,
    "sources": str,
}


def describe(
    extractor: str,
    options: Mapping[str, Any],
    recipe: Mapping[str, Any],
    detector: Mapping[str, Any] | None,
    *,
    rate: int,
    width: int,
    corpus: str,
    facts: Mapping[str, Any],
    utterances: Iterable[str],
    sources: Any,
) -> dict[str, Any]:
    """Make the provenance of a feature file.

    Args:
        extractor: registry name.
        options: keyword options of the extractor's class.
        recipe: what the extractor says of itself.
        detector: registry name and options of the face detector, as ``extractor`` and ``options``; None without one.
        rate: frames a second, 0 where frames have no rate, such as words.
        width: values of a frame.
        corpus: name of the corpus.
        facts: further plain facts of the corpus.
        utterances: ids in the file.
        sources: sizes of the sources, plain data.
    """
    return {
        "format": FORMAT,
        "extractor": extractor,
        "options": dict(options),
        "recipe": dict(recipe),
        "detector": None if detector is None else dict(detector),
        "rate": rate,
        "width": width,
        "ifmmin": library_version(),
        "corpus": corpus,
        "facts": dict(facts),
        "utterances": digest(sorted(utterances)),
        "sources": digest(sources),
    }


def library_version() -> str:
    """Version of this library; ``unknown`` where it is used without an install."""
    try:
        return metadata.version("ifmmin")
    except metadata.PackageNotFoundError:
        return "unknown"


def canonical(value: Any) -> str:
    """JSON text of plain data, the same for equal data.

    Raises:
        TypeError: it is not plain data.
        ValueError: a number is not finite.

    >>> canonical({"b": (1, 2), "a": None})
    '{"a":null,"b":[1,2]}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def digest(value: Any) -> str:
    """Sha256 of :func:`canonical`, in hexadecimal."""
    return hashlib.sha256(canonical(value).encode("ascii")).hexdigest()


def encoded(provenance: Mapping[str, Any]) -> bytes:
    """Bytes of the attribute.

    Raises:
        ValueError: a recipe or the facts are too large, or not what :func:`read_provenance` reads.
    """
    text = canonical(provenance).encode("ascii")
    if len(text) > LARGEST:
        raise ValueError(f"the provenance takes {len(text)} bytes; {LARGEST} are allowed")
    _parsed(text)
    return text


def read_provenance(path: str | Path) -> dict[str, Any] | None:
    """Read how a feature file was made.

    Args:
        path: of the HDF5 file; it may be a stranger's.

    Returns:
        what :func:`describe` makes; None if the file says nothing, is not there or is no HDF5 file. An attribute that
        is damaged or of a later format is noted in the log and counts as nothing.
    """
    path = Path(path)
    if not path.is_file():
        return None
    try:
        file = h5f.open(os.fsencode(path), h5f.ACC_RDONLY)
        try:
            text = _text_of(file)
        finally:
            file.close()
    except H5_ERRORS:
        return None
    if text is None:
        return None
    try:
        return _parsed(text)
    except (ValueError, RecursionError) as error:
        why = printable(error, 100)
        note = f"{printable(path)}: how these features were made cannot be read ({why}); it is ignored"
        logging.getLogger("ifmmin").warning(note)
        return None


def _text_of(file: Any) -> bytes | None:
    """The attribute's bytes, unless it is of a kind or size that we never write."""
    name = ATTRIBUTE.encode()
    if not h5a.exists(file, name):
        return None
    attribute = h5a.open(file, name)
    kind, space = attribute.get_type(), attribute.get_space()
    if not isinstance(kind, h5t.TypeStringID) or kind.is_variable_str() or space.get_simple_extent_npoints() != 1:
        return None
    return _read_string(attribute, kind.get_size()) if kind.get_size() <= LARGEST else None


def _read_string(attribute: Any, size: int) -> bytes:
    value = np.zeros((), dtype=f"S{size}")
    attribute.read(value)
    return bytes(value[()])


def _parsed(text: bytes) -> dict[str, Any]:
    """The attribute's content.

    Raises:
        ValueError: it is not what :func:`describe` makes.
    """
    return checked(json.loads(text.decode("ascii"), parse_constant=_refuse))


def checked(found: object) -> dict[str, Any]:
    """``found``, if :func:`describe` could have made it.

    Raises:
        ValueError: it says what it is instead.
    """
    if not isinstance(found, dict) or type(found.get("format")) is not int:
        raise ValueError("no format is given")
    if found["format"] != FORMAT:
        raise ValueError(f"format {found['format']} is not known here")
    for key, kind in _KINDS.items():
        value = found.get(key)
        if key not in found or not isinstance(value, kind) or isinstance(value, bool):
            raise ValueError(f"{key} is missing or of another kind")
    detector = found["detector"]
    if detector is not None and not (
        isinstance(detector.get("extractor"), str) and isinstance(detector.get("options"), dict)
    ):
        raise ValueError("detector is of another kind")
    if found["width"] < 1 or found["rate"] < 0:
        raise ValueError("width or rate is out of range")
    _check_plain(found)
    return found


def _check_plain(found: Mapping[str, Any]) -> None:
    """Refuse what a checkpoint, which keeps it, could not hold."""
    seen = 0
    waiting: list[tuple[Any, int]] = [(found, 0)]
    while waiting:
        value, depth = waiting.pop()
        seen += 1
        if depth > DEEPEST or seen > MOST_VALUES:
            raise ValueError("it is nested too deeply or too large")
        if isinstance(value, Mapping):
            if any(not 0 < len(name) <= LONGEST_NAME or has_control(name) for name in value):
                raise ValueError("a name in it is empty, too long or not readable")
            waiting += [(each, depth + 1) for each in value.values()]
        elif isinstance(value, (list, tuple)):
            waiting += [(each, depth + 1) for each in value]
        elif isinstance(value, str):
            if len(value) > LONGEST_TEXT or "\0" in value:
                raise ValueError("a text in it is too long")
        elif isinstance(value, (int, float)) and not abs(value) < 2**63:
            raise ValueError("a number in it is out of range")


def difference(trained: Mapping[str, Any] | None, found: Mapping[str, Any] | None) -> tuple[str, str] | None:
    """Both recipes in words, as far as they differ in what changes a value; None if they do not.

    Args:
        trained: of the features that a model was trained on; None: nothing is known.
        found: of the features that it is given, likewise.

    >>> hog = {"extractor": "hog", "recipe": {"side": 64, "weights": "5a"}, "detector": None, "rate": 10, "width": 5}
    >>> difference(hog, {**hog, "recipe": {"side": 32, "weights": "5a"}})
    ('hog (side 64)', 'hog (side 32)')
    >>> difference(hog, None)
    ('hog', 'an unknown recipe')
    """
    ours, theirs = _decisive(trained), _decisive(found)
    if ours == theirs:
        return None
    both = bool(ours and theirs)
    differing = [name for name in sorted({*ours, *theirs}) if both and ours.get(name) != theirs.get(name)]
    return _in_words(ours, differing), _in_words(theirs, differing)


def _decisive(provenance: Mapping[str, Any] | None) -> dict[str, str]:
    """Everything that changes a value, as text by name."""
    if not provenance:
        return {}
    named = {name: provenance.get(name) for name in ("extractor", "rate", "width")}
    detector = provenance.get("detector")
    if detector is not None and detector.get("recipe") is not None:  # options may name the same file in two ways
        detector = {name: detector[name] for name in ("extractor", "recipe")}
    named["detector"] = detector
    return {name: canonical(value) for name, value in {**dict(provenance.get("recipe") or {}), **named}.items()}


def _in_words(decisive: Mapping[str, str], names: Iterable[str]) -> str:
    if not decisive:
        return "an unknown recipe"
    said = [f"{name} {decisive.get(name, 'not given')}" for name in names if name != "extractor"]
    name = str(json.loads(decisive["extractor"]))
    return f"{name} ({', '.join(said)})" if said else name


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number")


def attach(file: Any, text: bytes) -> None:
    """Write the attribute into an open file, an ``h5py.h5f.FileID``."""
    kind = h5t.py_create(np.dtype(f"S{len(text)}"))
    attribute = h5a.create(file, ATTRIBUTE.encode(), kind, h5s.create(h5s.SCALAR))
    attribute.write(np.array(text))
