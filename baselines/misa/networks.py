"""The parts of MISA: its own utterance encoders, and self-attention over what is present.

Plain ``torch.nn``: nothing here knows Lightning.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from datamodules.conditions import MODALITIES
from ifmmin.nn.attention import packed_layer
from ifmmin.nn.encoders import SequenceEncoder
from ifmmin.nn.padding import by_time, frame_mask, reversed_frames
from ifmmin.nn.precision import in_autocast, lstm_states


class BidirectionalStates(nn.Module):
    """An LSTM over the frames, and another over the frames backwards.

    Args:
        input_dim: D.
        hidden_dim: H, the width of each state.
    """

    def __init__(self, input_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.forwards, self.backwards = nn.LSTM(input_dim, hidden_dim), nn.LSTM(input_dim, hidden_dim)

    def forward(self, frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Read frames [K, T, D] with lengths int64 [K] in 1..T.

        Returns:
            states [K, T, 2H], undefined behind the last frame, and the last state in either direction [K, 2, H].
        """
        count, longest = frames.shape[:2]
        readings = ((self.forwards, frames), (self.backwards, reversed_frames(frames, lengths)))
        ahead, behind = (lstm_states(rnn, by_time(read, count)) for rnn, read in readings)
        column = torch.arange(count, device=lengths.device)
        ends = torch.stack([states[lengths - 1, column] for states in (ahead, behind)], dim=1)
        ahead, behind = (states[:longest, :count].transpose(0, 1) for states in (ahead, behind))
        return torch.cat([ahead, reversed_frames(behind, lengths)], dim=2), ends


class ProjectedEncoder(SequenceEncoder):
    """Linear, ReLU and LayerNorm of an utterance vector [K, P].

    Args:
        input_dim: D.
        pooled_dim: P.
        embedding_dim: E.
    """

    def __init__(self, input_dim: int, pooled_dim: int, embedding_dim: int) -> None:
        super().__init__(input_dim, embedding_dim, absent_frames=1)
        self.project, self.activation = nn.Linear(pooled_dim, embedding_dim), nn.ReLU()
        self.norm = nn.LayerNorm(embedding_dim)

    def head(self, pooled: Tensor) -> Tensor:
        """See :class:`~ifmmin.nn.encoders.SequenceEncoder`."""
        embedding: Tensor = self.norm(self.activation(self.project(pooled)))
        return embedding


class StackedLSTMs(ProjectedEncoder):
    """The last states of two bidirectional LSTMs as wide as the frames, LayerNorm between them (audio and visual).

    Args:
        input_dim: D; the utterance vector has 4 D.
        embedding_dim: E.
    """

    def __init__(self, input_dim: int, embedding_dim: int) -> None:
        super().__init__(input_dim, 4 * input_dim, embedding_dim)
        self.first, self.between = BidirectionalStates(input_dim, input_dim), nn.LayerNorm(2 * input_dim)
        self.second = BidirectionalStates(2 * input_dim, input_dim)
        for name, parameter in self.named_parameters():
            if "weight_hh" in name:
                nn.init.orthogonal_(parameter)

    def pool(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """See :class:`~ifmmin.nn.encoders.SequenceEncoder`; both forward states come first, then both backward ones."""
        states, first = self.first(in_autocast(frames), lengths)
        _, second = self.second(in_autocast(self.between(states)), lengths)
        return torch.cat([first, second], dim=2).flatten(1)


class MeanFrame(ProjectedEncoder):
    """The mean frame (text).

    Args:
        input_dim: D.
        embedding_dim: E.
    """

    def __init__(self, input_dim: int, embedding_dim: int) -> None:
        super().__init__(input_dim, input_dim, embedding_dim)

    def pool(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """See :class:`~ifmmin.nn.encoders.SequenceEncoder`."""
        true = frame_mask(lengths, frames.shape[1]).to(frames.dtype)
        return torch.bmm(true[:, None], frames)[:, 0] / lengths[:, None]


class PresentAttention(nn.Module):
    """A transformer layer (ReLU, norm last) over those tokens of a row that are present, each its own place.

    Args:
        dim: E.
        heads: divides E.
        feedforward_dim: hidden width.
        dropout: of attention weights, hidden values and both outputs.
    """

    def __init__(self, dim: int, heads: int, feedforward_dim: int, dropout: float) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(dim, heads, feedforward_dim, dropout, batch_first=True)

    def forward(self, tokens: Tensor, shown: Tensor) -> Tensor:
        """Mix tokens [B, S, E] by bool ``shown`` [B, S], at least one True in a row: [B, S, E], 0 where not shown."""
        ascending, order = shown.sum(dim=1).sort()
        true = shown[order]
        mixed = packed_layer(self.layer, tokens[order][true], ascending)
        placed = mixed.new_zeros(tokens.shape).index_put((true,), mixed)
        return torch.empty_like(placed).index_copy(0, order, placed)


def original_encoders(feature_dims: list[int], embedding_dim: int) -> list[SequenceEncoder]:
    """Encoders of audio, visual and text as MISA has them."""
    assert len(feature_dims) == len(MODALITIES)
    audio, visual, text = feature_dims
    return [StackedLSTMs(audio, embedding_dim), StackedLSTMs(visual, embedding_dim), MeanFrame(text, embedding_dim)]
