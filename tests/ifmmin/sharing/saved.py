"""Models to save, with what a run leaves beside them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from datamodules.conditions import CONDITIONS, MODALITIES
from ifmmin.base import MissingModalityModule
from ifmmin.results.results import Results
from tests.batches import CLASSES, DIMS
from tests.ifmmin.models import MODELS, narrow

QUICK = ("EmotionShift", "IFMMIN", "LinearImputation", "MeanFusion", "RedCore")
"""A wrapper, a model with a stage 1, one with buffers of float64, the smallest, one with scalars of integers."""


def fresh(name: str, **options: Any) -> MissingModalityModule:
    """A model with random weights and random running values, as training leaves them, in its own precision."""
    torch.manual_seed(3)
    model = MODELS[name](**{"feature_dims": list(DIMS), "class_names": CLASSES, **narrow(name), **options})
    with torch.no_grad():
        for value in model.state_dict().values():
            if value.is_floating_point():
                value.copy_(torch.rand_like(value) + 0.1)
    return model.eval()


def record(**changes: Any) -> dict[str, Any]:
    """A record of training data, as a datamodule makes it."""
    rng = np.random.default_rng(5)
    statistics = {
        name: {
            "mean": torch.from_numpy(rng.standard_normal(dim).astype(np.float32)),
            "std": torch.from_numpy(rng.uniform(0.5, 2, dim).astype(np.float32)),
        }
        for name, dim in zip(MODALITIES, DIMS, strict=True)
    }
    found = {
        "name": "IEMOCAP",
        "fold": 3,
        "seed": 7,
        "feature_names": ["comparE", "denseface", "bert_large"],
        "feature_dims": list(DIMS),
        "class_names": list(CLASSES),
        "task": {"name": "classification"},
        "normalization": ["train", "train", "train"],
        "statistics": statistics,
        "incomplete": "refuse",
        "fingerprint": "0123456789abcdef",
    }
    return found | changes


def results(of: MissingModalityModule, **changes: Any) -> Results:
    """Scores of a run of it: 5 of 8 utterances right under every condition."""
    one = torch.tensor([[2, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]])
    values: dict[str, Any] = {
        "corpus": "IEMOCAP",
        "is_synthetic": False,
        "model": type(of).__name__,
        "fold": 3,
        "seed": 7,
        "split": "test",
        "task": of.task,
        "counts": one.expand(len(CONDITIONS), 4, 4).clone(),
        "trained_on": {"corpus": "IEMOCAP", "fold": 3, "seed": 7},
        "record": {"checkpoint": "/home/somebody/runs/epoch001.ckpt", "platform": "secret-host", "commit": "abc"},
        "invented": False,
    }
    return Results(**(values | changes))
