"""Somebody else's packages of our names: ``datamodules`` and ``baselines`` are common names of folders."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

OURS = ("datamodules", "baselines")


def hidden_by() -> str | None:
    """Say in one line which folder hides one of our packages, None if none does.

    Ours are beside ``ifmmin``, in a checkout as in an installation. Nothing of theirs is executed.
    """
    home = Path(__file__).resolve().parents[1]
    for name in OURS:
        if not (home / name).is_dir():  # a checkout without baselines
            continue
        loaded = sys.modules.get(name)
        spec = loaded.__spec__ if loaded is not None else importlib.util.find_spec(name)
        found = spec.submodule_search_locations or [] if spec is not None else []
        origin = spec.origin if spec is not None and not found else None
        if any(Path(place).resolve() == home / name for place in found):
            continue
        where = origin or next(iter(found), "nowhere")
        return (
            f"{where}: hides the package {name} of ifmmin, which is in {home}; "
            "rename it, or run from a folder without it."
        )
    return None


def refuse() -> None:
    """Stop if a foreign package hides one of ours.

    Raises:
        SystemExit: with one line, in a process of the command line.
        ImportError: with the same line, in any other program.
    """
    line = hidden_by()
    if line is None:
        return
    # While ``python -m ifmmin`` imports the package, argv[0] is "-m".
    if Path(sys.argv[0]).name in ("ifmmin", "cli.py", "-m"):
        raise SystemExit(f"error: {line}")
    raise ImportError(line)
