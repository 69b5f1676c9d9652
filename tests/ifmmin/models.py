"""Models for tests: every model that is found, ready for use, and one small enough to check by hand."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from datamodules.batches.batch import Batch
from datamodules.batches.visible import visible
from datamodules.ranges import declared_options
from ifmmin.base import MissingModalityModule
from ifmmin.checkpoints.parts import split_parts
from ifmmin.discovery import discover_models
from ifmmin.pretraining.stage2 import Stage2Module
from tests.batches import CLASSES, DIMS

MODELS = discover_models()
"""Nothing is listed here: a model that the command line knows is tested."""


def build(name: str, seed: int = 0, **options: Any) -> MissingModalityModule:
    """A model with the paper's sizes for tiny features, stage 1 included, in float64 and eval mode."""
    torch.manual_seed(seed)
    model = MODELS[name](**{"feature_dims": list(DIMS), "class_names": CLASSES, **options})
    if isinstance(model, Stage2Module):
        model.load_stage1(split_parts(model.stage1_module().state_dict()))
    return model.double().eval()


NARROW: dict[str, Any] = {
    "around": "MeanFusion",
    "dim": 40,  # a multiple of every number of heads
    **dict.fromkeys(("embedding_dim", "hidden_dim", "flow_hidden_dim", "feedforward_dim", "width"), 16),
    **dict.fromkeys(("bottleneck_dim", "code_dim", "head_dim", "time_dim"), 16),
    **dict.fromkeys(("refinement_width", "text_channels", "text_states"), 16),
    **dict.fromkeys(("couplings", "layers", "ode_steps", "refinement_blocks"), 2),
    "block_dims": [16, 8],
    "bottleneck_dims": [16, 8],
    "channels": [8, 8, 8],
    "hidden_dims": [16],
    "steps": 4,
    "widths": [8, 8, 8],
}
"""Sizes that make a model cheap; a model has some of these options."""


def narrow(name: str) -> dict[str, Any]:
    """Options that make a model cheap."""
    known = declared_options(MODELS[name])
    return {option: value for option, value in NARROW.items() if option in known}


def build_narrow(name: str, seed: int = 0, **options: Any) -> MissingModalityModule:
    """:func:`build` with cheap sizes."""
    return build(name, seed, **narrow(name) | options)


class Small(MissingModalityModule):
    """Logits are a sum over the available modalities of a linear function of the mean frame."""

    def __init__(self, *, poison: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.readers = nn.ModuleDict(
            {name: nn.Linear(dim, self.task.outputs) for name, dim in zip("avt", self.feature_dims, strict=True)}
        )
        self.offset = nn.Linear(1, self.task.outputs, bias=False)
        self.poison = poison

    def forward(self, batch: Batch) -> Tensor:
        dtype = self.offset.weight.dtype
        logits: Tensor = self.offset(torch.ones(len(batch), 1, dtype=dtype))
        for modality, reader in enumerate(self.readers.values()):
            seen = visible(batch, modality)
            mean = seen.frames.to(dtype).sum(dim=1) / seen.lengths[:, None]
            logits = logits.index_add(0, seen.rows, reader(mean)[seen.slots])
        return logits

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        return {"cls": self.task.loss(self(batch), batch.label) + self.poison}
