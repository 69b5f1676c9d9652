"""A corpus of random numbers with the sizes of a real one, in memory, for timing."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import torch

from datamodules.base import EmotionDataModule
from datamodules.corpus import Corpus, RaggedFrames
from datamodules.layouts import IEMOCAP_LAYOUT
from datamodules.targets import Targets

UTTERANCES = 5531
DIMS = (130, 342, 1024)
MEDIAN_AUDIO, SPREAD_AUDIO, LONGEST_AUDIO = 40, 0.6, 340  # log-normal
VISUAL_FRAMES, TEXT_FRAMES = 50, 22


class RandomCorpus(EmotionDataModule):
    """Random features of IEMOCAP's size: nothing can be learnt from it, and no score on it means anything.

    Args:
        utterances: how many; four fifths train, a tenth each validate and test.
        frames: factor on the number of frames of every modality.
        seed: of the numbers, the order and the masks.
        **kwargs: of :class:`~datamodules.base.EmotionDataModule`, except ``root`` and ``fold``.
    """

    layout = IEMOCAP_LAYOUT
    synthetic = True

    def __init__(self, utterances: int = UTTERANCES, frames: float = 1.0, seed: int = 0, **kwargs: Any) -> None:
        self._sizes = (utterances, frames)
        super().__init__(root=".", seed=seed, **kwargs)
        self.corpus_name = "random numbers of IEMOCAP's size"

    def read_feature_dims(self) -> list[int]:
        """The widths of IEMOCAP's features."""
        return list(DIMS)

    def setup(self, stage: str) -> None:
        """Draw the numbers, once."""
        if self.corpus is not None:
            return
        count, factor = self._sizes
        random = np.random.default_rng(self.seed)
        audio = np.exp(random.normal(np.log(MEDIAN_AUDIO), SPREAD_AUDIO, count)).round().clip(1, LONGEST_AUDIO)
        fixed = [np.full(count, length) for length in (VISUAL_FRAMES, TEXT_FRAMES)]
        lengths = (np.stack([audio, *fixed], axis=1) * factor).astype(np.int64)
        generator = torch.Generator().manual_seed(self.seed)
        parts = []
        for modality, dim in enumerate(DIMS):
            offsets = np.concatenate([[0], lengths[:, modality].cumsum()])
            values = torch.randn(int(offsets[-1]), dim, generator=generator)
            parts.append(RaggedFrames(values, torch.from_numpy(offsets)))
        names = [f"Ses{1 + number % 5:02d}F_impro00_F{number:06d}" for number in range(count)]
        labels = random.integers(0, len(self.class_names), count)
        edges = [0, count * 8 // 10, count * 9 // 10, count]
        spans = [slice(start, stop) for start, stop in pairwise(edges)]
        targets = {
            split: Targets(names[span], labels[span])
            for split, span in zip(("train", "val", "test"), spans, strict=True)
        }
        self._hold(Corpus(self.root, names, (parts[0], parts[1], parts[2]), torch.from_numpy(lengths)), targets)
