"""Finding models: those of this package, of ``baselines``, and of other installed distributions."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import logging
from collections.abc import Iterable
from importlib.metadata import entry_points
from types import ModuleType

import datamodules
from datamodules.base import EmotionDataModule
from datamodules.errors import InputError
from ifmmin.base import MissingModalityModule
from ifmmin.model import IFMMIN
from ifmmin.pretraining.stage1 import FusionPretraining, InvariantPretraining

ENTRY_POINT_GROUP = "ifmmin.baselines"
"""Another distribution names a model class, or a module that exports some, under this group."""

BASELINES_PACKAGE = "baselines"
"""The package of competitors; what it re-exports is found. Looked up by name: nothing here imports it."""

CORPORA: dict[str, type[EmotionDataModule]] = {
    name: thing
    for name in datamodules.__all__
    if isinstance(thing := getattr(datamodules, name), type)
    and issubclass(thing, EmotionDataModule)
    and thing is not EmotionDataModule
}
"""The corpora by the short names of their datamodules."""

Models = dict[str, type[MissingModalityModule]]


def _exported(module: ModuleType) -> Models:
    names = getattr(module, "__all__", None) or [name for name in vars(module) if not name.startswith("_")]
    return {name: thing for name in names if _is_model(thing := getattr(module, name))}


def _is_model(thing: object) -> bool:
    return inspect.isclass(thing) and issubclass(thing, MissingModalityModule) and not inspect.isabstract(thing)


def discover_models() -> Models:
    """Every model by its class name; importing them makes the names known to the command line.

    A distribution that cannot be imported is named in a warning and left out: it must not stop the
    others.
    """
    models: Models = {model.__name__: model for model in (IFMMIN, FusionPretraining, InvariantPretraining)}
    if importlib.util.find_spec(BASELINES_PACKAGE) is not None:
        models |= _exported(importlib.import_module(BASELINES_PACKAGE))
    for point in entry_points(group=ENTRY_POINT_GROUP):
        try:
            loaded = point.load()
        except Exception as error:  # somebody else's code may fail in any way
            logging.getLogger("ifmmin").warning(f"plug-in {point.value}: left out, it cannot be imported ({error})")
            continue
        found = _exported(loaded) if inspect.ismodule(loaded) else {point.name: loaded}
        for name, model in found.items():
            if not _is_model(model):
                logging.getLogger("ifmmin").warning(f"plug-in {point.value}: left out, {name} is no model class")
            else:
                models.setdefault(model.__name__, model)
    return models


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
