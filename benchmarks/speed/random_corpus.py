"""A corpus of random numbers with the sizes of a real one, in memory or in files, for timing."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from datamodules.base import EmotionDataModule
from datamodules.batches.loading import IntArray
from datamodules.conditions import MODALITIES
from datamodules.storage.corpus import Corpus
from datamodules.storage.frames import RaggedFrames
from datamodules.storage.layouts import IEMOCAP_LAYOUT
from datamodules.storage.targets import Targets

UTTERANCES = 5531
DIMS = (130, 342, 1024)
MEDIAN_AUDIO, SPREAD_AUDIO, LONGEST_AUDIO = 40, 0.6, 340  # log-normal
VISUAL_FRAMES, TEXT_FRAMES = 50, 22
TEXT_OUTLIERS = 4  # of its 1024 features
MEAN_TURNS, SPREAD_TURNS, MOST_TURNS = 18.4, 9.0, 56  # of one speaker in one dialogue: normal


class RandomCorpus(EmotionDataModule):
    """Random features of IEMOCAP's size: nothing can be learnt from it, and no score on it means anything.

    Args:
        utterances: how many; four fifths train, a tenth each validate and test.
        frames: factor on the number of frames of every modality.
        seed: of the numbers, the order and the masks.
        folder: where :meth:`write` wrote these numbers, to read them as a corpus of one's own is read; None:
            drawn in memory.
        **kwargs: of :class:`~datamodules.base.EmotionDataModule`, except ``root`` and ``fold``.
    """

    layout = IEMOCAP_LAYOUT
    synthetic = True

    def __init__(
        self,
        utterances: int = UTTERANCES,
        frames: float = 1.0,
        seed: int = 0,
        folder: Path | None = None,
        **kwargs: Any,
    ) -> None:
        self._sizes = (utterances, frames)
        self._folder = folder
        if folder is None:
            kwargs["memory_budget_gb"] = float("inf")  # they are in memory, however many
        super().__init__(root=str(folder or "."), seed=seed, **kwargs)
        self.corpus_name = "random numbers of IEMOCAP's size"

    def read_feature_dims(self) -> list[int]:
        """The widths of IEMOCAP's features."""
        return list(DIMS)

    def setup(self, stage: str) -> None:
        """Draw or read the numbers, once."""
        if self._corpus is not None:
            return
        lengths, targets = self._draw()
        names = [name for split in targets.values() for name in split.utterances]
        if self._folder:
            self._set_corpus(self._read(names, require_all=True), targets)
            return
        generator = torch.Generator().manual_seed(self.seed)
        parts = []
        for modality, dim in enumerate(DIMS):
            offsets = np.concatenate([[0], lengths[:, modality].cumsum()])
            values = _of_real_scale(torch.randn(int(offsets[-1]), dim, generator=generator), modality)
            parts.append(RaggedFrames(values, torch.from_numpy(offsets)))
        self._set_corpus(Corpus(self.root, names, (parts[0], parts[1], parts[2]), torch.from_numpy(lengths)), targets)

    def write(self, folder: Path) -> None:
        """Write feature files in the public layout, not atomically, for a later ``folder``."""
        lengths, targets = self._draw()
        names = [name for split in targets.values() for name in split.utterances]
        random = np.random.default_rng(self.seed)
        for modality, dim in enumerate(DIMS):
            path = self.corpus_layout.feature_path(folder, modality)
            path.parent.mkdir(parents=True)
            with h5py.File(path, "w") as file:
                for name, length in zip(names, lengths[:, modality].tolist(), strict=True):
                    values = torch.from_numpy(random.standard_normal((length, dim), dtype=np.float32))
                    file.create_dataset(name, data=_of_real_scale(values, modality).numpy())

    def _draw(self) -> tuple[IntArray, dict[str, Targets]]:
        """The lengths [N, 3] of all utterances, and the splits."""
        count, factor = self._sizes
        random = np.random.default_rng(self.seed)
        audio = np.exp(random.normal(np.log(MEDIAN_AUDIO), SPREAD_AUDIO, count)).round().clip(1, LONGEST_AUDIO)
        fixed = [np.full(count, length) for length in (VISUAL_FRAMES, TEXT_FRAMES)]
        lengths = (np.stack([audio, *fixed], axis=1) * factor).astype(np.int64).clip(min=1)
        names = self._names(count)
        labels = random.integers(0, len(self.class_names), count)
        edges = [0, count * 8 // 10, count * 9 // 10, count]
        spans = [slice(start, stop) for start, stop in pairwise(edges)]
        targets = {
            split: Targets(names[span], labels[span])
            for split, span in zip(("train", "val", "test"), spans, strict=True)
        }
        return lengths, targets

    def _names(self, count: int) -> list[str]:
        """IEMOCAP's ids of so many utterances, dialogue after dialogue, each with two chains of turns."""
        random, names = np.random.default_rng((self.seed, 1)), list[str]()
        while len(names) < count:
            turns = random.normal(MEAN_TURNS, SPREAD_TURNS, 2).round().clip(1, MOST_TURNS)
            dialogue = len(names)  # rises, so that no two have one number
            for speaker, most in zip("FM", turns.astype(int).tolist(), strict=True):
                names += [f"Ses{1 + dialogue % 5:02d}F_impro{dialogue}_{speaker}{turn:03d}" for turn in range(most)]
        return names[:count]


def _of_real_scale(values: Tensor, modality: int) -> Tensor:
    """Make standard normal numbers [F, D] look like real features, in place.

    Audio stays, as if z-scored; visual becomes non-negative, half of it zero, with a root mean square of 0.25; text
    gets a standard deviation of 0.5, and a few features five times that.
    """
    if MODALITIES[modality] == "visual":
        values.clamp_(min=0).mul_(0.25 * 2**0.5)
    elif MODALITIES[modality] == "text":
        values.mul_(0.5)[:, :TEXT_OUTLIERS].mul_(5)
    return values
