"""CMU-MOSI."""

from __future__ import annotations

from datamodules.base import EmotionDataModule
from datamodules.storage.layouts import CMU_MOSI_LAYOUT


class CMUMOSI(EmotionDataModule):
    """CMU-MOSI as ``import CMUMOSI`` makes it of a public pack: sentiment from -3 to 3, one fold, selected by MAE.

    Zadeh et al., "Multimodal sentiment intensity analysis in videos: facial gestures and verbal messages", IEEE
    Intelligent Systems 2016. 2,199 clips of 93 YouTube videos of one person each; a video is taken for a speaker. The
    corpus is not part of this library.
    """

    layout = CMU_MOSI_LAYOUT
    monitor = "MAE"
