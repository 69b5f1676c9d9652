"""IF-MMIN and what every model for emotion recognition with missing modalities shares."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from ifmmin import starting

if TYPE_CHECKING:
    from ifmmin.inference import Predictor
    from ifmmin.model import IFMMIN
    from ifmmin.module import MissingModalityModule
    from ifmmin.pretraining import FusionPretraining, InvariantPretraining, PretrainedModule

__version__ = "0.1.0"

_HOMES = {
    "FusionPretraining": "pretraining",
    "IFMMIN": "model",
    "InvariantPretraining": "pretraining",
    "MissingModalityModule": "module",
    "Predictor": "inference",
    "PretrainedModule": "pretraining",
}

__all__ = [
    "IFMMIN",
    "FusionPretraining",
    "InvariantPretraining",
    "MissingModalityModule",
    "Predictor",
    "PretrainedModule",
]


def __getattr__(name: str) -> object:
    """Import on first use, so that the plain ``torch.nn`` parts do not wait for Lightning."""
    if name not in _HOMES:
        raise AttributeError(f"module 'ifmmin' has no attribute {name!r}")
    with starting.imports():
        home = importlib.import_module(f"ifmmin.{_HOMES[name]}")
    return getattr(home, name)
