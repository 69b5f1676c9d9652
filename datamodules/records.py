"""What a checkpoint records of its training data, and what another corpus takes over from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from datamodules.conditions import MODALITIES
from datamodules.extraction.provenance import difference, read_provenance
from datamodules.storage.corpus import Corpus
from datamodules.storage.frames import RaggedFrames
from datamodules.storage.layouts import Layout
from datamodules.storage.statistics import Statistics
from datamodules.text import printable


def recorded_statistics(statistics: Sequence[Statistics | None]) -> dict[str, Any]:
    """Statistics of audio, visual and text as a record has them: by modality, of those that have some."""
    return {
        modality: {"mean": values.mean, "std": values.std}
        for modality, values in zip(MODALITIES, statistics, strict=True)
        if values is not None
    }


def statistics_of(record: Mapping[str, Any]) -> tuple[Statistics | None, ...]:
    """Statistics of audio, visual and text that a record has."""
    stored = record["statistics"]
    return tuple(
        Statistics(stored[name]["mean"], stored[name]["std"]) if name in stored else None for name in MODALITIES
    )


def with_widths(corpus: Corpus, widths: Sequence[int]) -> Corpus:
    """``corpus``, with no frames of the trained width where a modality has no file: models expect that width."""
    audio, visual, text = (
        frames if frames.dim else RaggedFrames(torch.empty(0, width), frames.offsets)
        for frames, width in zip(corpus.frames, widths, strict=True)
    )
    return replace(corpus, frames=(audio, visual, text))


def read_extraction(root: Path, layout: Layout) -> dict[str, dict[str, Any]]:
    """How the features of a corpus were made, by modality, as far as their files say so."""
    said = {name: read_provenance(layout.feature_path(root, place)) for place, name in enumerate(MODALITIES)}
    return {name: value for name, value in said.items() if value is not None}


def other_recipes(
    root: Path, layout: Layout, trained: Mapping[str, Any], ours: Mapping[str, Any], widths: Sequence[int]
) -> Iterator[str]:
    """Say which features were made otherwise than those that a model was trained on.

    Args:
        root: of the corpus.
        layout: its.
        trained: how the model's features were made, by modality.
        ours: how the corpus's were, see :func:`read_extraction`.
        widths: of its frames, 0 without a file.
    """
    for place, name in enumerate(MODALITIES):
        recipes = difference(trained.get(name), ours.get(name)) if widths[place] else None
        if recipes is not None:
            yield (
                f"{printable(layout.feature_path(root, place))}: extracted by {printable(recipes[1], 400)}, but the "
                f"model was trained on {name} features by {printable(recipes[0], 400)}; extract with the same recipe, "
                "or scores mean little."
            )
