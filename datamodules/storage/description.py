"""``corpus.json``: what a feature corpus says of itself, so that no class and no option has to.

::

    {"format": 1, "corpus": "Folder", "name": "clips",
     "classes": ["calm", "angry"],                      or "scale": [-3, 3]
     "folds": 5,                                        target/1 to target/5
     "features": {"audio": "comparE", "visual": "face-hog", "text": "minilm"},
     "speakers": {"clip1": "Ann", "clip2": null},
     "monitor": "UA", "counts": {"1": {"train": {"calm": 30, "angry": 28}}}, "facts": {}}

``format`` and ``name`` are needed, and where there are labels ``classes`` or ``scale``, and ``folds``. The file may be
a stranger's: it is bounded in size, and nothing in it is executed.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NoReturn

from datamodules.conditions import MODALITIES
from datamodules.files import write_text
from datamodules.labels import Classes, LabelScheme, Scale
from datamodules.storage.hdf5 import kind_of
from datamodules.storage.ids import MatchRule, key_of
from datamodules.storage.problems import Problems, Strict
from datamodules.storage.targets import SPLITS
from datamodules.text import has_control, printable

FILE = "corpus.json"

FORMAT = 1

FOLDER = "Folder"
"""The corpus class that takes everything from the file."""

LARGEST = 64 * 2**20
"""Bytes of the file: the speakers of some million utterances."""

NO_CLASSES = Classes(())

MOST_CLASSES = MOST_FOLDS = 1000

LONGEST_NAME, LONGEST_ID = 100, 1000
"""Letters of the name of a corpus, a class, a feature file or a speaker, and of an utterance's id."""

VALUES = "utterances"
"""What ``counts`` has in place of classes where labels are values."""

KEYS = ("format", "corpus", "name", "classes", "scale", "folds", "features", "monitor", "speakers", "counts", "facts")


class _WrongError(ValueError):
    """What is wrong with the content, without the name of the file."""


@dataclass(frozen=True)
class Description:
    """What a feature corpus says of itself.

    Attributes:
        name: of the corpus.
        labels: what the labels are, classes in label order or a scale; no classes where nothing is labelled.
        folds: their number; they are called 1..folds. 0: there are no target files, so there is only ``predict``.
        feature_names: default names of the feature files, by modality; others are called as the modality is.
        speakers: by utterance id, None where it is not known; empty if no speaker is known.
        corpus: the class that reads the corpus, as ``--data`` takes it.
        monitor: the score that selects models; None: the usual one.
        counts: utterances by fold, split and class (of a scale by :data:`VALUES`), as far as they were counted.
        facts: further plain facts for people to read; ``invented`` and ``incomplete`` are read here too.
    """

    name: str
    labels: LabelScheme = NO_CLASSES
    folds: int = 0
    feature_names: Mapping[str, str] = field(default_factory=dict)
    speakers: Mapping[str, str | None] = field(default_factory=dict)
    corpus: str = FOLDER
    monitor: str | None = None
    counts: Mapping[int, Mapping[str, Mapping[str, int]]] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def invented(self) -> bool:
        """Whether the recordings are made up, so that nothing on them is a corpus result."""
        return self.facts.get("invented") is True

    @property
    def incomplete(self) -> Literal["keep"] | None:
        """``keep`` if the target files have utterances that lack a modality on purpose; None: it is not said."""
        return "keep" if self.facts.get("incomplete") == "keep" else None

    def matching(self, rule: MatchRule) -> Description:
        """Give speakers by what ids have in common under ``rule``."""
        return replace(self, speakers={key_of(name, rule): speaker for name, speaker in self.speakers.items()})

    def to_json(self) -> dict[str, Any]:
        """Content of the file, in a fixed order."""
        what: dict[str, Any] = {"classes": list(self.labels.names)} if self.labels.names else {}
        if isinstance(self.labels, Scale):
            what = {"scale": [self.labels.low, self.labels.high]}
        counts = {
            str(fold): {
                split: _in_order(numbers, self.labels.names)
                for split, numbers in _in_order(self.counts[fold], SPLITS).items()
            }
            for fold in sorted(self.counts)
        }
        optional = {
            "monitor": self.monitor,
            "speakers": {name: self.speakers[name] for name in sorted(self.speakers)},
            "counts": counts,
            "facts": {name: self.facts[name] for name in sorted(self.facts)},
        }
        return {
            "format": FORMAT,
            "corpus": self.corpus,
            "name": self.name,
            **what,
            **({"folds": self.folds} if self.folds else {}),
            "features": _in_order(self.feature_names, MODALITIES),
            **{name: value for name, value in optional.items() if value},
        }


