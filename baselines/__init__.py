"""Competitors of IF-MMIN, a file or a folder each. What is re-exported here is found by name, and imported on demand.

To register a model, add it to the imports and to the table below.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from datamodules.lazy import lazy

if TYPE_CHECKING:
    from baselines.bimha import BIMHA
    from baselines.cfn_sr import CFNSR
    from baselines.cif_mmin import CIFMMIN, ContrastivePretraining
    from baselines.cm_arr import CMARR
    from baselines.cmga import CMGA
    from baselines.cold import COLD
    from baselines.correlation_learning import CorrelationLearning
    from baselines.curriculum_correlation import CurriculumCorrelation
    from baselines.dicmor import DiCMoR
    from baselines.distilled_imputation import DistilledImputation
    from baselines.emotion_shift import EmotionShift
    from baselines.emt import EMT
    from baselines.hierarchical_fusion import EffMulti, InterMulti
    from baselines.imder import IMDer
    from baselines.late_fusion import LateFusion
    from baselines.linear_imputation import LinearImputation
    from baselines.lmr_cbt import LMRCBT
    from baselines.mcmult import MCMulT
    from baselines.mctn import MCTN
    from baselines.mean_fusion import MeanFusion
    from baselines.mesm import MESM
    from baselines.mib import MIB
    from baselines.misa import MISA
    from baselines.mmim import MMIM
    from baselines.mmin import MMIN, MMINWithoutCycle
    from baselines.mmmie import MMMIE
    from baselines.momke import ExpertPretraining, MoMKE
    from baselines.mplmm import MPLMM
    from baselines.mult import MulT
    from baselines.mult.pretraining import MulTPretraining
    from baselines.mv2d import MV2D
    from baselines.plain_fusion import CompleteFusion, ModalityDropout
    from baselines.redcore import RedCore
    from baselines.scale_vlad import ScaleVLAD
    from baselines.tensor_fusion import LMF, TFN
    from baselines.three_stage_contrastive import ThreeStageContrastive
    from baselines.variational_distillation import VariationalDistillation
    from baselines.vcan import VCAN

__all__ = [
    "BIMHA",
    "CFNSR",
    "CIFMMIN",
    "CMARR",
    "CMGA",
    "COLD",
    "EMT",
    "LMF",
    "LMRCBT",
    "MCTN",
    "MESM",
    "MIB",
    "MISA",
    "MMIM",
    "MMIN",
    "MMMIE",
    "MPLMM",
    "MV2D",
    "TFN",
    "VCAN",
    "CompleteFusion",
    "ContrastivePretraining",
    "CorrelationLearning",
    "CurriculumCorrelation",
    "DiCMoR",
    "DistilledImputation",
    "EffMulti",
    "EmotionShift",
    "ExpertPretraining",
    "IMDer",
    "InterMulti",
    "LateFusion",
    "LinearImputation",
    "MCMulT",
    "MMINWithoutCycle",
    "MeanFusion",
    "MoMKE",
    "ModalityDropout",
    "MulT",
    "MulTPretraining",
    "RedCore",
    "ScaleVLAD",
    "ThreeStageContrastive",
    "VariationalDistillation",
]

__getattr__, __dir__ = lazy(
    __name__,
    {
        "BIMHA": "bimha",
        "CFNSR": "cfn_sr",
        "CIFMMIN": "cif_mmin",
        "CMARR": "cm_arr",
        "CMGA": "cmga",
        "COLD": "cold",
        "CompleteFusion": "plain_fusion",
        "ContrastivePretraining": "cif_mmin",
        "CorrelationLearning": "correlation_learning",
        "CurriculumCorrelation": "curriculum_correlation",
        "DiCMoR": "dicmor",
        "DistilledImputation": "distilled_imputation",
        "EMT": "emt",
        "EffMulti": "hierarchical_fusion",
        "EmotionShift": "emotion_shift",
        "InterMulti": "hierarchical_fusion",
        "IMDer": "imder",
        "LMF": "tensor_fusion",
        "LMRCBT": "lmr_cbt",
        "ExpertPretraining": "momke",
        "LateFusion": "late_fusion",
        "LinearImputation": "linear_imputation",
        "MCMulT": "mcmult",
        "MCTN": "mctn",
        "MESM": "mesm",
        "MIB": "mib",
        "MISA": "misa",
        "MMIM": "mmim",
        "MMIN": "mmin",
        "MMINWithoutCycle": "mmin",
        "MMMIE": "mmmie",
        "MPLMM": "mplmm",
        "MV2D": "mv2d",
        "MeanFusion": "mean_fusion",
        "MoMKE": "momke",
        "ModalityDropout": "plain_fusion",
        "MulT": "mult",
        "RedCore": "redcore",
        "ScaleVLAD": "scale_vlad",
        "TFN": "tensor_fusion",
        "ThreeStageContrastive": "three_stage_contrastive",
        "VCAN": "vcan",
        "VariationalDistillation": "variational_distillation",
        "MulTPretraining": "mult.pretraining",
    },
)
