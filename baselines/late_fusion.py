"""Late fusion: a model per modality, and the mean of their answers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

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
from ifmmin.nn.attention import packed_layer
from ifmmin.nn.encoders import SequenceEncoder
from ifmmin.nn.heads import Classifier
from ifmmin.nn.padding import by_time, frame_mask, reversed_frames
from ifmmin.nn.precision import in_autocast, lstm_states
from ifmmin.optimization import Recipe

Form = Literal["recurrent", "transformer"]
Weighting = Literal["mean", "learnt"]


class BidirectionalLSTM(SequenceEncoder):
    """The last state of an LSTM over the frames, and that of another over the frames backwards.

    Args:
        input_dim: D.
        hidden_dim: width of each state; E is twice that.
    """

    def __init__(self, input_dim: int, hidden_dim: int) -> None:
        super().__init__(input_dim, 2 * hidden_dim, absent_frames=1)
        self.forwards, self.backwards = nn.LSTM(input_dim, hidden_dim), nn.LSTM(input_dim, hidden_dim)

    def pool(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """See :class:`~ifmmin.nn.encoders.SequenceEncoder`."""
        frames, column, last = in_autocast(frames), torch.arange(len(lengths), device=lengths.device), lengths - 1
        readings = ((self.forwards, frames), (self.backwards, reversed_frames(frames, lengths)))
        ends = [lstm_states(rnn, by_time(read, len(lengths)))[last, column] for rnn, read in readings]
        return torch.cat(ends, dim=1)


class ClassTokenTransformer(SequenceEncoder):
    """A class token before the projected frames, layers of self-attention without positions; the token's last state.

    Args:
        input_dim: D.
        embedding_dim: E, the width of the layers.
        layers: of ReLU, with the norm last.
        heads: of each attention; divides E.
        feedforward_dim: hidden width of the feed-forward parts.
        dropout: of each layer.
    """

    def __init__(
        self, input_dim: int, embedding_dim: int, layers: int, heads: int, feedforward_dim: int, dropout: float
    ) -> None:
        super().__init__(input_dim, embedding_dim, absent_frames=1)
        self.project = nn.Linear(input_dim, embedding_dim)
        self.token = nn.Parameter(torch.randn(embedding_dim) * embedding_dim**-0.5)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(embedding_dim, heads, feedforward_dim, dropout, batch_first=True)
            for _ in range(layers)
        )

    def pool(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """See :class:`~ifmmin.nn.encoders.SequenceEncoder`."""
        ascending, order = (lengths + 1).sort()
        true = frame_mask(ascending, frames.shape[1] + 1)
        states = self.project(in_autocast(frames))
        token = self.token.to(states.dtype).expand(len(states), 1, -1)
        states, first = torch.cat([token, states], dim=1)[order][true], ascending.cumsum(0) - ascending
        for layer in self.layers:
            assert isinstance(layer, nn.TransformerEncoderLayer)
            states = packed_layer(layer, states, ascending)
        found = states[first]
        return torch.empty_like(found).index_copy(0, order, found)


class AnswerFusion(nn.Module):
    """Weighted mean of the answers of those modalities that are present.

    Args:
        weighting: ``mean``, or ``learnt``: a softmax over what is present of a weight per modality.
    """

    def __init__(self, weighting: Weighting) -> None:
        super().__init__()
        if weighting == "learnt":
            self.weights = nn.Parameter(torch.zeros(len(MODALITIES)))
        else:
            self.register_buffer("weights", torch.zeros(len(MODALITIES)), persistent=False)

    def forward(self, answers: Tensor, present: Tensor) -> Tensor:
        """Fuse answers [B, 3, O] by bool [B, 3], at least one True in a row, to [B, O]."""
        shares = self.weights.expand(present.shape).masked_fill(~present, -torch.inf).softmax(dim=1)
        # An absent modality's answer is finite, and has the share 0.
        fused: Tensor = (shares[..., None] * answers).sum(dim=1)
        return fused


class LateFusion(MissingModalityModule):
    r"""Answer from each modality by itself, and average the answers of what is present.

    The models LF-RNN and LF-Transformer of Dai, Cahyawijaya, Liu, Fung: "Multimodal end-to-end sparse model for
    emotion recognition", NAACL 2021, there baselines.

    No modality ever reads another, so that nothing is imagined and nothing has to be: an absent modality just does not
    answer. This is the floor of every table. What a fusion gains over it, it gains by reading modalities together.

    With e_m an embedding of modality m, its answer f_m, and w_m its share of what is present,

    .. math::
        f_m = W_m ReLU(V_m e_m + b_m) + c_m, \quad ŷ = \sum_m w_m f_m, \quad L = L_{cls} + λ L_{alone}

    e_m is the last state of a bidirectional LSTM, both directions (``recurrent``, the hidden layer half as wide), or
    that of a class token in a transformer of 4 layers without positions (``transformer``, the hidden layer half as
    wide). L_cls is the task's loss of ŷ, L_alone the mean of that of each f_m over the modalities present in each row.

    Our choices: λ = 1, without which the mean of all is trained and no answer by itself; states of 128 for every
    modality, where the paper's are as wide as the frames; a linear projection of the frames before the transformer, its
    heads, widths and dropout; shares that are a softmax over what is present, where the paper, with nothing missing,
    has a linear layer without bias over the three; the optimiser settings of
    :class:`~baselines.plain_fusion.ModalityDropout`, to compare with; the paper leaves its own to the command line.

    Differs from the published code (wenliangdai/Multimodal-End2end-Sparse, whose README shows CC BY 4.0): the text's
    last state is that of its last true token, where theirs reads padding; a cross entropy of the corpus's classes
    instead of a binary one for each of six emotions.

    Published figures: of complete modalities only, on other classes; nothing to compare with.

    What it costs: at IEMOCAP's sizes a training step takes some twice as long as plain fusion's, since every frame is
    read in two directions, and with transformers five times.

    Args:
        form: ``recurrent`` or ``transformer``.
        weighting: ``mean``, the same share for each modality present, or ``learnt``, a softmax over what is present
            of a weight per modality.
        widths: of the states of audio, visual, text.
        lambda_alone: λ, weight of L_alone.
        dropout: of the hidden layer of each f_m.
        layers: of each transformer.
        heads: of its attention; divides every width.
        feedforward: hidden width of its feed-forward parts, in multiples of the width.
        encoder_dropout: of its layers.
        **kwargs: of :class:`~ifmmin.base.MissingModalityModule`.

    Raises:
        InputError: ``heads`` does not divide a width, or an option is out of range.
    """

    card = ModelCard(
        "Late fusion",
        "averages the answers of a model per modality, over what is present: the floor",
        "LF-RNN and LF-Transformer of Dai et al., NAACL",
        2021,
        "https://aclanthology.org/2021.naacl-main.417/",
        "https://github.com/wenliangdai/Multimodal-End2end-Sparse",
        "fusion",
    )
    recipe: ClassVar[Recipe] = Recipe(constant_epochs=30, decay_epochs=30, clip_norm=0.5)
    needs = DataNeeds(hidden_frames=False)

    def __init__(
        self,
        *,
        form: Form = "recurrent",
        weighting: Weighting = "mean",
        widths: Annotated[list[int], WIDTH] = [128, 128, 128],
        lambda_alone: Annotated[float, NOT_NEGATIVE] = 1.0,
        dropout: Annotated[float, BELOW_ONE] = 0.3,
        layers: Annotated[int, COUNT] = 4,
        heads: Annotated[int, WIDTH] = 4,
        feedforward: Annotated[int, COUNT] = 2,
        encoder_dropout: Annotated[float, BELOW_ONE] = 0.1,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if len(widths) != len(MODALITIES):
            raise InputError(f"widths {list(widths)}: give a number for {', '.join(MODALITIES)} each.")
        if form == "transformer" and (odd := [width for width in widths if width % heads]):
            raise InputError(f"heads {heads}: it must divide each of widths, but {odd[0]} is none of its multiples.")

        def encoder(dim: int, width: int) -> SequenceEncoder:
            if form == "recurrent":
                return BidirectionalLSTM(dim, width)
            return ClassTokenTransformer(dim, width, layers, heads, feedforward * width, encoder_dropout)

        made = [encoder(dim, width) for dim, width in zip(self.feature_dims, widths, strict=True)]
        self.encoders = nn.ModuleDict(dict(zip(MODALITIES, made, strict=True)))
        self.heads = nn.ModuleDict(
            {
                name: Classifier(each.embedding_dim, self.task.outputs, [max(1, each.embedding_dim // 2)], dropout)
                for name, each in zip(MODALITIES, made, strict=True)
            }
        )
        self.fusion = AnswerFusion(weighting)
        self.loss_weights = {"alone": lambda_alone}

    def readers(self) -> Iterator[tuple[SequenceEncoder, Classifier]]:
        """Encoder and head of audio, visual and text."""
        for encoder, head in zip(self.encoders.values(), self.heads.values(), strict=True):
            assert isinstance(encoder, SequenceEncoder) and isinstance(head, Classifier)
            yield encoder, head

    def answers_alone(self, batch: Batch) -> Tensor:
        """Outputs [B, 3, O] of each modality by itself; those of absent ones mean nothing."""
        size = len(batch)
        columns = [head(encoder.embed(visible(batch, m), size)) for m, (encoder, head) in enumerate(self.readers())]
        return torch.stack(columns, dim=1)

    def forward(self, batch: Batch) -> Tensor:
        """Outputs [B, O]."""
        fused: Tensor = self.fusion(self.answers_alone(batch), batch.present)
        return fused

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """L_cls of the fused answer, L_alone of each by itself."""
        alone, present = self.answers_alone(batch), batch.present
        row = present.nonzero(as_tuple=True)[0]
        return {
            "cls": self.task.loss(self.fusion(alone, present), batch.target),
            "alone": self.task.loss(alone[present], batch.target[row]),
        }
