"""Corpora, missing modalities and batches. Knows no model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from datamodules.lazy import lazy

if TYPE_CHECKING:
    from datamodules.base import EmotionDataModule
    from datamodules.batches.batch import Batch
    from datamodules.ch_sims import CHSIMS
    from datamodules.cmu_mosei import CMUMOSEI
    from datamodules.cmu_mosi import CMUMOSI
    from datamodules.conditions import CONDITIONS, MISSING_CONDITIONS, MODALITIES
    from datamodules.errors import CorpusError, InputError
    from datamodules.folder import Folder
    from datamodules.iemocap import IEMOCAP
    from datamodules.msp_improv import MSPIMPROV
    from datamodules.needs import DataNeeds
    from datamodules.privileged import Privileged
    from datamodules.synthetic import Synthetic
    from datamodules.synthetic_sentiment import SyntheticSentiment

__all__ = [
    "CHSIMS",
    "CMUMOSEI",
    "CMUMOSI",
    "CONDITIONS",
    "IEMOCAP",
    "MISSING_CONDITIONS",
    "MODALITIES",
    "MSPIMPROV",
    "Batch",
    "CorpusError",
    "DataNeeds",
    "EmotionDataModule",
    "Folder",
    "InputError",
    "Privileged",
    "Synthetic",
    "SyntheticSentiment",
]

CORPORA = {
    "CHSIMS": "ch_sims",
    "CMUMOSEI": "cmu_mosei",
    "CMUMOSI": "cmu_mosi",
    "Folder": "folder",
    "IEMOCAP": "iemocap",
    "MSPIMPROV": "msp_improv",
    "Privileged": "privileged",
    "Synthetic": "synthetic",
    "SyntheticSentiment": "synthetic_sentiment",
}
"""Built-in corpora by name, and their modules: to list one here is its whole registration."""

__getattr__, __dir__ = lazy(
    __name__,
    {
        **CORPORA,
        "Batch": "batches.batch",
        "CONDITIONS": "conditions",
        "CorpusError": "errors",
        "DataNeeds": "needs",
        "EmotionDataModule": "base",
        "InputError": "errors",
        "MISSING_CONDITIONS": "conditions",
        "MODALITIES": "conditions",
    },
)
