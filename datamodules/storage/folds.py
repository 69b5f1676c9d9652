"""A fold beside its features: what is wrong with its splits, and the labels of the utterances in use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from datamodules.errors import CorpusError
from datamodules.labels import LabelScheme
from datamodules.storage.layouts import Layout
from datamodules.storage.targets import Targets, identical_folds, shared_speakers
from datamodules.text import printable


def copied_fold(root: Path, layout: Layout, fold: int) -> str | None:
    """Say of which folds this one is a copy; None if of none."""
    same = identical_folds(root, layout, fold)
    if not same:
        return None
    return (
        f"{root}/target/{fold}: its files are a copy of fold {', '.join(map(str, same))}'s, so it is no fold of its "
        "own; do not average it with the other. It happens in the public pack: take another copy."
    )


def check_speakers(root: Path, layout: Layout, fold: int, targets: Mapping[str, Targets]) -> None:
    """Refuse a fold whose training speakers are also tested.

    Raises:
        CorpusError: naming them.
    """
    if shared := shared_speakers(targets, layout):
        names = printable(", ".join(sorted(shared)))
        raise CorpusError(
            f"{root}/target/{fold}: speaker {names} is in train and in test; "
            "the test is leaked. Fix the split, or give --data.allow_shared_speakers true."
        )


def with_features(
    root: Path, layout: Layout, fold: int, targets: Mapping[str, Targets], utterances: Sequence[str]
) -> dict[str, Targets]:
    """``targets`` of the utterances that were not left out.

    Raises:
        CorpusError: a split is empty then.
    """
    wanted = set(utterances)
    kept = {name: split.only(wanted) for name, split in targets.items()}
    for name, split in kept.items():
        if not split.utterances:
            what = "all modalities" if layout.incomplete == "drop" else "features"
            raise CorpusError(
                f"{layout.target_folder(root, fold)}: no utterance of {name} has {what}; "
                "extract what is missing, or split otherwise."
            )
    return kept


def positions_of(split: Targets, position: Mapping[str, int]) -> npt.NDArray[np.int64]:
    """int64 [n]: the positions of a split's utterances."""
    return np.array([position[name] for name in split.utterances], dtype=np.int64)


def labels_of(
    targets: Mapping[str, Targets], position: Mapping[str, int], scheme: LabelScheme
) -> tuple[Tensor, Tensor | None]:
    """Labels of all utterances in use.

    Args:
        targets: by split.
        position: of each of the N utterances.
        scheme: of the labels.

    Returns:
        labels [N], and probabilities float32 [N, C] if a split has soft labels.
    """
    labels = torch.full((len(position),), scheme.unknown, dtype=scheme.dtype)
    places = {name: positions_of(split, position) for name, split in targets.items()}
    for name, split in targets.items():
        labels[places[name]] = torch.from_numpy(split.labels)
    if all(split.soft is None for split in targets.values()):
        return labels, None
    soft = torch.nn.functional.one_hot(labels.clamp(min=0), len(scheme.names)).float()
    for name, split in targets.items():
        if split.soft is not None:
            soft[places[name]] = torch.from_numpy(split.soft)
    return labels, soft
