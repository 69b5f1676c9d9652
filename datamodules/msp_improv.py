"""MSP-IMPROV."""

from __future__ import annotations

from datamodules.base import EmotionDataModule
from datamodules.storage.layouts import MSP_IMPROV_LAYOUT


class MSPIMPROV(EmotionDataModule):
    """MSP-IMPROV in the public feature layout: 4 classes, 12 folds, models selected by F1.

    Busso et al., "MSP-IMPROV: an acted corpus of dyadic interactions to study emotion perception",
    IEEE Transactions on Affective Computing 2017. The corpus is licensed and not part of this
    library. The public pipeline normalises audio by statistics of the whole corpus, test data
    included; this one uses the fold's training utterances.
    """

    layout = MSP_IMPROV_LAYOUT
    monitor = "F1"
