"""Label files of a corpus of recordings: each fold's utterances, as far as their features are there."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np

from datamodules.extraction.recordings import Index
from datamodules.storage.problems import Problem
from datamodules.storage.targets import SPLITS, id_path, label_path
from datamodules.storage.writing import write_targets


def write_folds(out: Path, index: Index, usable: Collection[str]) -> tuple[Problem, ...]:
    """Write ``out/target/<fold>`` of every fold; folders of folds that an earlier run had more are removed.

    Args:
        out: the feature corpus.
        index: whose folds and labels are written, as one-hot rows, float64 [N, C].
        usable: utterances whose features serve: all three modalities, or at least one.

    Returns:
        one problem for each split that is left without an utterance.

    Raises:
        OSError: the folder cannot be written or the disk is full.
    """
    usable = frozenset(usable)
    numbers = {recording.utterance: recording.label for recording in index.recordings if recording.label is not None}
    problems = []
    for fold, splits in index.folds.items():
        folder = out / "target" / str(fold)
        kept = {split: [name for name in splits.get(split, ()) if name in usable] for split in SPLITS}
        one_hot = np.eye(len(index.class_names))
        write_targets(
            folder,
            {
                split: (names, one_hot[np.array([index.class_names.index(numbers[name]) for name in names], dtype=int)])
                for split, names in kept.items()
            },
        )
        for split, names in kept.items():
            if not names:
                problems.append(_empty(label_path(folder, split), split, len(splits.get(split, ()))))
    _remove_other_folds(out / "target", index)
    return tuple(problems)


def _empty(path: Path, split: str, planned: int) -> Problem:
    if planned:
        what = f"no {split} utterance is left: all {planned} lack a modality"
        return Problem(path, what, "see absent.csv; or extract again with --incomplete keep")
    return Problem(path, f"this fold has no {split} utterance", "bring the missing recordings, or leave this fold out")


def _remove_other_folds(folder: Path, index: Index) -> None:
    """Remove the label files of folds that the corpus does not have."""
    for other in folder.iterdir() if folder.is_dir() else ():
        if other.name.isdecimal() and int(other.name) not in index.folds:
            for path in (name(other, split) for split in SPLITS for name in (id_path, label_path)):
                path.unlink(missing_ok=True)
            if not any(other.iterdir()):
                other.rmdir()
