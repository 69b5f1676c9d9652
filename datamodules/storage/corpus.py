"""Reading one feature corpus: HDF5 features, and label files per fold.

A root folder has ``A/<name>.h5``, ``V/<name>.h5`` and ``L/<name>.h5``, each with one dataset [frames, width] per
utterance id, and ``target/<fold>/{trn,val,tst}_label.npy`` and ``_int2name.npy``.
"""

from __future__ import annotations

import hashlib
import json
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datamodules.conditions import MODALITIES
from datamodules.storage.features import Entries, FeatureFile, open_features
from datamodules.storage.frames import Frames, RaggedFrames, StoredFrames
from datamodules.storage.hdf5 import remedy_for_missing
from datamodules.storage.ids import key_of
from datamodules.storage.layouts import Layout
from datamodules.storage.problems import Problems, Strict, root_exists
from datamodules.storage.statistics import Moments, Statistics
from datamodules.storage.targets import IntArray, Targets


@dataclass(frozen=True, eq=False)
class Corpus:
    """All features of N utterances.

    Attributes:
        root: the folder they were read from.
        utterances: N ids.
        frames: audio, visual and text, all in memory or all on disk.
        lengths: int64 [N, 3], the number of frames; 0 if the modality is absent.
        notes: what is odd about the frames, though they can be used.
    """

    root: Path
    utterances: list[str]
    frames: tuple[Frames, Frames, Frames]
    lengths: Tensor
    notes: tuple[str, ...] = ()


def read_corpus(
    root: Path, layout: Layout, utterances: Sequence[str] | None, *, require_all: bool, memory_budget: float = math.inf
) -> Corpus:
    """Read the features of some utterances, or of all, and check every frame.

    ``layout.incomplete`` says what becomes of those ``utterances`` that lack a modality: ``drop`` leaves them out,
    ``keep`` leaves out only those that lack all three.

    Features of any float or integer type are read as float32, and kept as float16 if all of a file are. They
    are kept in memory if all three modalities together fit ``memory_budget``; otherwise they stay on disk.

    Args:
        root: the folder of A, V and L.
        layout: which files to read.
        utterances: the ids to read, in this order; None for every id in any of the files, sorted.
        require_all: True if every utterance must have all three modalities, unless ``layout.incomplete`` drops or
            keeps those that do not. False if a modality may be absent: no file, no entry for an utterance, or an
            entry without frames.
        memory_budget: bytes that the frames may take in memory.

    Raises:
        CorpusError: the root or a file is missing or damaged, an utterance is missing or has no frames,
            or its frames are not of the file's width, not readable or not finite; none of the utterances is in a file.
    """
    root, problems, notes = Path(root), Strict(), Problems()
    chosen = utterances is not None and layout.incomplete != "refuse"
    root_exists(root, problems)
    paths = [layout.feature_path(root, modality) for modality in range(len(MODALITIES))]
    if utterances is None:
        utterances = stored_utterances(root, layout, require_all)
    if not utterances:
        _report_no_features(root, paths)
    # One file after the other: HDF5 takes up to 100 MB for an open one.
    names = list(utterances)
    entries = [_entries(path, names, require_all and not chosen, layout) for path in paths]
    if chosen:
        names, entries = _leave_out(root, layout, names, entries, notes)
    lengths = np.stack([entry.lengths for entry in entries], axis=1)
    nothing = [names[index] for index in np.flatnonzero(~lengths.any(axis=1)).tolist()]
    problems.add_if_any(root, nothing, "has no features in any modality", "extract at least one, or leave it out")
    # Frames are read last: whatever shapes give away is reported before the long part.
    fits = sum(entry.nbytes for entry in entries) <= memory_budget
    audio, visual, text = (
        _read_frames(path, entry, names, fits, layout, notes) for path, entry in zip(paths, entries, strict=True)
    )
    said = tuple(map(str, notes.found))
    return Corpus(root, names, (audio, visual, text), torch.from_numpy(lengths), said)


def _leave_out(
    root: Path, layout: Layout, utterances: Sequence[str], entries: Sequence[Entries], notes: Problems
) -> tuple[list[str], list[Entries]]:
    """Those utterances that ``layout.incomplete`` leaves, and their entries; ``notes`` get the numbers."""
    there = np.stack([entry.lengths for entry in entries], axis=1) > 0
    kept = there.all(axis=1) if layout.incomplete == "drop" else there.any(axis=1)
    if lacking := int((~there.all(axis=1)).sum()):
        each = ", ".join(f"{count} {name}" for count, name in zip((~there).sum(axis=0), MODALITIES, strict=True))
        what = f"{lacking} of {len(there)} utterances lack a modality ({each})"
        left = len(there) - int(kept.sum())
        without = f", {left} without any left out" if left else ""
        notes.add(root, what, "they are left out" if layout.incomplete == "drop" else f"they are kept{without}")
    rows = np.flatnonzero(kept)
    return [utterances[row] for row in rows.tolist()], [entry.of(rows) for entry in entries]


