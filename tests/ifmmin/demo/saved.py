"""Models of the built-in corpora with random weights, for tests of the page."""

from __future__ import annotations

from typing import Any

import torch

from datamodules.conditions import CONDITIONS
from datamodules.linear_gaussian.generator import CLASS_NAMES
from datamodules.linear_gaussian.views import VIEWS
from ifmmin import Predictor
from tests.ifmmin.models import MODELS

DIMS = [view.width for view in VIEWS]


def predictor(corpus: str = "Synthetic", calibrated: bool = True, **options: Any) -> Predictor:
    """Of MeanFusion, as if trained on a built-in corpus; with a temperature of 2 under each condition."""
    torch.manual_seed(1)
    task: dict[str, Any] = {"class_names": list(CLASS_NAMES)}
    if corpus == "SyntheticSentiment":
        task = {"task": {"name": "regression", "low": -3.0, "high": 3.0}}
    model = MODELS["MeanFusion"](feature_dims=DIMS, **(task | options))
    if calibrated and model.class_names:
        model.temperatures = dict.fromkeys(CONDITIONS, 2.0)
    record = {
        "name": corpus,
        "fold": 1,
        "seed": 0,
        "feature_names": ["x", "y", "z"],
        "feature_dims": DIMS,
        "class_names": list(model.class_names),
        "task": dict(task.get("task", {"name": "classification"})),
        "normalization": ["none"] * 3,
        "statistics": {},
        "incomplete": "refuse",
        "fingerprint": "0",
        "synthetic": True,
        "invented": False,
    }
    return Predictor(model, record, "small.ckpt")
