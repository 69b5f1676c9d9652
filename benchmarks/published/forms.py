"""Which plain form a model has, and its weights there.

A plain form computes the same function as the model, from the same weights, where lengths are fixed.
Elsewhere they differ as the published code does: padding is read, and an absent modality is as many
zero frames as its batch is long.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from baselines import CMARR, MCTN, MMIN
from benchmarks.published.cm_arr import PlainCMARR
from benchmarks.published.mctn import PlainMCTN
from benchmarks.published.models import HIDDEN_DIMS, PlainIFMMIN, PlainInvariantPretraining, PlainMMIN, PlainModel
from ifmmin.base import MissingModalityModule
from ifmmin.model import IFMMIN
from ifmmin.pretraining.stage1 import InvariantPretraining

PLAIN_FORMS: Mapping[type[MissingModalityModule], Callable[[Sequence[int], int], PlainModel]] = {
    IFMMIN: PlainIFMMIN,
    InvariantPretraining: PlainInvariantPretraining,
    MMIN: PlainMMIN,
    CMARR: PlainCMARR,
    MCTN: PlainMCTN,
}

_RENAMED = {
    r"teacher\.encoders\.": "teacher.",
    r"invariance\.layers\.0": "invariance.0",
    r"invariance\.layers\.3": "invariance.2",
    r"classifier\.hidden\.": "classifier.",
    r"classifier\.output\.": f"classifier.{3 * len(HIDDEN_DIMS)}.",
}


def plain_tensors(ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Parameters, or gradients, of a model of this library by the names and in the shapes of its plain form."""
    tensors = {}
    for name, tensor in ours.items():
        for pattern, replacement in _RENAMED.items():
            name = re.sub(pattern, replacement, name)
        # Conv1d [out, dim, width] is Conv2d [out, 1, width, dim] over a picture of one channel.
        picture = "convolutions" in name and name.endswith("weight")
        tensors[name] = tensor.transpose(1, 2).unsqueeze(1) if picture else tensor
    return tensors


def plain_model(module: MissingModalityModule) -> PlainModel:
    """The plain form of a model of this library, with a copy of its weights and in its precision."""
    model = PLAIN_FORMS[type(module)](module.feature_dims, module.task.outputs)
    state: dict[str, Any] = plain_tensors(module.state_dict())
    model.to(next(module.parameters()).dtype).load_state_dict(state)
    return model
