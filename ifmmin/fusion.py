"""Fusion without imagination: three encoders and one classifier."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from datamodules.batches.batch import Batch
from ifmmin.base import MissingModalityModule
from ifmmin.nn.encoders import ModalityEncoders, Pooling
from ifmmin.nn.heads import Classifier


class Fusion(MissingModalityModule):
    """Encoders and a classifier that reads h = [h_a; h_v; h_t]; subclasses say how it is trained.

    Args:
        feature_dims: frame widths of audio, visual, text.
        class_names: in label order.
        embedding_dim: E, the width of each utterance embedding h_m.
        pooling: of the LSTM states over time.
        text_channels: output channels of each TextCNN convolution.
        text_dropout: of the TextCNN.
        absent_frames: how many zero frames an absent audio, visual, text stands for.
        hidden_dims: of the classifier.
        dropout: of the classifier.
        **kwargs: of :class:`~ifmmin.base.MissingModalityModule`.
    """

    def __init__(
        self,
        feature_dims: list[int],
        class_names: list[str],
        embedding_dim: int = 128,
        pooling: Pooling = "max",
        text_channels: int = 128,
        text_dropout: float = 0.5,
        absent_frames: list[int] = [40, 50, 22],  # noqa: B006 - a plain default that --help can show
        hidden_dims: list[int] = [128, 128],  # noqa: B006
        dropout: float = 0.3,
        **kwargs: Any,
    ) -> None:
        super().__init__(feature_dims, class_names, **kwargs)
        self.encoders = ModalityEncoders.of_dims(
            feature_dims, embedding_dim, pooling, text_channels, text_dropout, absent_frames
        )
        self.classifier = Classifier(self.fused_dim(embedding_dim), self.num_classes, hidden_dims, dropout)

    @staticmethod
    def fused_dim(embedding_dim: int) -> int:
        """Width of what the classifier reads: that of h."""
        return 3 * embedding_dim

    def forward(self, batch: Batch) -> Tensor:
        """Logits [B, C] = classifier(h)."""
        logits: Tensor = self.classifier(self.encoders(batch).flatten(1))
        return logits
