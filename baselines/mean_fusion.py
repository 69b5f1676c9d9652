"""Mean fusion: the smallest baseline, and the one to copy."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from torch import Tensor, nn

from datamodules.batches.batch import Batch
from datamodules.batches.visible import visible
from datamodules.needs import DataNeeds
from datamodules.ranges import WIDTH
from ifmmin.base import MissingModalityModule
from ifmmin.cards import ModelCard


class MeanFusion(MissingModalityModule):
    """Project the mean frame of each modality and add up what is present.

    Args:
        width: of the projections.
        **kwargs: of :class:`~ifmmin.base.MissingModalityModule`.
    """

    card = ModelCard("Mean fusion", "adds up projected mean frames: the template to copy")
    needs = DataNeeds(hidden_frames=False)

    def __init__(self, *, width: Annotated[int, WIDTH] = 64, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.projections = nn.ModuleList(nn.Linear(dim, width) for dim in self.feature_dims)
        self.output = nn.Linear(width, self.task.outputs)

    def forward(self, batch: Batch) -> Tensor:
        """Outputs [B, O]."""
        fused = []
        for modality, projection in enumerate(self.projections):
            seen = visible(batch, modality)
            mean = seen.frames.sum(dim=1) / seen.lengths[:, None]  # padding is zero
            fused.append(seen.spread(projection(mean)))
        outputs: Tensor = self.output(torch.stack(fused).sum(dim=0).relu())
        return outputs

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the task's loss under the training mask."""
        return {"cls": self.task.loss(self(batch), batch.target)}