def feature_dims(root: Path, layout: Layout) -> list[int]:
    """Find the width of the audio, visual and text frames without reading any; 0 without a file.

    Raises:
        CorpusError: the root is missing, a file is damaged, or none of the three is there.
    """
    root = Path(root)
    root_exists(root, Strict())
    paths = [layout.feature_path(root, modality) for modality in range(len(MODALITIES))]
    if not any(path.exists() for path in paths):
        _report_no_features(root, paths)
    return [_width(path, layout) for path in paths]


def _report_no_features(root: Path, paths: Sequence[Path]) -> None:
    Strict().add(root, "no features of any utterance", remedy_for_missing(paths[0]))


def _open(path: Path, require: bool, layout: Layout) -> FeatureFile | None:
    """Open a feature file; None if it does not exist and is not required."""
    if not require and not path.exists():
        return None
    return open_features(path, Strict(), layout.match_ids, layout.zero_frames_absent, layout.ids_have_folders)


def stored_utterances(root: Path, layout: Layout, require_all: bool = False) -> list[str]:
    """List all ids in the feature files, each once, sorted.

    Args:
        root: the folder of A, V and L.
        layout: of its files.
        require_all: whether a file that does not exist is an error.

    Raises:
        CorpusError: a file is damaged.
    """
    paths = [layout.feature_path(root, modality) for modality in range(len(MODALITIES))]
    named = (name for path in paths for name in _names(path, require_all, layout))
    return sorted({key_of(name, layout.match_ids): name for name in named}.values())


def _names(path: Path, require: bool, layout: Layout) -> list[str]:
    """List all ids in a file."""
    file = _open(path, require, layout)
    if file is None:
        return []
    with file:
        return file.names


def _width(path: Path, layout: Layout) -> int:
    """Find the width of the frames in a file, 0 without one."""
    file = _open(path, False, layout)
    if file is None:
        return 0
    with file:
        return file.width()


def _entries(path: Path, utterances: Sequence[str], require_all: bool, layout: Layout) -> Entries:
    """Look up the utterances in a file."""
    file = _open(path, require_all, layout)
    if file is None:
        return Entries.none(len(utterances))
    with file:
        if layout.incomplete != "refuse":
            file.refuse_strangers(utterances)
        entries = file.entries(utterances, require_all, Strict())
        return file.without_zero_frames(utterances, entries) if layout.zero_frames_absent else entries


def _read_frames(
    path: Path, entries: Entries, utterances: Sequence[str], in_memory: bool, layout: Layout, notes: Problems
) -> Frames:
    """Read all frames of one modality and check that they are finite; ``notes`` collects what is odd."""
    if not entries.lengths.any():
        # There may be no file.
        return RaggedFrames(torch.empty(0, entries.width), torch.zeros(len(utterances) + 1, dtype=torch.int64))
    stored = StoredFrames(path, utterances, entries, layout.match_ids, layout.ids_have_folders)
    if in_memory:
        return stored.in_memory(notes)
    stored.check(notes)
    return stored


def train_statistics(frames: Frames, indices: IntArray | Tensor) -> Statistics:
    """Statistics of all frames of some utterances, as of :func:`train_moments`."""
    return train_moments(frames, indices).statistics()


def train_moments(frames: Frames, indices: IntArray | Tensor) -> Moments:
    """Compute mean and squared deviations over all frames of some utterances.

    Args:
        frames: one modality.
        indices: int [n], the positions of a fold's train utterances in the corpus.
    """
    total = Moments.none(frames.dim)
    for index in np.asarray(indices).tolist():
        values = frames.utterance(index).numpy()
        if len(values):
            total = total.with_more(Moments.of(values))
    return total


def fingerprint(
    corpus: Corpus,
    targets: Mapping[str, Targets] | None,
    meaning: Sequence[Any] | None = None,
    turns: bytes | None = None,
) -> str:
    """Hash the data themselves to a short hexadecimal name.

    It changes with any id, shape, frame value, label or split, with the file of turns, and not with the root folder.

    Args:
        corpus: the features.
        targets: from :func:`~datamodules.storage.targets.read_targets`; None for data without labels.
        meaning: what else decides a result, as plain values, where no code says it, such as the names of classes.
        turns: content of the file that says the order of turns, if there is one.
    """
    described: dict[str, Any] = {
        "utterances": corpus.utterances,
        "shapes": [[frames.dim, corpus.lengths[:, m].tolist()] for m, frames in enumerate(corpus.frames)],
        "targets": {split: [target.utterances, target.labels.tolist()] for split, target in (targets or {}).items()},
        "values": [_checksum(frames) for frames in corpus.frames],
    }
    if soft := {split: target.soft.tolist() for split, target in (targets or {}).items() if target.soft is not None}:
        described["soft"] = soft
    if meaning is not None:
        described["meaning"] = list(meaning)
    if turns is not None:
        described["turns"] = hashlib.blake2b(turns, digest_size=8).hexdigest()
    return hashlib.blake2b(json.dumps(described, sort_keys=True).encode(), digest_size=8).hexdigest()


def _checksum(frames: Frames) -> int:
    """CRC-32 of all values: quick, and it sees every change of a single one."""
    total = 0
    for index in range(len(frames.offsets) - 1):
        total = zlib.crc32(frames.utterance(index).numpy().data, total)
    return total
