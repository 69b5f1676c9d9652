"""What ``fit --resume`` goes on with: the run's own folder, options and data, or one line that names the difference."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jsonargparse import Namespace

from datamodules.base import EmotionDataModule
from datamodules.errors import InputError
from datamodules.text import printable
from ifmmin import runs
from ifmmin.base import MissingModalityModule
from ifmmin.checkpoints.reading import read_checkpoint
from ifmmin.cli.arguments import class_at

MAY_CHANGE = (
    "run_dir",  # a moved folder goes on in itself
    "intervals",
    "test",
    "trainer.accelerator",
    "trainer.devices",
    "trainer.num_nodes",
    "trainer.strategy",
    "trainer.max_epochs",
    "trainer.logger",
    "trainer.log_every_n_steps",
    "trainer.enable_progress_bar",
    "trainer.enable_model_summary",
    "data.init_args.root",  # a moved corpus; its fingerprint must be the same
    "data.init_args.workers",
    "data.init_args.memory_budget_gb",
    "data.init_args.eval_batch_size",
)
"""Options that a resumed run may have otherwise: where and how it runs, not what it trains."""

_NOT_SETTINGS = ("feature_dims", "class_names", "task", "corpus", "monitor", "pretrained")


def check_options(run: Path, started: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """Refuse options that differ from those with which a run was started.

    Args:
        run: its folder.
        started: its configuration, in plain values.
        asked: the configuration of now.

    Raises:
        InputError: naming the option, its value in the run and the one that was asked for.
    """
    before, now = _flat(started), _flat(asked)
    for name in sorted(before.keys() | now.keys()):
        if any(name == allowed or name.startswith(f"{allowed}.") for allowed in MAY_CHANGE):
            continue
        old, value = before.get(name), now.get(name)
        if not (_same(old, value) or (name.endswith("class_path") and _same_class(old, value))):
            option = f"--{name.replace('.init_args', '').replace('.class_path', '')}"
            raise InputError(
                f"{run}: was started with {option} {_shown(old)}, not {_shown(value)}; "
                "leave the option out, or start a new run."
            )


def name_devices(callbacks: Any) -> None:
    """Put names in place of device objects, which no configuration can hold: StochasticWeightAveraging has one."""
    for callback in callbacks if isinstance(callbacks, list) else [callbacks]:
        settings = callback.get("init_args") if isinstance(callback, Namespace) else None
        if isinstance(settings, Namespace):
            for name, value in vars(settings).items():
                if isinstance(value, torch.device):
                    settings[name] = str(value)


def check_data(run: Path, data: EmotionDataModule, model: MissingModalityModule) -> None:
    """Refuse to go on with other data, another fold or seed, or another model than a run's checkpoints are of.

    Raises:
        InputError: naming what differs.
    """
    for folder in (run, run / runs.STAGE1):
        last = runs.last_checkpoint(folder)
        if last is None:
            continue
        try:
            checkpoint = read_checkpoint(last)
        except InputError:  # torn: the fit falls back, and says so
            continue
        trained = checkpoint["ifmmin"]["data"]
        for name, value in {"corpus": data.corpus_name, "fold": data.fold, "seed": data.seed}.items():
            stored = trained["name" if name == "corpus" else name]
            if stored != value:
                raise InputError(
                    f"{last}: trained on {name} {printable(stored)}, but the run's configuration says {value}; "
                    "put that back, or start a new run."
                )
        if trained["fingerprint"] != data.fingerprint:
            raise InputError(
                f"{data.root}: the corpus changed since {last} was written (its ids, labels, splits or frames); "
                "put it back as it was, or start a new run."
            )
        if folder == run and checkpoint["ifmmin"]["model"].rpartition(".")[2] == type(model).__name__:
            _check_settings(last, checkpoint["hyper_parameters"], model)


def _check_settings(last: Path, trained: Mapping[str, Any], model: MissingModalityModule) -> None:
    """Refuse a configuration that was edited since."""
    for name, value in model.hparams.items():
        if name not in _NOT_SETTINGS and name in trained and not _same(_plain(trained[name]), _plain(value)):
            raise InputError(
                f"{last}: trained with {name} {_shown(trained[name])}, but the run's configuration says "
                f"{_shown(value)}; put that back, or start a new run."
            )


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Options by dotted name."""
    if not isinstance(value, Mapping):
        return {}
    found: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, Mapping) and item:
            found |= _flat(item, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = item or None if isinstance(item, Mapping) else item
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()} or None
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _same(left: Any, right: Any) -> bool:
    """Whether two values are one option's: 1e-4 and "1e-4" are, as YAML reads the latter as text."""
    if left == right:
        return isinstance(left, bool) == isinstance(right, bool)
    try:
        return not isinstance(left, bool) and not isinstance(right, bool) and float(left) == float(right)
    except (TypeError, ValueError):
        return False


def _same_class(left: Any, right: Any) -> bool:
    """Whether two class paths are of one class, under its own module or one that exports it."""
    try:
        return class_at(str(left)) is class_at(str(right))
    except (ImportError, AttributeError, ValueError):
        return False


def _shown(value: Any) -> str:
    return "null" if value is None else printable(value, 60)
