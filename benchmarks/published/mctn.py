"""MCTN as its public code computes it, written anew in plain PyTorch, to be measured against.

As there, the decoder's loop over the steps computes what the attention makes of the encoded states and the
features that are read off anew in each step, and every output is computed whatever is asked for, the
translations too where only the class is. All rows are translated to all modalities, of which a mask takes
what it needs.

Widths are the library's defaults.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.published.models import PlainModel, Utterance
from datamodules.conditions import MODALITIES

STEPS, WIDTH, HIDDEN = 20, 128, 32


class BothDirections(nn.Module):
    """LSTM in both directions, summed."""

    def __init__(self, input_dim: int) -> None:
        super().__init__()
        self.rnn = nn.LSTM(input_dim, HIDDEN, batch_first=True, bidirectional=True)

    def forward(self, steps: Tensor) -> Tensor:
        """Encode [B, S, D] to [B, S, H]."""
        states: Tensor = self.rnn(steps)[0]
        return states[..., :HIDDEN] + states[..., HIDDEN:]


class StepwiseDecoder(nn.Module):
    """LSTM with additive attention that reads the features of all modalities off each step."""

    def __init__(self, feature_dims: Sequence[int]) -> None:
        super().__init__()
        self.query = nn.Linear(HIDDEN, HIDDEN, bias=False)
        self.key = nn.Linear(HIDDEN, HIDDEN)
        self.score = nn.Linear(HIDDEN, 1, bias=False)
        self.cell = nn.LSTMCell(HIDDEN, HIDDEN)
        self.outputs = nn.ModuleList(nn.Linear(HIDDEN, dim) for dim in feature_dims)

    def forward(self, encoded: Tensor) -> list[Tensor]:
        """Decode [B, S, H] to audio, visual and text, each [B, S, D]."""
        state, memory = torch.zeros_like(encoded[:, 0]), torch.zeros_like(encoded[:, 0])
        steps = []
        for _ in range(encoded.shape[1]):
            energy = torch.tanh(self.query(state)[:, None] + self.key(encoded))
            weights = self.score(energy).softmax(dim=1)
            state, memory = self.cell((weights * encoded).sum(dim=1), (state, memory))
            steps.append([output(state) for output in self.outputs])
        return [torch.stack(each, dim=1) for each in zip(*steps, strict=True)]


class AttentionPooling(nn.Module):
    """LSTM, softmax attention over time."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(HIDDEN, HIDDEN, batch_first=True)
        self.attention = nn.Linear(HIDDEN, HIDDEN)
        self.attention_vector = nn.Linear(HIDDEN, 1, bias=False)

    def forward(self, steps: Tensor) -> Tensor:
        """Pool [B, S, H] to [B, H]."""
        states: Tensor = self.rnn(steps)[0]
        weights = self.attention_vector(torch.tanh(self.attention(states))).softmax(dim=1)
        pooled: Tensor = (weights * states).sum(dim=1)
        return pooled


class Outputs(NamedTuple):
    """All that the network computes of a batch: the features [B, S, D] of three modalities each, and the class.

    Attributes:
        translated: at the first level.
        cycled: translated back.
        second: at the second level.
        logits: [B, C].
    """

    translated: list[Tensor]
    cycled: list[Tensor]
    second: list[Tensor]
    logits: Tensor


def row_errors(decoded: Sequence[Tensor], true: Sequence[Tensor], wanted: Tensor) -> Tensor:
    """The mean over rows of the mean over the wanted [B, 3] modalities of the squared error; 0 without any."""
    errors = [(one - other).square().mean(dim=(1, 2)) for one, other in zip(decoded, true, strict=True)]
    return ((torch.stack(errors, dim=1) * wanted).sum(dim=1) / wanted.sum(dim=1).clamp(min=1)).mean()


class PlainMCTN(PlainModel):
    """MCTN that reads whatever is present."""

    def __init__(self, feature_dims: Sequence[int], classes: int) -> None:
        super().__init__()
        self.projections = nn.ModuleDict(
            {name: nn.Linear(dim, WIDTH) for name, dim in zip(MODALITIES, feature_dims, strict=True)}
        )
        self.encoder = BothDirections(WIDTH)
        self.decoder = StepwiseDecoder(feature_dims)
        self.second_encoder = BothDirections(HIDDEN)
        self.second_decoder = StepwiseDecoder(feature_dims)
        self.pooling = AttentionPooling()
        self.classifier = nn.Linear(HIDDEN, classes)

    @staticmethod
    def targets(present: Tensor) -> tuple[Tensor, Tensor]:
        """[B, 3] twice, 1 for the absent modality that is translated to first and for the one that is second."""
        follows = present.roll(1, dims=1)
        return (1 - present) * follows, (1 - present) * (1 - follows)

    def project(self, steps: Sequence[Tensor], wanted: Tensor) -> Tensor:
        """The sum [B, S, width] over the wanted [B, 3] modalities' projected steps."""
        projected = [projection(each) for projection, each in zip(self.projections.values(), steps, strict=True)]
        return (torch.stack(projected, dim=1) * wanted[:, :, None, None]).sum(dim=1)

    def pool(self, frames: Sequence[Tensor]) -> list[Tensor]:
        """The steps [B, S, D] of each modality's frames."""
        return [F.adaptive_avg_pool1d(each.transpose(1, 2), STEPS).transpose(1, 2) for each in frames]

    def run(self, steps: Sequence[Tensor], present: Tensor) -> Outputs:
        """All outputs, of the steps of what is present [B, 3]."""
        source = self.project(steps, present) / present.sum(dim=1)[:, None, None]
        encoded = self.encoder(source)
        translated = self.decoder(encoded)
        cycled = self.decoder(self.encoder(self.project(translated, self.targets(present)[0])))
        encoded_second = self.second_encoder(encoded)
        return Outputs(
            translated, cycled, self.second_decoder(encoded_second), self.classifier(self.pooling(encoded_second))
        )

    def forward(self, batch: Utterance) -> Tensor:
        """See :class:`PlainModel`."""
        return self.run(self.pool(batch.masked(batch.present)), batch.present).logits

    def losses(self, batch: Utterance) -> dict[str, Tensor]:
        """Cross entropy and the three mean squared errors."""
        true, (first, second) = self.pool(batch.frames), self.targets(batch.present)
        outputs = self.run(true, batch.present)
        return {
            "cls": F.cross_entropy(outputs.logits, batch.label),
            "translation": row_errors(outputs.translated, true, first),
            "cycle": row_errors(outputs.cycled, true, batch.present * first.amax(dim=1, keepdim=True)),
            "second": row_errors(outputs.second, true, second),
        }
