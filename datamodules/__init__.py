"""Corpora, missing modalities and batches. Knows no model."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datamodules.base import EmotionDataModule
    from datamodules.batches.batch import Batch
    from datamodules.conditions import CONDITIONS, MISSING_CONDITIONS, MODALITIES
    from datamodules.errors import CorpusError, InputError
    from datamodules.iemocap import IEMOCAP
    from datamodules.msp_improv import MSPIMPROV
    from datamodules.synthetic import Synthetic

_HOMES = {
    "CONDITIONS": "conditions",
    "IEMOCAP": "iemocap",
    "MISSING_CONDITIONS": "conditions",
    "MODALITIES": "conditions",
    "MSPIMPROV": "msp_improv",
    "Batch": "batches.batch",
    "CorpusError": "errors",
    "EmotionDataModule": "base",
    "InputError": "errors",
    "Synthetic": "synthetic",
}

__all__ = [
    "CONDITIONS",
    "IEMOCAP",
    "MISSING_CONDITIONS",
    "MODALITIES",
    "MSPIMPROV",
    "Batch",
    "CorpusError",
    "EmotionDataModule",
    "InputError",
    "Synthetic",
]


def __getattr__(name: str) -> object:
    """Import on first use, so that reading a batch or a metric does not wait for Lightning."""
    if name not in _HOMES:
        raise AttributeError(f"module 'datamodules' has no attribute {name!r}")
    return getattr(importlib.import_module(f"datamodules.{_HOMES[name]}"), name)
