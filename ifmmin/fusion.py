"""Models that embed each modality: the encoders of MMIN and IF-MMIN, and fusion without imagination."""

from __future__ import annotations

from typing import Annotated, Any

from torch import Tensor

from datamodules.batches.batch import Batch
from datamodules.conditions import MODALITIES
from datamodules.errors import InputError
from datamodules.ranges import BELOW_ONE, WIDTH
from ifmmin.base import MissingModalityModule
from ifmmin.nn.encoders import ModalityEncoders, Pooling
from ifmmin.nn.heads import Classifier


class EmbeddingModule(MissingModalityModule):
    """Base of the models that read h = [h_a; h_v; h_t], an embedding per modality.

    Args:
        embedding_dim: E, the width of each utterance embedding h_m.
        pooling: of the LSTM states over time.
        text_channels: output channels of each TextCNN convolution.
        text_dropout: of the TextCNN.
        absent_frames: number of zero frames that stand in for absent audio, visual, text.
        **kwargs: of :class:`~ifmmin.base.MissingModalityModule`.
    """

    def __init__(
        self,
        *,
        embedding_dim: Annotated[int, WIDTH] = 128,
        pooling: Pooling = "max",
        text_channels: Annotated[int, WIDTH] = 128,
        text_dropout: Annotated[float, BELOW_ONE] = 0.5,
        absent_frames: Annotated[list[int], WIDTH] = [40, 50, 22],
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if len(absent_frames) != len(MODALITIES):
            raise InputError(f"absent_frames {list(absent_frames)}: give a number for {', '.join(MODALITIES)} each.")
        self._encoder_settings = (embedding_dim, pooling, text_channels, text_dropout, absent_frames)
        self.encoders = self.new_encoders()

    def new_encoders(self) -> ModalityEncoders:
        """Make encoders of this model's sizes, with weights of their own."""
        return ModalityEncoders.of_dims(self.feature_dims, *self._encoder_settings)

    def modality_embeddings(self, batch: Batch) -> Tensor:
        """Compute h [B, 3, E]; of an absent modality the embedding of zero frames."""
        h: Tensor = self.encoders(batch)
        return h


class Fusion(EmbeddingModule):
    """Encoders and a classifier that reads h; subclasses train it.

    Args:
        hidden_dims: of the classifier.
        dropout: of the classifier.
        **kwargs: of :class:`EmbeddingModule`.
    """

    def __init__(
        self,
        *,
        hidden_dims: Annotated[list[int], WIDTH] = [128, 128],
        dropout: Annotated[float, BELOW_ONE] = 0.3,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        width = self.fused_dim(self.encoders.embedding_dim)
        self.classifier = Classifier(width, self.task.outputs, hidden_dims, dropout)

    @staticmethod
    def fused_dim(embedding_dim: int) -> int:
        """Width of what the classifier reads: that of h."""
        return 3 * embedding_dim

    def forward(self, batch: Batch) -> Tensor:
        """Outputs [B, O] = classifier(h)."""
        outputs: Tensor = self.classifier(self.encoders(batch).flatten(1))
        return outputs
