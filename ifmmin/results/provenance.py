"""When, where and with what a result was made."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

PACKAGES: tuple[str, ...] = ("ifmmin", "torch", "lightning", "torchmetrics", "numpy", "h5py", "jsonargparse", "wandb")
"""The distributions whose versions a result records."""


def environment_record() -> dict[str, Any]:
    """When, where and with what a result was made.

    Returns:
        ``date`` (UTC, ISO 8601), ``platform``, ``threads`` (PyTorch's, within operators),
        ``versions`` (Python and :data:`PACKAGES`; None for what is not installed), ``commit`` and
        ``dirty`` of the checkout that contains this package, both None without one.
    """
    commit, dirty = _checkout(Path(__file__).resolve())
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        "commit": commit,
        "dirty": dirty,
    }


def _version(package: str) -> str | None:
    """The installed version, None for a package used in place without an install."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _checkout(file: Path) -> tuple[str | None, bool | None]:
    """The commit of the checkout that tracks ``file``, and whether tracked files differ from it."""
    # Git's hooks set variables that would lead to another repository.
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}

    def git(*arguments: str) -> str:
        command = ["git", "--no-optional-locks", "-C", str(file.parent), *arguments]
        return subprocess.run(command, env=clean, capture_output=True, text=True, check=True, timeout=20).stdout.strip()

    try:
        # site-packages may be inside some other project's checkout, which does not track it.
        git("ls-files", "--error-unmatch", file.name)
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return None, None
