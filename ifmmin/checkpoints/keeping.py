"""Which checkpoints a run keeps: its best epoch and its last."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import lightning as L
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_only

FOLDER = "checkpoints"
_EPOCH_FILE = re.compile(r"epoch\d+(-v\d+)?\.ckpt")

_note = rank_zero_only(logging.getLogger("ifmmin").warning)


def epoch_files(folder: Path) -> list[Path]:
    """Checkpoints of single epochs that :class:`BestEpoch` wrote into ``folder``, in the order of their names."""
    return sorted(path for path in folder.glob("epoch*.ckpt") if _EPOCH_FILE.fullmatch(path.name))


class BestEpoch(ModelCheckpoint):
    """Keeps the best epoch. A class of its own, so that a user's ModelCheckpoint is not taken for it.

    Args:
        folder: of the run or stage; files go to ``folder/checkpoints``.
        monitor: logged name of the score.
        mode: its direction.
    """

    def __init__(self, folder: str | Path, monitor: str, mode: Literal["min", "max"]) -> None:
        super().__init__(
            Path(folder) / FOLDER,
            filename="epoch{epoch:03d}",
            auto_insert_metric_name=False,
            monitor=monitor,
            mode=mode,
        )

    def format_checkpoint_name(self, metrics: dict[str, Any], *args: Any, **kwargs: Any) -> str:
        """Count epochs from 1 in names, as the progress lines do; Lightning counts from 0."""
        return super().format_checkpoint_name({**metrics, "epoch": metrics["epoch"] + 1}, *args, **kwargs)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the best epoch of this very folder, wherever it was when the state was saved."""
        assert self.dirpath is not None
        super().load_state_dict(_placed_in(Path(self.dirpath), state_dict))

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Take the state of 0.1.0, which was Lightning's own class's."""
        states = checkpoint["callbacks"]
        if self.state_key not in states:
            for key, state in states.items():
                if key.startswith("ModelCheckpoint{") and state["monitor"] == self.monitor and named_epochs(state):
                    self.load_state_dict(state)


class LastEpoch(ModelCheckpoint):
    """Keeps the last epoch as ``last.ckpt``.

    Not ``save_last=True``, which keeps the last *best*: a resumed run would repeat the epochs since.

    Args:
        folder: of the run or stage; the file goes to ``folder/checkpoints``.

    Attributes:
        resumed: after how many epochs the run was interrupted and went on, once for each time.
    """

    def __init__(self, folder: str | Path) -> None:
        super().__init__(
            Path(folder) / FOLDER, filename="last", enable_version_counter=False, save_on_train_epoch_end=True
        )
        self.resumed: list[int] = []
        self._loaded = False

    def state_dict(self) -> dict[str, Any]:
        """Lightning's, with ``resumed``."""
        return super().state_dict() | {"resumed": list(self.resumed)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing: the only file is overwritten, and a test that loads the best epoch's state is no resumption."""

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Note that this training goes on."""
        if trainer.state.fn == TrainerFn.FITTING:
            self._loaded = True
            self.resumed = list(checkpoint["callbacks"].get(self.state_key, {}).get("resumed", []))

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Record after which epoch."""
        super().on_train_start(trainer, pl_module)
        if self._loaded:
            self.resumed.append(trainer.current_epoch)


class OwnCheckpoints(Callback):
    """Gives a user's own ModelCheckpoints without a folder one in the run, the same after every resume.

    Lightning would put them beside the curves, and a resumed run begins new ones; moved with its run, a callback would
    forget what it has kept.

    Args:
        folder: where their files go.
        callbacks: the user's, of any kind.
    """

    def __init__(self, folder: str | Path, callbacks: Iterable[Callback]) -> None:
        self._folder = Path(folder).absolute()
        self._placed = [each for each in callbacks if isinstance(each, ModelCheckpoint) and each.dirpath is None]
        for callback in self._placed:
            callback.dirpath = str(self._folder)

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Have what they kept be where it is now."""
        states = checkpoint.get("callbacks", {})
        for key in {callback.state_key for callback in self._placed} & states.keys():
            states[key] = self._moved(states[key])

    def _moved(self, state: Mapping[str, Any]) -> dict[str, Any]:
        def here(path: str) -> str:
            return str(self._folder / re.split(r"[\\/]", path)[-1]) if path else ""

        kept = {here(path): score for path, score in state["best_k_models"].items() if Path(here(path)).is_file()}
        paths = {name: here(state[name]) for name in ("best_model_path", "kth_best_model_path", "last_model_path")}
        return dict(state) | paths | {"dirpath": str(self._folder), "best_k_models": kept}


def best_epoch(trainer: L.Trainer) -> ModelCheckpoint | None:
    """The callback that chooses the best epoch: ours, or without one a script's own first."""
    callbacks = [callback for callback in trainer.checkpoint_callbacks if isinstance(callback, ModelCheckpoint)]
    return next((callback for callback in callbacks if isinstance(callback, BestEpoch)), next(iter(callbacks), None))


def resumed_after(trainer: L.Trainer) -> list[int]:
    """After how many epochs a training was interrupted and went on."""
    return [epoch for callback in trainer.callbacks if isinstance(callback, LastEpoch) for epoch in callback.resumed]  # type: ignore[attr-defined]


def named_epochs(state: Mapping[str, Any]) -> dict[str, Any]:
    """Scores by the names of the epoch files in a :class:`BestEpoch`'s state."""
    names = {re.split(r"[\\/]", str(path))[-1]: score for path, score in state["best_k_models"].items()}
    return {name: score for name, score in names.items() if _EPOCH_FILE.fullmatch(name)}


def _placed_in(folder: Path, state: Mapping[str, Any]) -> dict[str, Any]:
    """The state with every path in ``folder``, without files that are not there."""
    scores = named_epochs(state)
    there = {str(folder / name): score for name, score in scores.items() if (folder / name).is_file()}
    for name in sorted(scores):
        if str(folder / name) not in there:
            _note(f"{folder / name}: this best epoch is gone; the best of the epochs from here on is taken.")
    kept = next(iter(there), "")  # one is kept, so it is the best and the worst of those kept
    return dict(state) | {
        "dirpath": str(folder),
        "best_k_models": there,
        "best_model_path": kept,
        "kth_best_model_path": kept,
        "best_model_score": there.get(kept),
        "last_model_path": "",
    }
