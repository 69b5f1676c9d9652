"""Training in two stages: stage 1 on complete data, and what a stage-2 model starts from."""

from __future__ import annotations

from ifmmin.pretraining.stage1 import FusionPretraining, InvariantPretraining, Pretraining
from ifmmin.pretraining.stage2 import PretrainedModule

__all__ = ["FusionPretraining", "InvariantPretraining", "PretrainedModule", "Pretraining"]
