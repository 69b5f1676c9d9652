"""IEMOCAP."""

from __future__ import annotations

from datamodules.base import EmotionDataModule
from datamodules.storage.layouts import IEMOCAP_LAYOUT


class IEMOCAP(EmotionDataModule):
    """IEMOCAP in the public feature layout: 4 classes, 10 folds, models selected by UA.

    Busso et al., "IEMOCAP: interactive emotional dyadic motion capture database", 2008. The corpus
    is licensed and not part of this library.
    """

    layout = IEMOCAP_LAYOUT
