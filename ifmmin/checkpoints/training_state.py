"""The state of an interrupted training, and from which of its checkpoints it goes on."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from datamodules.errors import InputError
from datamodules.files import write_bytes
from datamodules.text import printable
from ifmmin.base import MissingModalityModule
from ifmmin.checkpoints.contents import ContentError, check_tensors
from ifmmin.checkpoints.keeping import FOLDER, epoch_files, named_epochs
from ifmmin.checkpoints.reading import read_checkpoint, trained_model
from ifmmin.checkpoints.shapes import difference
from ifmmin.optimization import make_optimizer

LAST = "last.ckpt"

_PROGRESS = ("epoch_progress", "epoch_loop.batch_progress", "epoch_loop.scheduler_progress")
_note = rank_zero_only(logging.getLogger("ifmmin").warning)


def usable_checkpoint(folder: Path, model: MissingModalityModule) -> str | None:
    """The checkpoint that an interrupted training goes on from, None where it starts over.

    It is the last one, or where that is torn, foreign or incomplete the latest kept epoch, put in its place; a line
    says so. Epochs kept after the one that it goes on from are removed: they are trained again.

    Args:
        folder: of the run or stage.
        model: that is to be trained on.
    """
    place = folder / FOLDER
    last, kept = place / LAST, epoch_files(place)
    if not kept and not (last.exists() or last.is_symlink()):
        return None
    problem = ""
    for path in (last, *reversed(kept)):
        try:
            state = read_training_state(path, model)
        except InputError as error:
            problem = problem or str(error)
            continue
        if problem:
            _note(f"{problem.rstrip('.')}; going on from {path.name}.")
        _settle(path, last, state)
        return str(last)
    _note(f"{problem.rstrip('.')}; starting over, as no other checkpoint is there.")
    _remove([last, *kept])
    return None


@rank_zero_only
def _settle(path: Path, last: Path, state: Mapping[str, Any]) -> None:
    """Have ``last`` be the checkpoint that is gone on from, and only the epochs that it knows be there."""
    if path != last:
        if last.is_dir():
            raise InputError(f"{last}: a folder is in the place of the last checkpoint; move it away.")
        last.unlink(missing_ok=True)
        write_bytes(last, path.read_bytes())
    known = {name for callback in _best_states(state) for name in named_epochs(callback)}
    if known:
        _remove([other for other in epoch_files(last.parent) if other.name not in known])


@rank_zero_only
def _remove(paths: list[Path]) -> None:
    for path in paths:
        if not path.is_dir():
            path.unlink(missing_ok=True)


def _best_states(state: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """States of the callbacks that keep the best epoch; up to 0.1.0 they were Lightning's own class's."""
    for name, callback in state["callbacks"].items():
        if name.startswith(("BestEpoch{", "ModelCheckpoint{")):
            yield callback


def read_training_state(path: str | Path, model: MissingModalityModule) -> dict[str, Any]:
    """A checkpoint from which ``model`` can be trained on.

    Raises:
        InputError: it cannot be read, is of another model or other sizes, or lacks something that training needs.
    """
    checkpoint = read_checkpoint(path, needs_data=False)
    check_training_state(checkpoint, model, path)
    return checkpoint


def check_training_state(checkpoint: Mapping[str, Any], model: MissingModalityModule, path: str | Path) -> None:
    """Refuse to train on from a checkpoint without what that needs, or with another model's.

    Raises:
        InputError: naming the file and what is wrong.
    """
    shown, name = printable(path), trained_model(checkpoint["ifmmin"])
    if name != type(model).__name__:
        raise InputError(f"{shown}: a checkpoint of {name}, not of {type(model).__name__}.")
    if problem := difference(model.state_dict(), checkpoint["state_dict"]):
        raise InputError(f"{shown}: its weights are not this model's: {problem}.")
    try:
        _check_loops(_part(checkpoint, "loops"))
        _check_callbacks(_part(checkpoint, "callbacks"))
        _check_optimizer(checkpoint, model)
        if not re.fullmatch(r"\d+\.\d+[\w.+-]*", str(checkpoint.get("pytorch-lightning_version"))):
            raise ContentError("pytorch-lightning_version is no version")
    except ContentError as error:
        raise InputError(f"{shown}: training cannot go on from it: {error}.") from error


def _part(entries: Mapping[str, Any], name: str, kind: type = dict) -> Any:
    found = entries.get(name)
    if not isinstance(found, kind):
        raise ContentError(f"{name} is missing" if found is None else f"{name} is of another kind")
    return found


def _check_loops(loops: Mapping[str, Any]) -> None:
    """Check the counts of epochs and batches."""
    fit = _part(loops, "fit_loop")
    for name in _PROGRESS:
        for counts in (_part(_part(fit, name), "total"), _part(fit[name], "current")):
            _part(counts, "ready", int)
            _part(counts, "completed", int)
    waiting: list[Any] = [{name: part for name, part in fit.items() if not name.endswith("state_dict")}]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            waiting += part.values()
        elif not isinstance(part, int) or part < 0:
            raise ContentError(f"loops has {printable(part, 40)} where a count must be")


def _check_callbacks(callbacks: Mapping[str, Any]) -> None:
    for name, state in callbacks.items():
        if not isinstance(name, str):
            raise ContentError("callbacks has a name that is not text")
        if name.startswith(("BestEpoch{", "ModelCheckpoint{")):
            for path, score in _part(_part(callbacks, name), "best_k_models").items():
                if not isinstance(path, str) or not isinstance(score, Tensor) or score.numel() != 1:
                    raise ContentError("callbacks has a best epoch without a score")
            _part(state, "kth_value", Tensor)
        if name.startswith("LastEpoch{"):
            resumed = state.get("resumed", []) if isinstance(state, dict) else None
            if not isinstance(resumed, list) or not all(isinstance(epoch, int) for epoch in resumed):
                raise ContentError("callbacks has no list of resumed epochs")


def _check_optimizer(checkpoint: Mapping[str, Any], model: MissingModalityModule) -> None:
    """Check the optimiser's state against the model's parameters, where the optimiser is the recipe's."""
    states = _part(checkpoint, "optimizer_states", list)
    schedules = _part(checkpoint, "lr_schedulers", list)
    if type(model).configure_optimizers is not MissingModalityModule.configure_optimizers:
        return
    if len(states) != 1 or len(schedules) != 1 or not isinstance(states[0], dict) or not isinstance(schedules[0], dict):
        raise ContentError("optimizer_states or lr_schedulers is empty or of another kind")
    groups, stored = make_optimizer(model, model.settings, fused=False).param_groups, _part(states[0], "state")
    given = _part(states[0], "param_groups", list)
    sizes = [len(_part(group, "params", list)) if isinstance(group, dict) else -1 for group in given]
    if sizes != [len(group["params"]) for group in groups]:
        raise ContentError("optimizer_states is of another number of parameters")
    for group, wanted in zip(given, groups, strict=True):
        if missing := sorted(wanted.keys() - group.keys()):
            raise ContentError(f"optimizer_states has no {missing[0]}")
        for number, parameter in zip(group["params"], wanted["params"], strict=True):
            values = stored.get(number, {})
            if not isinstance(values, dict):
                raise ContentError("optimizer_states is of another kind")
            check_tensors(values, "optimizer_states", parameter.numel() * 8 + 1024)
            if any(value.numel() != 1 and value.shape != parameter.shape for value in values.values()):
                raise ContentError("optimizer_states is of other sizes than the weights")
            if not all(bool(value.isfinite().all()) for value in values.values()):
                raise ContentError("optimizer_states is NaN or infinite")
