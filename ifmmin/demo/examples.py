"""Utterances of the built-in corpora, for a page that works at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from datamodules.conditions import MODALITIES
from datamodules.linear_gaussian.generator import CLASS_NAMES, LinearGaussianCorpus
from datamodules.linear_gaussian.sentiment import SentimentGenerator
from datamodules.privileged import privileged_corpus
from ifmmin.inference import Features

NUMBER = 8
"""Utterances that are offered."""

_STREAM = 4  # of random numbers: no corpus was drawn from it
_DECIMALS = 4  # of features as they are written


def examples(trained_on: Mapping[str, Any], feature_dims: Sequence[int]) -> dict[str, Features]:
    """Draw utterances from the generator of a model's built-in corpus: none was in training.

    Args:
        trained_on: the checkpoint's record of its training data.
        feature_dims: frame widths of audio, visual, text that the model reads.

    Returns:
        frames by a name, a number and the true answer; empty for any other corpus, or for one of other features.
    """
    generator = _generator(trained_on)
    if generator is None or [view.width for view in generator.views] != list(feature_dims):
        return {}
    labels, sequences = generator.draw(NUMBER, np.random.default_rng([generator.seed, _STREAM]))
    found: dict[str, Features] = {}
    for place, label in enumerate(labels):
        truth = f"{label:+.2f}" if labels.ndim == 1 else CLASS_NAMES[int(label.argmax())]
        found[f"{place + 1}: {truth}"] = {
            name: part.values[part.offsets[place] : part.offsets[place + 1]].round(_DECIMALS).astype(np.float32)
            for name, part in zip(MODALITIES, sequences, strict=True)
        }
    return found


def _generator(trained_on: Mapping[str, Any]) -> LinearGaussianCorpus | SentimentGenerator | None:
    name = trained_on.get("name")
    if name == "Synthetic":
        return LinearGaussianCorpus()
    if name == "SyntheticSentiment":
        return SentimentGenerator()
    return privileged_corpus(int(trained_on["fold"])) if name == "Privileged" else None
