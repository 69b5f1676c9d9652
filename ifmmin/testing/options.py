"""Whether the options of a model are plain data."""

from __future__ import annotations

import io
from typing import Any

import torch

from ifmmin.testing.trial import Failure, Trial


def options(trial: Trial) -> list[Failure]:
    """Whether options are plain and survive a checkpoint."""
    given = dict(trial.model.hparams)
    if odd := [name for name, value in given.items() if not _plain(value)]:
        found = f"option {odd[0]} is no plain value ({type(given[odd[0]]).__name__}), so no checkpoint can hold it"
        return [Failure(found, "make it text, a number, true or false, or lists and mappings of these")]
    file = io.BytesIO()
    torch.save(given, file)
    file.seek(0)
    again = trial.owner(**torch.load(file, weights_only=True)).state_dict()
    before = trial.model.state_dict()
    shapes = [{name: getattr(value, "shape", None) for name, value in each.items()} for each in (again, before)]
    if shapes[0] != shapes[1]:
        found = "the options in its checkpoint make a model of other parameters"
        return [Failure(found, "let every size follow from options, from feature_dims and from self.task")]
    return []


def _plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and _plain(inner) for key, inner in value.items())
    if isinstance(value, list):
        return all(map(_plain, value))
    return value is None or type(value) in (str, int, float, bool)
