"""CH-SIMS."""

from __future__ import annotations

from datamodules.base import EmotionDataModule
from datamodules.storage.layouts import CH_SIMS_LAYOUT


class CHSIMS(EmotionDataModule):
    """CH-SIMS as ``import CHSIMS`` makes it of the public pack: sentiment from -1 to 1, one fold, selected by MAE.

    Yu et al., "CH-SIMS: a Chinese multimodal sentiment analysis dataset with fine-grained annotation of modality", ACL
    2020. 2,281 clips of 60 videos: films, series and shows, in which several people act. ``check`` notes the videos
    that several splits share. The labels of single modalities are not read. The corpus is not part of this library.
    """

    layout = CH_SIMS_LAYOUT
    monitor = "MAE"
