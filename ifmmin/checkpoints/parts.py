"""Parts of a model in a checkpoint: state dicts by sub-network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from datamodules.errors import InputError
from datamodules.files import expanded
from ifmmin.checkpoints.published import read_published_parts
from ifmmin.checkpoints.reading import read_checkpoint, trained_model

if TYPE_CHECKING:
    from ifmmin.base import MissingModalityModule


class Stage1Checkpoint(NamedTuple):
    """What a stage-1 checkpoint holds.

    Attributes:
        parts: state dicts by sub-network.
        options: of the model that was trained; empty for the published code's files, which do not tell.
        data: the record of its training data, None where there is none.
    """

    parts: dict[str, dict[str, Tensor]]
    options: Mapping[str, Any]
    data: dict[str, Any] | None


def load_part(part: torch.nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """``load_state_dict`` whose error is one line.

    Raises:
        InputError: a parameter is missing, unknown or of another shape.
    """
    try:
        part.load_state_dict(state)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:]] or [str(error)]
        raise InputError(f"{source} does not fit this model and corpus: {lines[0]}") from error


def read_stage1(path: str | Path, stage1: type[MissingModalityModule]) -> Stage1Checkpoint:
    """Read a stage-1 checkpoint of ours, or a folder of the published code.

    Raises:
        InputError: it cannot be read, or is a checkpoint of another model.
    """
    path = expanded(path)
    if path.is_dir():
        return Stage1Checkpoint(read_published_parts(path, stage=1), {}, None)
    checkpoint = read_checkpoint(path, needs_data=False)
    trained = trained_model(checkpoint["ifmmin"])
    if trained != stage1.__name__:
        raise InputError(f"{path}: a checkpoint of {trained}, but stage 1 of this model is {stage1.__name__}.")
    parts = split_parts(checkpoint["state_dict"])
    return Stage1Checkpoint(parts, checkpoint["hyper_parameters"], checkpoint["ifmmin"].get("data"))


def split_parts(state: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Group a state dict by its first name: ``encoders.audio.x`` is ``{"encoders": {"audio.x": …}}``."""
    parts: dict[str, dict[str, Tensor]] = {}
    for key, value in state.items():
        part, _, rest = key.partition(".")
        parts.setdefault(part, {})[rest] = value
    return parts