def _in_order(values: Mapping[str, Any], order: Sequence[str]) -> dict[str, Any]:
    """``values`` in the order of their names in ``order``, then the others."""
    names = [*(name for name in order if name in values), *sorted(values.keys() - {*order})]
    return {name: values[name] for name in names}


def description_path(root: Path) -> Path:
    """Path of the file."""
    return root / FILE


def read_description(root: Path) -> Description | None:
    """Read the description of a feature corpus.

    Args:
        root: the corpus's folder.

    Returns:
        it, or None without such a file.

    Raises:
        CorpusError: the file cannot be read, or holds something else; one line.
    """
    path, problems = description_path(root), Strict()
    if path.exists() and not path.is_file():  # to open a pipe would wait for its writer, for ever
        problems.add(path, f"is {kind_of(path)}, not a file", "put the corpus's description in its place")
    try:
        with path.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            if size > LARGEST:
                problems.add(path, f"has {size} bytes, where a description may have {LARGEST}", _REMEDY)
            text = stream.read(LARGEST)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        problems.add(path, f"cannot be read ({error.strerror or error})", "let yourself read it, or copy it again")
    try:
        return parse_description(_loaded(text))
    except _WrongError as error:
        problems.add(path, str(error), _REMEDY)
        raise  # never: the line before has raised


_REMEDY = "correct it (docs/your_own_corpus.md shows one), or extract or write it again"


def write_description(root: Path, description: Description) -> Path:
    """Write the file, whole or not at all; its bytes depend on the description only.

    Args:
        root: the corpus's folder; made.
        description: of it.

    Returns:
        the file's path.

    Raises:
        CorpusError: :func:`read_description` would refuse it.
        OSError: the file cannot be written.
    """
    path = description_path(root)
    check_ids(path, description.speakers, Strict())
    try:
        content = description.to_json()
        text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        parse_description(_loaded(text.encode()))
    except (TypeError, ValueError, RecursionError) as error:
        Strict().add(path, f"cannot be written ({printable(error)})", "describe the corpus otherwise")
    return write_text(path, text)


def check_ids(path: Path, utterances: Collection[str], problems: Problems) -> None:
    """Report ids that no feature file can have: HDF5 takes ``/`` for a folder, and allows neither ``//`` nor ``.``.

    Args:
        path: of what names them, for the problem.
        utterances: the ids.
        problems: collects what is wrong.
    """
    odd = [name for name in utterances if has_control(name) or not 0 < len(name) <= LONGEST_ID]
    what = f"an id with control characters, or not of 1 to {LONGEST_ID} letters"
    problems.add_if_any(path, odd, what, "rename the utterance")
    unnamed = [name for name in utterances if {"", "."} & {*name.split("/")}]
    what = "an id with an empty part or a single dot between slashes, which HDF5 cannot store"
    problems.add_if_any(path, unnamed, what, "rename the utterance")
    split = [name.split("/") for name in utterances]
    folders = {"/".join(parts[:end]) for parts in split for end in range(1, len(parts))}
    both = [name for name in utterances if name in folders]
    problems.add_if_any(path, both, "an id that is the folder of another id", "rename one of them")


def _loaded(text: bytes) -> Any:
    """Plain data of JSON text; a repeated name, NaN and what is nested without end are refused."""
    try:
        return json.loads(
            text.decode("utf-8-sig"), object_pairs_hook=_distinct, parse_constant=_no_number, parse_float=_finite
        )
    except UnicodeDecodeError as error:
        raise _WrongError("is not UTF-8") from error
    except RecursionError as error:
        raise _WrongError("is nested too deeply") from error
    except _WrongError:
        raise
    except ValueError as error:
        raise _WrongError(f"is no whole JSON ({printable(error, 100)})") from error


