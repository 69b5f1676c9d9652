"""Loggers of the command line, checked before a run's folder is made: their libraries, keys and names."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from netrc import NetrcParseError, netrc
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from jsonargparse import Namespace

from datamodules.errors import InputError
from datamodules.text import printable

LIBRARIES = {
    "CometLogger": "comet_ml",
    "LitLogger": "litlogger",
    "MLFlowLogger": "mlflow",
    "NeptuneLogger": "neptune",
    "TensorBoardLogger": "tensorboard",
    "WandbLogger": "wandb",
}
"""What must be installed for each of Lightning's loggers."""

_PROJECT_LETTERS = 128
_NOT_IN_A_PROJECT = "/\\#?%:"


def check_loggers(configured: Any) -> None:
    """Refuse loggers that cannot log.

    Args:
        configured: the option ``trainer.logger``, as parsed.

    Raises:
        InputError: a library is not installed, or W&B has no key or takes no project of this name.
    """
    for logger in configured if isinstance(configured, list) else [configured]:
        path = logger.get("class_path") if hasattr(logger, "get") else None
        if not isinstance(path, str):
            continue
        name = path.rpartition(".")[2]
        package = LIBRARIES.get(name)
        if package and find_spec(package) is None and not (name == "MLFlowLogger" and find_spec("mlflow_skinny")):
            raise InputError(library_needed(name, package))
        if name == "WandbLogger":
            _check_wandb(logger.get("init_args") or {})


def library_needed(logger: str, package: str) -> str:
    """Say which package a logger needs."""
    return f"--trainer.logger {logger}: needs the package {package}; pip install {package.replace('_', '-')}."


def place_loggers(configured: Any, run_dir: Path, name: str) -> None:
    """Have loggers write into a run's folder, and W&B call the run by its name.

    Args:
        configured: the option ``trainer.logger``, as parsed; it is changed.
        run_dir: the folder.
        name: of the run.
    """
    for logger in configured if isinstance(configured, list) else [configured]:
        if not isinstance(logger, Namespace):
            continue
        settings = logger.init_args
        if "save_dir" in settings and settings.save_dir in (None, ".", "./"):
            settings.save_dir = str(run_dir)
        if logger.class_path.endswith("WandbLogger"):
            settings.name = settings.name or name
            settings.project = settings.project if settings.project not in (None, "lightning_logs") else "ifmmin"


def _check_wandb(settings: Mapping[str, Any]) -> None:
    project = settings.get("project")
    if project is not None:
        shown = f"--trainer.logger.project {printable(project, 60)!r}"
        if not project.strip() or len(project) > _PROJECT_LETTERS or not project.isprintable():
            raise InputError(f"{shown}: W&B takes 1 to {_PROJECT_LETTERS} printable letters.")
        if found := [letter for letter in _NOT_IN_A_PROJECT if letter in project]:
            raise InputError(f"{shown}: W&B takes no {found[0]} in the name of a project.")
    mode = os.environ.get("WANDB_MODE", "online")
    if settings.get("offline") or mode in ("offline", "disabled", "dryrun") or sys.stdin.isatty():
        return
    if not _has_wandb_key():
        raise InputError(
            "--trainer.logger WandbLogger: no API key; run wandb login, set WANDB_API_KEY, "
            "or give --trainer.logger.offline true."
        )


def _has_wandb_key() -> bool:
    """Whether W&B would find a key, asked without wandb: that reads its environment once for the whole process."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    given = os.environ.get("NETRC")
    for path in [Path(given)] if given else [Path.home() / ".netrc", Path.home() / "_netrc"]:
        try:
            if netrc(path).authenticators(host):
                return True
        except FileNotFoundError:
            continue
        except (OSError, NetrcParseError):  # wandb says what is wrong with it
            return True
    return False
