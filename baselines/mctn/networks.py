"""MCTN's networks: the encoder and the decoder."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from ifmmin.nn.kernels.attention_lstm import Recurrence, attention_lstms
from ifmmin.nn.precision import full_precision, lstm_states


class TranslationEncoder(nn.Module):
    """E: a bidirectional LSTM whose directions are summed.

    Args:
        input_dim: width of a step.
        hidden_dim: H.
    """

    def __init__(self, input_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.rnn = nn.LSTM(input_dim, hidden_dim, batch_first=True, bidirectional=True)

    def forward(self, steps: Tensor) -> Tensor:
        """Encode [B, S, input_dim] to states [B, S, H]."""
        forwards, backwards = lstm_states(self.rnn, steps).chunk(2, dim=-1)
        return forwards + backwards


class AttentionDecoder(nn.Module):
    """D: an LSTM that attends to the encoder's states h_1..h_S (additive, Bahdanau et al. 2015).

    From s_0 = 0, α_i = softmax_j(v · tanh(W s_{i-1} + U h_j + b)) and s_i = LSTM(Σ_j α_ij h_j, s_{i-1}).
    A linear layer per modality reads its features off s_i.

    Args:
        hidden_dim: H, of the encoder's states and of its own.
        feature_dims: frame widths of audio, visual, text.
    """

    def __init__(self, hidden_dim: int, feature_dims: Sequence[int]) -> None:
        super().__init__()
        self.query = nn.Linear(hidden_dim, hidden_dim, bias=False)
        self.key = nn.Linear(hidden_dim, hidden_dim)
        self.score = nn.Linear(hidden_dim, 1, bias=False)
        self.cell = nn.LSTMCell(hidden_dim, hidden_dim)
        self.outputs = nn.ModuleList(nn.Linear(hidden_dim, dim) for dim in feature_dims)

    def forward(self, encoded: Tensor) -> Tensor:
        """Decode states [R, S, H] of the encoder to as many states s_i [R, S, H]."""
        return decode([self], [encoded])[0]


def decode(decoders: Sequence[AttentionDecoder], encoded: Sequence[Tensor]) -> Sequence[Tensor]:
    """Decode with several decoders at once: from states [R, S, H] for each, as many states s_i [R, S, H]."""
    with full_precision(encoded[0]):  # steps this small gain nothing from half precision
        parts = []
        for decoder, each in zip(decoders, encoded, strict=True):
            # Contiguous, or both linear layers would make a copy of their own.
            cell, h = decoder.cell, each.to(decoder.score.weight.dtype).contiguous()
            # The gates are linear in what is attended to: their weights are applied once, not in every step.
            values = F.linear(h, cell.weight_ih, cell.bias_ih + cell.bias_hh)
            score = decoder.score.weight[0]
            parts.append(Recurrence(decoder.key(h), values, score, decoder.query.weight, cell.weight_hh))
        return attention_lstms(parts)