def _distinct(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _WrongError(f"has {printable(twice, 60)} twice")
    return values


def _no_number(name: str) -> NoReturn:
    raise _WrongError(f"has {name}, which is no number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise _WrongError(f"has {printable(text, 40)}, which is out of range")
    return value


def parse_description(content: object) -> Description:
    """Turn plain data into a description.

    Raises:
        ValueError: they are something else; it says what.
    """
    found = _object(content, "the file")
    version = found.get("format")
    if type(version) is not int:
        raise _WrongError('has no "format", so it describes no corpus')
    if version != FORMAT:
        raise _WrongError(f"has format {_shown(version)}, where this version reads {FORMAT}")
    if unknown := [name for name in found if name not in KEYS]:
        raise _WrongError(f"has {printable(unknown[0], 60)!r}, where there are {', '.join(KEYS)}")
    folds = _whole(found.get("folds", 0), "folds", 0, MOST_FOLDS)
    labels = _labels(found)
    if folds and not labels.names and not isinstance(labels, Scale):
        raise _WrongError("has folds, but neither classes nor a scale")
    monitor = found.get("monitor")
    return Description(
        name=_name(found.get("name"), "name"),
        labels=labels,
        folds=folds,
        feature_names=_features(found.get("features", {})),
        speakers=_speakers(found.get("speakers", {})),
        corpus=_name(found.get("corpus", FOLDER), "corpus"),
        monitor=None if monitor is None else _name(monitor, "monitor"),
        counts=_counts(found.get("counts", {}), folds, labels.names or (VALUES,)),
        facts=_object(found.get("facts", {}), "facts"),
    )


def _labels(found: Mapping[str, Any]) -> LabelScheme:
    if "classes" in found and "scale" in found:
        raise _WrongError("has both classes and a scale")
    if "scale" in found:
        ends = _list(found["scale"], "scale")
        if len(ends) != 2 or any(type(end) not in (int, float) for end in ends) or not ends[0] < ends[1]:
            raise _WrongError(f"has the scale {_shown(ends)}, not its least and its greatest value")
        return Scale(float(ends[0]), float(ends[1]))
    if "classes" not in found:
        return NO_CLASSES
    names = [_name(name, "a class") for name in _list(found["classes"], "classes")]
    if not 2 <= len(names) <= MOST_CLASSES:
        raise _WrongError(f"has {len(names)} classes, where 2 to {MOST_CLASSES} are possible")
    if len(set(names)) < len(names):
        raise _WrongError(f"has the class {printable(next(n for n in names if names.count(n) > 1), 60)} twice")
    return Classes(tuple(names))


def _features(value: object) -> dict[str, str]:
    names = {}
    for modality, name in _object(value, "features").items():
        if modality not in MODALITIES:
            raise _WrongError(f"has features of {printable(modality, 60)!r}, where there are {', '.join(MODALITIES)}")
        names[modality] = _name(name, f"features of {modality}")
        if {"/", "\\"} & {*names[modality]} or names[modality].startswith("."):
            raise _WrongError(f"has {printable(name, 60)!r} as {modality} features, not a name of a file without .h5")
    return names


def _speakers(value: object) -> dict[str, str | None]:
    found = _object(value, "speakers")
    for utterance, speaker in found.items():
        _name(utterance, "an utterance", LONGEST_ID)
        if speaker is not None:
            _name(speaker, f"speaker of {printable(utterance, 60)}")
    return found


def _counts(value: object, folds: int, classes: Sequence[str]) -> dict[int, dict[str, dict[str, int]]]:
    counts: dict[int, dict[str, dict[str, int]]] = {}
    for fold, splits in _object(value, "counts").items():
        if not (fold.isascii() and fold.isdecimal() and len(fold) < 5 and str(int(fold)) == fold):
            raise _WrongError(f"has counts of fold {printable(fold, 40)!r}, which is no number")
        if not 1 <= int(fold) <= folds:
            raise _WrongError(f"has counts of fold {fold}, where there are folds 1..{folds}")
        counts[int(fold)] = {}
        for split, numbers in _object(splits, f"counts of fold {fold}").items():
            if split not in SPLITS:
                raise _WrongError(f"has counts of the split {printable(split, 40)!r}, not of {', '.join(SPLITS)}")
            place = f"counts of fold {fold} {split}"
            for name, number in _object(numbers, place).items():
                if name not in classes:
                    raise _WrongError(f"has {place} of {printable(name, 60)!r}, where there are {', '.join(classes)}")
                _whole(number, f"{place} {name}", 0, 2**53)
            counts[int(fold)][split] = dict(numbers)
    return counts


def _object(value: object, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _WrongError(f"has {_shown(value)} as {place}, not values by name")
    return value


def _list(value: object, place: str) -> list[Any]:
    if not isinstance(value, list):
        raise _WrongError(f"has {_shown(value)} as {place}, not a list")
    return value


def _name(value: object, place: str, longest: int = LONGEST_NAME) -> str:
    """Text of one line that can be shown and stored."""
    if not isinstance(value, str) or not value.strip() or len(value) > longest or has_control(value):
        raise _WrongError(f"has {_shown(value)} as {place}, not text of 1 to {longest} letters")
    return value


def _whole(value: object, place: str, least: int, most: int) -> int:
    if type(value) is not int or not least <= value <= most:
        raise _WrongError(f"has {_shown(value)} as {place}, not a whole number from {least} to {most}")
    return value


def _shown(value: object) -> str:
    """A value in a few letters."""
    if isinstance(value, (dict, list)):
        return "values by name" if isinstance(value, dict) else f"a list of {len(value)}"
    if isinstance(value, int) and abs(value) > 2**63:  # a longer one cannot be turned into text
        return "a number out of range"
    return printable(repr(value) if isinstance(value, str) else json.dumps(value), 60)
