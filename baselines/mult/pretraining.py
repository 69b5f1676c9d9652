"""MulT on complete data, from which models that adapt it to missing modalities start."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from baselines.mult.model import MulT, MulTNetworks
from datamodules.batches.batch import Batch
from ifmmin.cards import ModelCard
from ifmmin.optimization import Recipe
from ifmmin.pretraining.stage1 import Stage1Module


class MulTPretraining(MulTNetworks, Stage1Module):
    """Stage 1 of MPLMM: MulT trained on complete utterances, and on no mask.

    Guo, Jin, Zhao: "Multimodal prompt learning with missing modalities for sentiment analysis and emotion recognition",
    ACL 2024, section 3; there on CMU-MOSEI, here on the training utterances of the same fold.

    L = L_cls, the task's loss. Settings as :class:`~baselines.mult.MulT`.

    Our choices: those of :class:`~ifmmin.pretraining.stage1.Stage1Module`; sources and targets that a corpus with gaps
    lacks are as absent ones of :class:`~baselines.mult.MulT`.

    Args:
        **kwargs: of :class:`~baselines.mult.model.MulTNetworks`.
    """

    card = ModelCard(
        "MPLMM, stage 1",
        "MulT on complete data, from which MPLMM starts",
        "Guo et al., ACL",
        2024,
        "https://arxiv.org/abs/2407.05374",
        "https://github.com/zrguo/MPLMM",
        "pretraining",
    )
    recipe: ClassVar[Recipe] = MulT.recipe
    architecture: ClassVar[tuple[str, ...]] = (
        "steps",
        "dim",
        "heads",
        "layers",
        "memory_layers",
        "attention_dropout",
        "relu_dropout",
        "residual_dropout",
        "embedding_dropout",
        "output_dropout",
        "future_mask",
    )

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """L_cls of whole utterances."""
        return {"cls": self.task.loss(self(batch.unmasked()), batch.targets)}
