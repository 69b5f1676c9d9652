"""The competitors of IF-MMIN, a file or a folder each; what is re-exported here is found by the command line."""

from __future__ import annotations

from baselines.cm_arr import CMARR
from baselines.mctn import MCTN
from baselines.mean_fusion import MeanFusion
from baselines.mmin import MMIN, MMINWithoutCycle
from baselines.plain_fusion import CompleteFusion, ModalityDropout

__all__ = [
    "CMARR",
    "MCTN",
    "MMIN",
    "CompleteFusion",
    "MMINWithoutCycle",
    "MeanFusion",
    "ModalityDropout",
]
