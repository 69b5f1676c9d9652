"""TFN and LMF: the products of all modalities, of some and of each alone, in full and of a low rank."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn

from datamodules.batches.batch import Batch
from datamodules.batches.visible import visible
from datamodules.conditions import MODALITIES
from datamodules.errors import InputError
from datamodules.needs import DataNeeds
from datamodules.ranges import BELOW_ONE, COUNT, NOT_NEGATIVE, WIDTH
from ifmmin.base import MissingModalityModule
from ifmmin.cards import ModelCard
from ifmmin.nn.encoders import LSTMEncoder
from ifmmin.nn.fusion import LowRankFusion, tensor_product
from ifmmin.nn.heads import Classifier
from ifmmin.nn.kernels import use_plain
from ifmmin.optimization import Recipe

ROWS = 128
"""Rows whose tensors are in memory at once."""


class MeanNetwork(nn.Module):
    """Mean frame, LayerNorm, dropout, and three linear layers with ReLU (audio and visual).

    Args:
        input_dim: D.
        width: E.
        dropout: of the mean frame.
    """

    def __init__(self, input_dim: int, width: int, dropout: float) -> None:
        super().__init__()
        self.norm, self.dropout = nn.LayerNorm(input_dim), nn.Dropout(dropout)
        layers: list[nn.Module] = []
        for dim in (input_dim, width, width):
            layers += [nn.Linear(dim, width), nn.ReLU()]
        self.layers = nn.Sequential(*layers)

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """Embed frames [K, T, D], zeros behind the lengths [K]: [K, E]."""
        mean = frames.sum(dim=1) / lengths[:, None]
        embedding: Tensor = self.layers(self.dropout(self.norm(mean)))
        return embedding


class LastStateNetwork(nn.Module):
    """Last true state of an LSTM, dropout, linear (text).

    Args:
        input_dim: D.
        hidden_dim: width of the states.
        width: E.
        dropout: of the last state.
    """

    def __init__(self, input_dim: int, hidden_dim: int, width: int, dropout: float) -> None:
        super().__init__()
        self.rnn = LSTMEncoder(input_dim, hidden_dim, pooling="last")
        self.dropout, self.linear = nn.Dropout(dropout), nn.Linear(hidden_dim, width)

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """Embed frames [K, T, D] with lengths [K]: [K, E]."""
        embedding: Tensor = self.linear(self.dropout(self.rnn(frames, lengths)))
        return embedding


class VectorFusion(MissingModalityModule):
    """Base of both: an embedding h_m of each modality, zeros where it is absent, and what fuses them.

    Args:
        widths: E of audio, visual, text.
        text_states: width of the text's LSTM.
        dropout: of mean frames and of the LSTM's last state.
        lambda_complete: weight of the loss on complete utterances; with 0 they are not even loaded.
        **kwargs: of :class:`~ifmmin.base.MissingModalityModule`.

    Raises:
        InputError: ``widths`` are not three, or an option is out of range.
    """

    recipe: ClassVar[Recipe] = Recipe(learning_rate=1e-3, constant_epochs=10, decay_epochs=10)

    def __init__(
        self,
        *,
        widths: Annotated[list[int], WIDTH],
        text_states: Annotated[int, WIDTH] = 128,
        dropout: Annotated[float, BELOW_ONE] = 0.3,
        lambda_complete: Annotated[float, NOT_NEGATIVE] = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if len(widths) != len(MODALITIES):
            raise InputError(f"widths {list(widths)}: give a number for {', '.join(MODALITIES)} each.")
        audio, visual, text = self.feature_dims
        self.networks = nn.ModuleDict(
            {
                "audio": MeanNetwork(audio, widths[0], dropout),
                "visual": MeanNetwork(visual, widths[1], dropout),
                "text": LastStateNetwork(text, text_states, widths[2], dropout),
            }
        )
        self.loss_weights = {"complete": lambda_complete}
        self.needs = DataNeeds(hidden_frames=lambda_complete > 0)

    @abstractmethod
    def fuse(self, h: Sequence[Tensor]) -> Tensor:
        """Outputs [B, O] of h_m [B, E_m], zeros where a modality is absent."""

    def embeddings(self, batch: Batch) -> list[Tensor]:
        """h_m [B, E_m] of audio, visual and text; each stored utterance is read once."""
        h = []
        for modality, network in enumerate(self.networks.values()):
            seen = visible(batch, modality)
            frames, lengths = seen.frames, seen.lengths
            if not len(lengths):
                # Zeros that no row reads, so that in training every parameter has a gradient.
                frames, lengths = frames.new_zeros(1, 1, frames.shape[2]), lengths.new_ones(1)
            h.append(seen.spread(network(frames, lengths)))
        return h

    def forward(self, batch: Batch) -> Tensor:
        """Outputs [B, O]."""
        return self.fuse(self.embeddings(batch))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """L_cls under the training mask, and L_complete of the same embeddings without it."""
        if not self.needs.hidden_frames:
            return {"cls": self.task.loss(self(batch), batch.target)}
        h = self.embeddings(batch.unmasked())
        shown = [each[batch.row] * there[:, None] for each, there in zip(h, batch.present.unbind(dim=1), strict=True)]
        return {
            "cls": self.task.loss(self.fuse(shown), batch.target),
            "complete": self.loss_over(batch.available.all(dim=1), self.fuse(h), batch.targets),
        }


class TFN(VectorFusion):
    r"""Tensor fusion network.

    Zadeh, Chen, Poria, Cambria, Morency: "Tensor fusion network for multimodal sentiment analysis", EMNLP 2017.

    The tensor of all products of the modalities' embeddings, each with a 1 before it, is read by two layers of 64 and
    an output layer:

    .. math::
        z = [1; h_a] ⊗ [1; h_v] ⊗ [1; h_t], \quad ŷ = \mathrm{classifier}(z), \quad L = L_{cls} + λ L_{complete}

    It holds the products of three modalities, of each two and of each one. h_m of an absent modality is 0, and [1; 0]
    leaves out exactly the terms with it: nothing is imagined, and the terms of what is present are those that a
    complete utterance has too. h_a, h_v: three layers with ReLU of the mean frame; h_t: linear, of an LSTM's last
    state. L_cls: the task's loss under the training mask; L_complete: on the complete utterance. Dropout 0.3 in the
    networks, 0.5 of z; learning rate 1e-3.

    What it costs: z is wide, so that a training step takes some twice as long as plain fusion's.

    Our choices: λ = 1, since no training mask shows three modalities, and without L_complete the products of three
    would be read untrained; h of 32 values for every modality, so that z has 33³; 10+10 epochs at batch 128, gradients
    clipped to 1 per sub-network; text is read from frozen frames. In a corpus with gaps L_complete is over the
    complete utterances.

    Differs from the published code (Justin1904/TensorFusionNetworks, without a licence; a reimplementation by one of
    LMF's authors): the mean is over true frames, and the last state that of the last one, where theirs read padding;
    LayerNorm instead of batch normalisation of the mean frame, so that the training step of an utterance does not
    depend on its company; no sigmoid bounds the output, which is the task's.

    Published figures: areas under curves over rates of dropped frames, of re-runs by EMT-DLFR's and TFR-Net's authors
    on MOSI, MOSEI and SIMS; another protocol, and not to be compared with tables of missing modalities.

    Args:
        widths: of h of audio, visual, text; the tensor has (1 + a) (1 + v) (1 + t) values a row.
        hidden_dims: of the classifier.
        fusion_dropout: of z.
        **kwargs: of :class:`VectorFusion`.

    Raises:
        InputError: ``widths`` are not three, or an option is out of range.
    """

    card = ModelCard(
        "TFN",
        "reads the products of all modalities, of two and of each alone; an absent one leaves its terms out",
        "Zadeh et al., EMNLP",
        2017,
        "https://aclanthology.org/D17-1115/",
        "https://github.com/Justin1904/TensorFusionNetworks",
        "fusion",
    )

    def __init__(
        self,
        *,
        widths: Annotated[list[int], WIDTH] = [32, 32, 32],
        hidden_dims: Annotated[list[int], WIDTH] = [64, 64],
        fusion_dropout: Annotated[float, BELOW_ONE] = 0.5,
        **kwargs: Any,
    ) -> None:
        super().__init__(widths=widths, **kwargs)
        size = math.prod(1 + width for width in widths)
        self.fusion_dropout = nn.Dropout(fusion_dropout)
        self.classifier = Classifier(size, self.task.outputs, hidden_dims, 0.0)

    def fuse(self, h: Sequence[Tensor]) -> Tensor:
        """See :class:`VectorFusion`."""
        if use_plain("rows"):
            outputs: Tensor = self.classifier(self.fusion_dropout(tensor_product(h)))
            return outputs
        parts = zip(*(each.split(ROWS) for each in h), strict=True)
        return torch.cat([self.classifier(self.fusion_dropout(tensor_product(part))) for part in parts])


class LMF(VectorFusion):
    r"""Low-rank multimodal fusion.

    Liu, Shen, Lakshminarasimhan, Liang, Zadeh, Morency: "Efficient low-rank multimodal fusion with modality-specific
    factors", ACL 2018.

    A linear function of TFN's tensor whose weights have rank R, computed without that tensor
    (:class:`~ifmmin.nn.fusion.LowRankFusion`); it is the answer, with no layer behind it:

    .. math::
        ŷ = \sum_{r=1}^{R} w_r \, (F_a^r [1; h_a]) ∘ (F_v^r [1; h_v]) ∘ (F_t^r [1; h_t]) + b

    h_m are :class:`TFN`'s, and 0 where a modality is absent: what is left is a low-rank function of the tensor of what
    is present. R = 4, dropout 0.3, learning rate 1e-3, weights by Xavier, b = 0.

    Our choices: h of 64 values for every modality; Xavier's variance is that of each factor matrix alone; 20+20 epochs,
    for products of small factors learn slowly at first; λ, batch and clipping as TFN's.

    Differs from the published code (Justin1904/Low-rank-Multimodal-Fusion, without a licence, by an author): as
    :class:`TFN` does.

    Published figures: as of :class:`TFN`; not to be compared with tables of missing modalities.

    Args:
        widths: of h of audio, visual, text.
        rank: R.
        **kwargs: of :class:`VectorFusion`.

    Raises:
        InputError: ``widths`` are not three, or an option is out of range.
    """

    card = ModelCard(
        "LMF",
        "reads the products of modalities, of all, of two and of each alone, through weights of a low rank",
        "Liu et al., ACL",
        2018,
        "https://aclanthology.org/P18-1209/",
        "https://github.com/Justin1904/Low-rank-Multimodal-Fusion",
        "fusion",
    )
    recipe: ClassVar[Recipe] = Recipe(learning_rate=1e-3)

    def __init__(
        self,
        *,
        widths: Annotated[list[int], WIDTH] = [64, 64, 64],
        rank: Annotated[int, COUNT] = 4,
        **kwargs: Any,
    ) -> None:
        super().__init__(widths=widths, **kwargs)
        self.fusion = LowRankFusion(widths, self.task.outputs, rank)

    def fuse(self, h: Sequence[Tensor]) -> Tensor:
        """See :class:`VectorFusion`."""
        outputs: Tensor = self.fusion(h)
        return outputs
