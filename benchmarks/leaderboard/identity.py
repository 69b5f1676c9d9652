"""What a record stands for: the configuration, code, corpus and versions it was made with."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import datamodules
import ifmmin

SHARED_CODE = (ifmmin, datamodules)
"""The packages that every run executes; of the package of its model, only what the model imports."""

VERSIONS = ("torch", "lightning")
"""Distributions whose version changes the bits of a result."""

FIELDS = ("config", "code", "data", "threads", "versions")
"""The fields of an identity, as they are named to the user where two differ."""


def digest(parts: Iterable[bytes]) -> str:
    """A hash of ``parts``, 16 hexadecimal digits."""
    whole = hashlib.sha256()
    for part in parts:
        whole.update(len(part).to_bytes(8, "little") + part)
    return whole.hexdigest()[:16]


def identity(model: type, words: Iterable[str], data: str, threads: int) -> dict[str, Any]:
    """What must be equal for two records to stand in one table.

    Args:
        model: the class of the model.
        words: the words of the command line that configure a run, apart from its fold, seed and paths.
        data: the fingerprint of the corpus and fold.
        threads: of PyTorch, on which the last bits depend.
    """
    return {
        "config": digest(word.encode() for word in (model.__qualname__, *words)),
        "code": code_version(model),
        "data": data,
        "threads": threads,
        "versions": {name: version(name) for name in VERSIONS},
    }


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Which fields of two identities differ, in words: ``code 1f3c… (now 77ab…)``."""
    return [
        f"{name} {_short(old.get(name))} (now {_short(new.get(name))})"
        for name in FIELDS
        if old.get(name) != new.get(name)
    ]


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        return " ".join(f"{name} {number}" for name, number in value.items())
    return str(value)[:8]


def code_version(model: type) -> str:
    """A hash of all source that a run of ``model`` executes: this library and what the model's module imports.

    A plug-in added beside it changes nothing, so the records of the others stay valid.
    """
    files = {path for package in SHARED_CODE for path in Path(str(package.__file__)).parent.rglob("*.py")}
    files |= _imported(model.__module__, model.__module__.partition(".")[0], {})
    running = Path(__file__).with_name("running.py")
    return digest(part for path in sorted({*files, running}) for part in (path.name.encode(), path.read_bytes()))


def _imported(name: str, package: str, seen: dict[str, Path]) -> set[Path]:
    """The source file of module ``name`` and those of the modules of its package that it imports."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return set()
    if spec is None or name in seen or not spec.origin or not spec.origin.endswith(".py"):
        return set()
    seen[name] = Path(spec.origin)
    for node in ast.walk(ast.parse(seen[name].read_bytes())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            base = importlib.util.resolve_name(base, spec.parent) if node.level else base
            # What is imported from a package may itself be a module.
            names = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        for found in names:
            # The package's own list of re-exports changes with every plug-in, and executes nothing of the model.
            if found.startswith(f"{package}."):
                _imported(found, package, seen)
    return set(seen.values())
