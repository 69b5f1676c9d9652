"""Identity of a record: the configuration, code, corpus and versions it was made with."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

LIBRARY = ("ifmmin", "datamodules")
"""The packages whose modules count where a model or corpus imports them."""

ALWAYS_RUN = ("ifmmin.curves", "ifmmin.calibration")
"""Modules that every run of a board executes, whatever its model and corpus."""

AFTER_A_RUN = "ifmmin.sharing"
"""What models import, but what no run uses: saving a trained model for others."""

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


def identity(model: type, corpus: type, words: Iterable[str], data: str, threads: int) -> dict[str, Any]:
    """Collect what must be equal for two records to share a table.

    Args:
        model: the class of the model.
        corpus: the class of the datamodule.
        words: the words of the command line that configure a run, apart from its fold, seed and paths.
        data: the fingerprint of the corpus and fold.
        threads: of PyTorch, on which the last bits depend.
    """
    return {
        "config": digest(word.encode() for word in (model.__qualname__, *words)),
        "code": code_version(model, corpus),
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


def code_version(model: type, corpus: type) -> str:
    """Hash the source that decides a run's result, see :func:`imported_files`: 16 hexadecimal digits."""
    found = imported_files(model, corpus)
    return digest(part for name in sorted(found) for part in (name.encode(), found[name].read_bytes()))


def imported_files(model: type, corpus: type) -> dict[str, Path]:
    """Find the source of a model and a corpus, and of everything they import from our packages.

    The command line, tables, the saving for others and other models are no part of it, so editing them leaves a board's
    records valid.

    Args:
        model: the class of the model; its own package counts too, wherever it is installed.
        corpus: the class of the datamodule.

    Returns:
        source files by module name.
    """
    packages = {*LIBRARY, *(cls.__module__.partition(".")[0] for cls in (model, corpus))}
    found: dict[str, Path] = {}
    for name in (model.__module__, corpus.__module__, *ALWAYS_RUN):
        _follow(name, packages, found)
    return found


def _follow(name: str, packages: set[str], found: dict[str, Path]) -> None:
    """Add to ``found`` the source file of module ``name`` and of all modules of ``packages`` that it imports."""
    path = None if name in found else _source(name)
    if path is None:
        return
    found[name] = path
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for imported in _imports(package, path.read_bytes()):
        # A package's top level only lists what it re-exports: it changes with every model and runs nothing of this one.
        if imported.partition(".")[0] in packages and "." in imported and not imported.startswith(AFTER_A_RUN):
            _follow(imported, packages, found)


def _source(name: str) -> Path | None:
    """The ``.py`` file of module ``name``, or None if there is no such module or it is not Python source."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    return Path(spec.origin) if spec and spec.origin and spec.origin.endswith(".py") else None


@cache
def _imports(package: str, source: bytes) -> tuple[str, ...]:
    """The modules that source in ``package`` imports, those for type checking alone left out.

    Kept by content: a board of thirty models on ten folds asks hundreds of times.
    """
    tree = ast.parse(source)
    typing_only = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and isinstance(block.test, ast.Name) and block.test.id == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    found: list[str] = []
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            base = importlib.util.resolve_name(base, package) if node.level else base
            # What is imported from a package may itself be a module.
            found += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return tuple(found)
