"""Writing checkpoints: whole or not at all, beside their target, on the disk before they get their name."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import CheckpointIO, TorchCheckpointIO
from lightning.pytorch.plugins.io.wrapper import _WrappingCheckpointIO

from datamodules.errors import InputError
from datamodules.files import atomic_path
from ifmmin.checkpoints.reading import load_safely
from ifmmin.sharing.folder import is_saved, read_folder

_SCORED = ("state_dict", "hyper_parameters", "hparams_name", "ifmmin", "epoch", "global_step")


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's plugin that writes and reads checkpoint files.

    Lightning's own writes to $TMPDIR and moves: where that is another file system, the move is a copy over the last
    good checkpoint, which a kill or a full disk leaves torn.

    Args:
        run: folder of the run; where it is gone, its checkpoints are refused instead of half a run made anew.
        training: whether to read the whole state of training, or only what scoring needs.
    """

    def __init__(self, run: str | Path, training: bool = True) -> None:
        self.run = Path(run)
        self.training = training

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint; the file of this name is the old one until the new one is on the disk.

        Raises:
            InputError: the run's folder was deleted.
            OSError: the disk is full or may not be written; it names ``path``.
        """
        if not self.run.is_dir():
            raise InputError(f"{self.run}: this run's folder was deleted while it ran; start it again.")
        write_checkpoint(checkpoint, path)

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint onto the CPU; nothing in it is executed, whatever the arguments.

        Where nothing is trained, a folder that ``save_pretrained`` wrote is read like one.

        Raises:
            InputError: it cannot be read.
        """
        if self.training:
            return dict(load_safely(path))
        checkpoint = read_folder(Path(path)) if is_saved(Path(path)) else load_safely(path)
        needed = {name: checkpoint[name] for name in _SCORED if name in checkpoint}
        # Lightning converts checkpoints of its older versions by this.
        return needed | {"pytorch-lightning_version": checkpoint.get("pytorch-lightning_version", "2.0.0")}


def write_checkpoint(checkpoint: dict[str, Any], path: str | Path) -> None:
    """Write a checkpoint; the file of this name is the old one until the new one is on the disk.

    Raises:
        OSError: the disk is full or may not be written; it names ``path``.
    """
    content = io.BytesIO()
    torch.save(checkpoint, content)
    with atomic_path(path) as temporary:
        temporary.write_bytes(content.getbuffer())


def with_atomic_checkpoints(plugins: Any, strategy: Any, run: Path, training: bool) -> list[Any]:
    """A trainer's plugins, with ours for checkpoints unless it has another.

    Args:
        plugins: as the trainer takes them: one, a list, or None.
        strategy: the trainer's; one with files of its own kind (FSDP, DeepSpeed) or its own plugin keeps them.
        run: folder of the run.
        training: whether the trainer is to train.
    """
    given = list(plugins) if isinstance(plugins, (list, tuple)) else [plugins] if plugins is not None else []
    own = [plugin for plugin in given if isinstance(plugin, CheckpointIO)]
    ours = AtomicCheckpointIO(run, training)
    for plugin in own:
        if isinstance(plugin, _WrappingCheckpointIO) and plugin.checkpoint_io is None:  # such as AsyncCheckpointIO
            plugin.checkpoint_io = ours
    name = strategy if isinstance(strategy, str) else type(strategy).__name__
    special = any(word in name.lower() for word in ("fsdp", "deepspeed", "modelparallel"))
    if own or special or getattr(strategy, "_checkpoint_io", None) is not None:
        return given
    return [*given, ours]
