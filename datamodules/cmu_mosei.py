"""CMU-MOSEI."""

from __future__ import annotations

from datamodules.base import EmotionDataModule
from datamodules.storage.layouts import CMU_MOSEI_LAYOUT


class CMUMOSEI(EmotionDataModule):
    """CMU-MOSEI as ``import CMUMOSEI`` makes it of a public pack: sentiment from -3 to 3, one fold, selected by MAE.

    Zadeh et al., "Multimodal language analysis in the wild: CMU-MOSEI dataset and interpretable dynamic fusion graph",
    ACL 2018. The packs have 22,856 clips of YouTube videos; a video is taken for a speaker. The corpus is not part of
    this library.
    """

    layout = CMU_MOSEI_LAYOUT
    monitor = "MAE"
