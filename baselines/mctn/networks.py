"""MCTN's networks: pooling to a number of steps, the encoder, and the decoder with its reading of features."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.mctn.attended_lstm import attended_lstm
from ifmmin.encoders import padding_mask

Reading = tuple[Tensor, Tensor]
"""int64 [R], rows of a batch, and float [R, S, D], steps of one modality for them: decoded, or projected."""


def pool_steps(frames: Tensor, lengths: Tensor, steps: int) -> Tensor:
    """Average-pool each sequence to the same number of steps.

    Step j of a sequence of L frames is the mean of its frames ⌊jL/S⌋ to ⌈(j+1)L/S⌉ - 1, which is
    adaptive average pooling over the true length: a sequence shorter than S repeats frames.

    Args:
        frames: [K, T, D]; what lies behind the last true frame is not read.
        lengths: int64 [K] in 1..T.
        steps: S.

    Returns:
        [K, S, D].
    """
    longest = frames.shape[1]
    edges = torch.arange(steps + 1, device=lengths.device) * lengths[:, None]
    start, end = (edges[:, :-1] // steps)[..., None], ((edges[:, 1:] + steps - 1) // steps)[..., None]
    position = torch.arange(longest, device=lengths.device)
    weights = ((start <= position) & (position < end)).to(frames.dtype) / (end - start)
    if (padding := padding_mask(lengths, longest)) is not None:
        # A weight of zero does not silence padding that is not a number.
        frames = frames.masked_fill(padding[..., None], 0.0)
    with torch.autocast(frames.device.type, enabled=False):  # the targets of a regression: no mixed precision
        return weights @ frames


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
        states: Tensor = self.rnn(steps)[0]
        forwards, backwards = states.chunk(2, dim=-1)
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
        """Decode states [B, S, H] of the encoder to as many states s_i [B, S, H]."""
        with torch.autocast(encoded.device.type, enabled=False):  # steps this small gain nothing from half precision
            encoded = encoded.to(self.score.weight.dtype)
            # The gates are linear in what is attended to: their weights are applied once, not in every step.
            values = F.linear(encoded, self.cell.weight_ih, self.cell.bias_ih + self.cell.bias_hh)
            keys, score = self.key(encoded), self.score.weight[0]
            return attended_lstm(keys, values, score, self.query.weight, self.cell.weight_hh)

    def read(self, encoded: Tensor, wanted: Tensor) -> list[Reading]:
        """Per modality m, decode [B, S, H] for the rows whose ``wanted`` [B, 3] names it, and for no others."""
        rows = wanted.any(dim=1).nonzero(as_tuple=True)[0]
        states = self(encoded[rows])
        chosen = [column.nonzero(as_tuple=True)[0] for column in wanted[rows].unbind(dim=1)]
        return [(rows[which], output(states[which])) for which, output in zip(chosen, self.outputs, strict=True)]


def mean_squared_error(readings: Sequence[Reading], wanted: Tensor, true: Sequence[Tensor], row: Tensor) -> Tensor:
    """The mean over rows of the mean over a row's wanted modalities of their MSE; 0 for a row that wants none.

    Args:
        readings: per modality, from :meth:`AttentionDecoder.read`.
        wanted: bool [B, 3], what was read.
        true: per modality, the true steps [N, S, D_m] of every utterance.
        row: int64 [B], the utterance of each row.
    """
    count = wanted.sum(dim=1)
    total = true[0].new_zeros(())
    for (chosen, decoded), steps in zip(readings, true, strict=True):
        errors = F.mse_loss(decoded, steps[row[chosen]], reduction="none").mean(dim=(1, 2))
        total = total + (errors / count[chosen]).sum()
    return total / len(row)
