"""Reading one feature corpus: HDF5 features, and label files per fold.

Under a root folder lie ``A/<name>.h5``, ``V/<name>.h5`` and ``L/<name>.h5``, each with one dataset [frames,
width] per utterance id, and ``target/<fold>/{trn,val,tst}_label.npy`` and ``_int2name.npy``.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from datamodules.batch import MODALITIES
from datamodules.features import Entries, FeatureFile, not_finite, open_features, unreadable
from datamodules.layouts import Layout
from datamodules.problems import Problem, about, raise_first, root_problems
from datamodules.statistics import Moments, Statistics, shipped_statistics
from datamodules.targets import IntArray, Targets

__all__ = [
    "Corpus",
    "RaggedFrames",
    "Statistics",
    "feature_dims",
    "fingerprint",
    "read_corpus",
    "shipped_statistics",
    "train_statistics",
]


class RaggedFrames(NamedTuple):
    """One modality of N utterances, every frame kept once, as stored.

    Attributes:
        values: float32 [F, D], the frames of all utterances, one utterance after the other.
        offsets: int64 [N+1]; utterance i is ``values[offsets[i]:offsets[i+1]]``, empty where it is not there.
    """

    values: Tensor
    offsets: Tensor

    @property
    def dim(self) -> int:
        """The number D of values in a frame; 0 where the modality is not there at all."""
        return self.values.shape[1]

    @property
    def lengths(self) -> Tensor:
        """int64 [N]: the number of frames of each utterance."""
        return self.offsets.diff()


@dataclass(frozen=True, eq=False)
class Corpus:
    """All features of N utterances, in memory once.

    Attributes:
        root: the folder they were read from.
        utterances: N ids.
        frames: audio, visual and text.
        lengths: int64 [N, 3], the number of frames; 0 where the modality is not there.
    """

    root: Path
    utterances: list[str]
    frames: tuple[RaggedFrames, RaggedFrames, RaggedFrames]
    lengths: Tensor


def read_corpus(root: Path, layout: Layout, utterances: Sequence[str] | None, *, complete: bool) -> Corpus:
    """Read the features of some utterances, or of all.

    Features of any float or integer type are read as float32. Shapes are read first, so that each modality
    is read straight into the one tensor that holds it.

    Args:
        root: the folder that holds A, V and L.
        layout: which files to read.
        utterances: the ids to read, in this order; None for every id in any of the files, sorted.
        complete: True where every utterance must have all three modalities. False where a modality may
            be absent: no file, no entry for an utterance, or an entry without frames.

    Raises:
        CorpusError: the root or a file is missing or damaged, an utterance is missing or has no frames,
            or its frames are not of the file's width, not readable or not finite.
    """
    root = Path(root)
    raise_first(root_problems(root))
    with ExitStack() as stack:
        files = [_open(layout.feature_path(root, modality), stack, complete) for modality in range(len(MODALITIES))]
        if utterances is None:
            utterances = sorted({name for file in files if file for name in file.names})
        if not utterances:
            raise_first([_no_features(root)])
        entries = [_look_up(file, utterances, complete) for file in files]
        lengths = np.stack([entry.lengths for entry in entries], axis=1)
        nothing = [utterances[row] for row in np.flatnonzero(~lengths.any(axis=1)).tolist()]
        raise_first(about(root, nothing, "has no features in any modality", "extract at least one, or leave it out"))
        # Only here are frames read: whatever the shapes give away is known before the long part.
        audio, visual, text = (
            _read_frames(file, entry, utterances) for file, entry in zip(files, entries, strict=True)
        )
    return Corpus(root, list(utterances), (audio, visual, text), torch.from_numpy(lengths))


def feature_dims(root: Path, layout: Layout) -> list[int]:
    """The width of the audio, visual and text frames, without reading any; 0 where there is no file.

    Raises:
        CorpusError: the root is missing, a file is damaged, or none of the three is there.
    """
    root = Path(root)
    raise_first(root_problems(root))
    with ExitStack() as stack:
        files = [_open(layout.feature_path(root, modality), stack, False) for modality in range(len(MODALITIES))]
        if not any(files):
            raise_first([_no_features(root)])
        return [file.width() if file else 0 for file in files]


def _no_features(root: Path) -> Problem:
    return Problem(root, "no features of any utterance", "check the root folder and the feature names")


def _open(path: Path, stack: ExitStack, complete: bool) -> FeatureFile | None:
    """Open a feature file until ``stack`` ends; None where it does not exist and need not."""
    if not complete and not path.exists():
        return None
    file = open_features(path)
    if isinstance(file, Problem):
        raise_first([file])
        return None
    return stack.enter_context(file)


def _look_up(file: FeatureFile | None, utterances: Sequence[str], complete: bool) -> Entries:
    """What a file holds of the utterances."""
    if file is None:
        return Entries(np.zeros(len(utterances), dtype=np.int64), 0)
    entries, problems = file.entries(utterances, complete)
    raise_first(problems)
    return entries


def _read_frames(file: FeatureFile | None, entries: Entries, utterances: Sequence[str]) -> RaggedFrames:
    """All frames of one modality, checked to be finite."""
    offsets = np.concatenate([[0], entries.lengths.cumsum()])
    values = torch.empty(int(offsets[-1]), entries.width)
    if file is None or not len(values):
        return RaggedFrames(values, torch.from_numpy(offsets))
    flat, bounds = values.numpy(), offsets.tolist()
    damaged = [
        utterance
        for row, utterance in enumerate(utterances)
        if bounds[row] < bounds[row + 1] and not file.read_into(utterance, flat[bounds[row] : bounds[row + 1]])
    ]
    raise_first(unreadable(file.path, damaged))
    # The extremes of the whole tensor tell at once, without another tensor of its size, whether any is NaN or infinite.
    if not bool(torch.stack(torch.aminmax(values)).isfinite().all()):
        frames = values.isfinite().all(dim=1).logical_not().nonzero().ravel().numpy()
        rows = np.unique(np.searchsorted(offsets, frames, side="right") - 1)
        raise_first(not_finite(file.path, [utterances[row] for row in rows.tolist()]))
    return RaggedFrames(values, torch.from_numpy(offsets))


def train_statistics(frames: RaggedFrames, rows: IntArray | Tensor) -> Statistics:
    """Mean and standard deviation over all frames of some utterances.

    Args:
        frames: one modality.
        rows: int [n], the positions of a fold's train utterances in the corpus.
    """
    values, offsets = frames.values.numpy(), frames.offsets.tolist()
    total = Moments.none(frames.dim)
    for row in np.asarray(rows).tolist():
        if offsets[row + 1] > offsets[row]:
            total = total.with_more(Moments.of(values[offsets[row] : offsets[row + 1]]))
    return total.statistics()


def fingerprint(corpus: Corpus, targets: Mapping[str, Targets] | None) -> str:
    """A short hexadecimal name of the data themselves, to recognise them by.

    It changes with any id, shape, frame value, label or split, and not with the root folder.

    Args:
        corpus: the features.
        targets: what :func:`read_targets` gave; None for data without labels.
    """
    described = {
        "utterances": corpus.utterances,
        "shapes": [[frames.dim, corpus.lengths[:, m].tolist()] for m, frames in enumerate(corpus.frames)],
        "targets": {split: [target.utterances, target.labels.tolist()] for split, target in (targets or {}).items()},
        # A cyclic redundancy check sees every change of a single value, and is quick.
        "values": [zlib.crc32(frames.values.numpy().data) for frames in corpus.frames],
    }
    return hashlib.blake2b(json.dumps(described, sort_keys=True).encode(), digest_size=8).hexdigest()
