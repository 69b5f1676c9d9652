"""Training in two stages: stage 1 on complete data, and what a stage-2 model starts from."""

from __future__ import annotations

from ifmmin.pretraining.stage1 import FusionPretraining, InvariantPretraining, Pretraining, Stage1Module
from ifmmin.pretraining.stage2 import PretrainedModule, Stage2Module

__all__ = [
    "FusionPretraining",
    "InvariantPretraining",
    "PretrainedModule",
    "Pretraining",
    "Stage1Module",
    "Stage2Module",
]
