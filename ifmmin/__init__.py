"""IF-MMIN and what every model for emotion recognition with missing modalities shares."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ifmmin.base import MissingModalityModule
    from ifmmin.inference import Predictor
    from ifmmin.model import IFMMIN
    from ifmmin.pretraining.stage1 import FusionPretraining, InvariantPretraining
    from ifmmin.pretraining.stage2 import PretrainedModule

__version__ = "0.1.0"

_HOMES = {
    "FusionPretraining": "pretraining",
    "IFMMIN": "model",
    "InvariantPretraining": "pretraining",
    "MissingModalityModule": "base",
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
    return getattr(importlib.import_module(f"ifmmin.{_HOMES[name]}"), name)
