"""Finding models and corpora by name; only what is asked for is imported."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import logging
from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType

import datamodules
from datamodules.base import EmotionDataModule
from datamodules.errors import InputError
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
    """Import the model of this name, and no other.

    Raises:
        InputError: there is none, or its distribution cannot be imported.
    """
    if name in OWN_MODELS:
        return _checked(getattr(importlib.import_module("ifmmin"), name), name)
    if name in _baselines_names():
        return _checked(getattr(importlib.import_module(BASELINES_PACKAGE), name), name)
    for point in _points():
        if name in _names_of(point) and (found := _load(point).get(name)):
            return found
    check_name(name, model_names(), "model")
    raise InputError(f"model {name!r} cannot be imported; see the notes above.")


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
        InputError: there is none.
    """
    check_name(name, corpus_names(), "corpus")
    if name in datamodules.CORPORA:
        corpus = getattr(datamodules, name)
    else:
        module, _, leaf = name.rpartition(".")
        try:
            corpus = getattr(importlib.import_module(module), leaf)
        except (ImportError, AttributeError) as error:
            raise InputError(f"corpus {name}: cannot be imported ({error}).") from error
    if not (inspect.isclass(corpus) and issubclass(corpus, EmotionDataModule)):
        raise InputError(f"corpus {name}: not a subclass of EmotionDataModule.")
    return corpus


def check_name(given: str, known: Iterable[str], what: str) -> None:
    """Refuse a name that is none of ``known``; a class path (with a dot) is let through.

    Raises:
        InputError: naming the nearest known name, and all of them.
    """
    names = sorted(known)
    if "." in given or given in names:
        return
    near = difflib.get_close_matches(given, names, n=1, cutoff=0.5) or [
        name for name in names if name.lower() == given.lower()
    ]
    hint = f" Did you mean {near[0]}?" if near else ""
    raise InputError(f"{what} {given!r} is not known.{hint} There are: {', '.join(names)}; or give a class path.")


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
    """Import the models of an entry point; a warning and none if that fails."""
    try:
        loaded = point.load()
    except Exception as error:  # somebody else's code may fail in any way
        logging.getLogger("ifmmin").warning(f"plug-in {point.value}: left out, it cannot be imported ({error})")
        return {}
    if inspect.ismodule(loaded):
        return _exported(loaded)
    if not _is_model(loaded):
        logging.getLogger("ifmmin").warning(f"plug-in {point.value}: left out, {point.name} is no model class")
        return {}
    return {loaded.__name__: loaded}


def _exported(module: ModuleType) -> Models:
    names = getattr(module, "__all__", None) or [name for name in vars(module) if not name.startswith("_")]
    return {name: thing for name in names if _is_model(thing := getattr(module, name))}


def _is_model(thing: object) -> bool:
    return inspect.isclass(thing) and issubclass(thing, MissingModalityModule) and not inspect.isabstract(thing)


def _checked(thing: object, name: str) -> type[MissingModalityModule]:
    assert inspect.isclass(thing) and issubclass(thing, MissingModalityModule), name
    return thing
