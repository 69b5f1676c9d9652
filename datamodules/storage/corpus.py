"""Reading one feature corpus: HDF5 features, and label files per fold.

Under a root folder lie ``A/<name>.h5``, ``V/<name>.h5`` and ``L/<name>.h5``, each with one dataset [frames,
width] per utterance id, and ``target/<fold>/{trn,val,tst}_label.npy`` and ``_int2name.npy``.
"""

from __future__ import annotations

import hashlib
import json
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from datamodules.conditions import MODALITIES
from datamodules.memory import return_free_memory
from datamodules.storage.features import Entries, FeatureFile, open_features
from datamodules.storage.frames import Frames, RaggedFrames, StoredFrames
from datamodules.storage.layouts import Layout
from datamodules.storage.problems import Problem, about, raise_first, root_problems
from datamodules.storage.statistics import Moments, Statistics, shipped_statistics
from datamodules.storage.targets import IntArray, Targets

__all__ = [
    "Corpus",
    "Frames",
    "RaggedFrames",
    "Statistics",
    "feature_dims",
    "fingerprint",
    "read_corpus",
    "shipped_statistics",
    "train_statistics",
]


@dataclass(frozen=True, eq=False)
class Corpus:
    """All features of N utterances.

    Attributes:
        root: the folder they were read from.
        utterances: N ids.
        frames: audio, visual and text, all in memory or all on disk.
        lengths: int64 [N, 3], the number of frames; 0 where the modality is not there.
    """

    root: Path
    utterances: list[str]
    frames: tuple[Frames, Frames, Frames]
    lengths: Tensor


def read_corpus(
    root: Path, layout: Layout, utterances: Sequence[str] | None, *, complete: bool, memory_budget: float = math.inf
) -> Corpus:
    """Read the features of some utterances, or of all, and check every frame.

    Features of any float or integer type are read as float32, and kept as float16 where all of a file are. They
    are held in memory if all three modalities together fit ``memory_budget``; otherwise they stay on disk.

    Args:
        root: the folder that holds A, V and L.
        layout: which files to read.
        utterances: the ids to read, in this order; None for every id in any of the files, sorted.
        complete: True where every utterance must have all three modalities. False where a modality may
            be absent: no file, no entry for an utterance, or an entry without frames.
        memory_budget: bytes that the frames may take in memory.

    Raises:
        CorpusError: the root or a file is missing or damaged, an utterance is missing or has no frames,
            or its frames are not of the file's width, not readable or not finite.
    """
    root = Path(root)
    raise_first(root_problems(root))
    paths = [layout.feature_path(root, modality) for modality in range(len(MODALITIES))]
    if utterances is None:
        utterances = sorted({name for path in paths for name in _names(path, complete)})
    if not utterances:
        raise_first([_no_features(root)])
    # One file after the other: what HDF5 remembers of an open file takes up to 100 MB.
    entries = [_look_up(path, utterances, complete) for path in paths]
    return_free_memory()
    lengths = np.stack([entry.lengths for entry in entries], axis=1)
    nothing = [utterances[row] for row in np.flatnonzero(~lengths.any(axis=1)).tolist()]
    raise_first(about(root, nothing, "has no features in any modality", "extract at least one, or leave it out"))
    # Only here are frames read: whatever the shapes give away is known before the long part.
    fits = sum(entry.nbytes for entry in entries) <= memory_budget
    audio, visual, text = (
        _read_frames(path, entry, utterances, fits) for path, entry in zip(paths, entries, strict=True)
    )
    return Corpus(root, list(utterances), (audio, visual, text), torch.from_numpy(lengths))


def feature_dims(root: Path, layout: Layout) -> list[int]:
    """The width of the audio, visual and text frames, without reading any; 0 where there is no file.

    Raises:
        CorpusError: the root is missing, a file is damaged, or none of the three is there.
    """
    root = Path(root)
    raise_first(root_problems(root))
    paths = [layout.feature_path(root, modality) for modality in range(len(MODALITIES))]
    if not any(path.exists() for path in paths):
        raise_first([_no_features(root)])
    return [_width(path) for path in paths]


def _no_features(root: Path) -> Problem:
    return Problem(root, "no features of any utterance", "check the root folder and the feature names")


def _open(path: Path, complete: bool) -> FeatureFile | None:
    """Open a feature file; None where it does not exist and need not."""
    if not complete and not path.exists():
        return None
    file = open_features(path)
    if isinstance(file, Problem):
        raise_first([file])
        return None
    return file


def _names(path: Path, complete: bool) -> list[str]:
    """All ids in a file."""
    file = _open(path, complete)
    if file is None:
        return []
    with file:
        return file.names


def _width(path: Path) -> int:
    """The width of the frames in a file, 0 where there is none."""
    file = _open(path, complete=False)
    if file is None:
        return 0
    with file:
        return file.width()


def _look_up(path: Path, utterances: Sequence[str], complete: bool) -> Entries:
    """What a file holds of the utterances."""
    file = _open(path, complete)
    if file is None:
        return Entries.none(len(utterances))
    with file:
        entries, problems = file.entries(utterances, complete)
    raise_first(problems)
    return entries


def _read_frames(path: Path, entries: Entries, utterances: Sequence[str], in_memory: bool) -> Frames:
    """All frames of one modality, checked to be finite."""
    if not entries.lengths.any():
        # There may be no file.
        return RaggedFrames(torch.empty(0, entries.width), torch.zeros(len(utterances) + 1, dtype=torch.int64))
    stored = StoredFrames(path, utterances, entries)
    if in_memory:
        return stored.in_memory()
    stored.check()
    return stored


def train_statistics(frames: Frames, rows: IntArray | Tensor) -> Statistics:
    """Mean and standard deviation over all frames of some utterances.

    Args:
        frames: one modality.
        rows: int [n], the positions of a fold's train utterances in the corpus.
    """
    total = Moments.none(frames.dim)
    for row in np.asarray(rows).tolist():
        values = frames.utterance(row).numpy()
        if len(values):
            total = total.with_more(Moments.of(values))
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
        "values": [_checksum(frames) for frames in corpus.frames],
    }
    return hashlib.blake2b(json.dumps(described, sort_keys=True).encode(), digest_size=8).hexdigest()


def _checksum(frames: Frames) -> int:
    """A cyclic redundancy check of all values: it sees every change of a single one, and is quick."""
    total = 0
    for row in range(len(frames.offsets) - 1):
        total = zlib.crc32(frames.utterance(row).numpy().data, total)
    return total
