"""Finding models and corpora by name or class path; only what is asked for is imported."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import importlib.util
import inspect
import io
import logging
import sys
from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, TypeGuard

import datamodules
from datamodules.base import EmotionDataModule
from datamodules.errors import InputError
from datamodules.text import printable, reason_of
from ifmmin.base import MissingModalityModule

ENTRY_POINT_GROUP = "ifmmin.baselines"
"""Another distribution names a model class, or a module that exports some, under this group."""

BASELINES_PACKAGE = "baselines"
"""The package of competitors; what it re-exports is found. Looked up by name: nothing here imports it."""

OWN_MODELS = ("IFMMIN", "FusionPretraining", "InvariantPretraining")
"""The models of this package."""

Models = dict[str, type[MissingModalityModule]]


def model_names() -> list[str]:
    """Names of all models; none of ours is imported, of other distributions only modules that list several."""
    names = [*OWN_MODELS, *_baselines_names(), *(name for point in _points() for name in _names_of(point))]
    return sorted(set(names))


def find_model(name: str) -> type[MissingModalityModule]:
    """Import the model of this name or class path, and no other.

    Raises:
        InputError: there is none, or it cannot be imported.
    """
    if "." in name:
        return import_class(name, MissingModalityModule, "model")
    if name in OWN_MODELS:
        return _checked(getattr(importlib.import_module("ifmmin"), name), name)
    if name in _baselines_names():
        return _checked(getattr(importlib.import_module(BASELINES_PACKAGE), name), name)
    for point in _points():
        if name in _names_of(point) and (found := _load(point).get(name)):
            return found
    check_name(name, model_names(), "model")
    raise InputError(f"model {printable(name)!r} cannot be imported; see the notes above.")


def discover_models() -> Models:
    """Import every model, by its name.

    A distribution that cannot be imported is named in a warning and left out: it must not stop the
    others.
    """
    models = {name: find_model(name) for name in (*OWN_MODELS, *_baselines_names())}
    for point in _points():
        for name, model in _load(point).items():
            models.setdefault(name, model)
    return models


def corpus_names() -> list[str]:
    """Names of the built-in corpora; none is imported."""
    return sorted(datamodules.CORPORA)


def find_corpus(name: str) -> type[EmotionDataModule]:
    """Import the corpus of this name or class path, and no other.

    Raises:
        InputError: there is none, or it cannot be imported.
    """
    if "." in name:
        return import_class(name, EmotionDataModule, "corpus")
    check_name(name, corpus_names(), "corpus")
    corpus: type[EmotionDataModule] = getattr(datamodules, name)
    return corpus


def import_class(path: str, base: type[Any], what: str) -> type[Any]:
    """Import the class of a class path, from the current folder too, as ``python`` itself would.

    Args:
        path: ``package.module.Class``.
        base: the class that it must be derived from.
        what: it is to be, for the messages.

    Raises:
        InputError: the module or the class is not there, fails while it is imported, is derived from something else,
            or is abstract.
    """
    shown = f"{what} {printable(path)}"
    module, _, leaf = path.rpartition(".")
    if not all(part.isidentifier() for part in path.split(".")):
        raise InputError(f"{shown}: not a class path; write package.module.Class.")
    _look_in_current_folder(module.partition(".")[0])
    try:
        found = getattr(importlib.import_module(module), leaf)
    except AttributeError:
        raise InputError(
            f"{shown}: the module {module} has no {leaf}.{_near(leaf, vars(sys.modules[module]))}"
        ) from None
    except (Exception, SystemExit) as error:  # somebody else's code may fail in any way
        raise InputError(f"{shown}: cannot be imported ({reason_of(error)}).") from error
    if not (inspect.isclass(found) and issubclass(found, base)):
        raise InputError(f"{shown}: not a subclass of {base.__name__}.")
    if found is base or inspect.isabstract(found):
        missing = ", ".join(sorted(getattr(found, "__abstractmethods__", ())))
        raise InputError(
            f"{shown}: an abstract class{f', without {missing}' if missing else ''}; name a class made from it."
        )
    return found


def path_of(owner: type[Any]) -> str | None:
    """The class path of a class, None where it cannot be imported by one."""
    path = f"{owner.__module__}.{owner.__qualname__}"
    return path if getattr(sys.modules.get(owner.__module__), owner.__qualname__, None) is owner else None


def _look_in_current_folder(package: str) -> None:
    """Let modules of the current folder be imported, after all others, where nothing else has this name."""
    here = Path.cwd()
    is_here = (here / f"{package}.py").is_file() or (here / package).is_dir()
    if is_here and not {str(here), ""} & {*sys.path} and importlib.util.find_spec(package) is None:
        sys.path.append(str(here))


def _near(given: str, names: Iterable[str]) -> str:
    known = [name for name in names if not name.startswith("_")]
    near = difflib.get_close_matches(given, known, n=1, cutoff=0.5) or [
        name for name in known if name.lower() == given.lower()
    ]
    return f" Did you mean {near[0]}?" if near else ""


def check_name(given: str, known: Iterable[str], what: str, or_path: bool = True) -> None:
    """Refuse a name that is none of ``known``; a class path (with a dot) is let through if ``or_path``.

    Raises:
        InputError: naming the nearest known name, and all of them.
    """
    names = sorted(known)
    if (or_path and "." in given) or given in names:
        return
    shown, path = repr(printable(given)), "; or give a class path" if or_path else ""
    raise InputError(f"{what} {shown} is not known.{_near(given, names)} There are: {', '.join(names)}{path}.")


def _baselines_names() -> list[str]:
    """What the package of competitors re-exports."""
    if importlib.util.find_spec(BASELINES_PACKAGE) is None:
        return []
    return list(importlib.import_module(BASELINES_PACKAGE).__all__)


def _points() -> list[EntryPoint]:
    return list(entry_points(group=ENTRY_POINT_GROUP))


def _names_of(point: EntryPoint) -> list[str]:
    """Model names of an entry point: its own if it names a class, otherwise those that its module exports."""
    return [point.attr.rpartition(".")[2]] if point.attr else list(_load(point))


def _load(point: EntryPoint) -> Models:
    """Import the models of an entry point; a warning and none if that fails.

    What it prints meanwhile is somebody else's, and may be anything: its first line is shown as a note.
    """
    log, shown, heard = logging.getLogger("ifmmin"), f"plug-in {printable(point.value)}", io.StringIO()
    try:
        with contextlib.redirect_stdout(heard), contextlib.redirect_stderr(heard):
            loaded = point.load()
            found = _exported(loaded) if inspect.ismodule(loaded) else {}
            missing = [name for name in _listed(loaded) if not hasattr(loaded, name)]
    except (Exception, SystemExit) as error:  # somebody else's code may fail in any way
        log.warning(f"{shown}: left out, it cannot be imported ({reason_of(error)})")
        return {}
    if said := heard.getvalue().strip():
        log.warning(f"{shown}: printed while it was imported: {printable(said, 100)}")
    if missing:
        log.warning(f"{shown}: its __all__ names {printable(', '.join(missing), 100)}, which it does not have")
    if inspect.ismodule(loaded):
        return found
    if not _is_model(loaded):
        log.warning(f"{shown}: left out, {printable(point.name)} is no model class")
        return {}
    return {loaded.__name__: loaded}


def _listed(module: object) -> list[str]:
    """What a module's ``__all__`` names, nothing without one."""
    listed = getattr(module, "__all__", None) if inspect.ismodule(module) else None
    return [str(name) for name in listed] if listed else []


def _exported(module: ModuleType) -> Models:
    names = _listed(module) or [name for name in vars(module) if not name.startswith("_")]
    return {name: thing for name in names if name.isidentifier() and _is_model(thing := getattr(module, name, None))}


def _is_model(thing: object) -> TypeGuard[type[MissingModalityModule]]:
    return inspect.isclass(thing) and issubclass(thing, MissingModalityModule) and not inspect.isabstract(thing)


def _checked(thing: object, name: str) -> type[MissingModalityModule]:
    assert inspect.isclass(thing) and issubclass(thing, MissingModalityModule), name
    return thing
