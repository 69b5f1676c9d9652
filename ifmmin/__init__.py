"""IF-MMIN and what every model for emotion recognition with missing modalities shares."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ifmmin import foreign

foreign.refuse()  # before anything of ours imports datamodules

from datamodules.lazy import lazy  # noqa: E402

if TYPE_CHECKING:
    from ifmmin.base import MissingModalityModule
    from ifmmin.cards import ModelCard
    from ifmmin.inference import Predictor
    from ifmmin.media import MediaPredictor
    from ifmmin.model import IFMMIN
    from ifmmin.optimization import Recipe
    from ifmmin.pretraining.stage1 import FusionPretraining, InvariantPretraining
    from ifmmin.pretraining.stage2 import PretrainedModule

__version__ = "0.1.0"

__all__ = [
    "IFMMIN",
    "FusionPretraining",
    "InvariantPretraining",
    "MediaPredictor",
    "MissingModalityModule",
    "ModelCard",
    "Predictor",
    "PretrainedModule",
    "Recipe",
]

__getattr__, __dir__ = lazy(
    __name__,
    {
        "FusionPretraining": "pretraining.stage1",
        "IFMMIN": "model",
        "InvariantPretraining": "pretraining.stage1",
        "MediaPredictor": "media",
        "MissingModalityModule": "base",
        "ModelCard": "cards",
        "Predictor": "inference",
        "PretrainedModule": "pretraining.stage2",
        "Recipe": "optimization",
    },
)
