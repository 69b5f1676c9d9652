"""The parts of MulT: what makes the vector of each modality.

Plain ``torch.nn``: nothing here knows Lightning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from datamodules.conditions import MODALITIES
from ifmmin.nn.cross_modal import CrossModalTransformer
from ifmmin.nn.rows import distinct

ORDER = ("text", "audio", "visual")
"""Of the sources of a target, as published: it matters to a memory transformer, which adds positions."""


@dataclass(frozen=True)
class Sizes:
    """Sizes and rates that the transformers of MulT share.

    Attributes:
        dim: d, of a projected frame.
        heads: of each attention; divides d.
        layers: of each crossmodal transformer.
        memory_layers: of each memory transformer.
        attention_dropout: of attention weights.
        relu_dropout: inside feed-forward parts.
        residual_dropout: of what is added to a stream.
        embedding_dropout: of what a transformer reads.
        future_mask: whether a step may not attend to later ones.
    """

    dim: int
    heads: int
    layers: int
    memory_layers: int
    attention_dropout: float = 0.1
    relu_dropout: float = 0.1
    residual_dropout: float = 0.1
    embedding_dropout: float = 0.25
    future_mask: bool = False

    def transformer(
        self, width: int, layers: int, kind: type[CrossModalTransformer] = CrossModalTransformer
    ) -> CrossModalTransformer:
        """A transformer of these rates."""
        dropouts = (self.attention_dropout, self.relu_dropout, self.residual_dropout, self.embedding_dropout)
        return kind(width, self.heads, layers, *dropouts, future_mask=self.future_mask)


class Target(nn.Module):
    """What makes the vector z_m of a modality m: a projection, two crossmodal transformers and a memory transformer.

    Args:
        name: of m.
        frame_dim: D_m.
        sizes: of the transformers.
        kind: of the crossmodal transformers.
    """

    def __init__(
        self,
        name: str,
        frame_dim: int,
        sizes: Sizes,
        kind: type[CrossModalTransformer] = CrossModalTransformer,
    ) -> None:
        super().__init__()
        self.project = nn.Linear(frame_dim, sizes.dim, bias=False)
        nn.init.xavier_uniform_(self.project.weight)
        self.sources = nn.ModuleDict(
            {other: sizes.transformer(sizes.dim, sizes.layers, kind) for other in ORDER if other != name}
        )
        self.memory = sizes.transformer(2 * sizes.dim, sizes.memory_layers)
        self.absent = nn.Parameter(0.02 * torch.randn(2 * sizes.dim))


@dataclass(frozen=True)
class Streams:
    """Projected frames of the rows of a batch.

    Attributes:
        x: of each modality, float [B, T_m, d].
        lengths: of each modality, int64 [B], at least 1 where it is present; None: all T_m.
        present: bool [B, 3]; nothing else is read.
        source: int64 [B]; rows of one source, an utterance, show the same x_m wherever they show m.
    """

    x: Sequence[Tensor]
    lengths: Sequence[Tensor] | None
    present: Tensor
    source: Tensor

    def lengths_of(self, modality: int, rows: Tensor) -> Tensor | None:
        """Lengths of some rows."""
        return None if self.lengths is None else self.lengths[modality][rows]


class Targets(nn.ModuleDict):
    """A :class:`Target` for each modality.

    Each transformer runs once for all rows in which it reads the same: x_m attends to x_n whatever the third modality
    does, and the memory of m differs only with the sources that there are.
    """

    def of(self, modality: int) -> Target:
        """That of audio (0), visual (1) or text (2)."""
        target = self[MODALITIES[modality]]
        assert isinstance(target, Target)
        return target

    def forward(self, streams: Streams, tokens: Sequence[Tensor] | None = None) -> Tensor:
        """Make z [B, 3, 2d] of what rows show, their absent vectors where a modality is absent.

        Args:
            streams: what is read.
            tokens: [B, P, 2d] for each modality, appended to what its memory transformer reads; streams have no lengths
                then. None: nothing.
        """
        attended = self.attended(streams)
        return torch.stack([self._vector(streams, m, h, tokens) for m, h in enumerate(attended)], dim=1)

    def attended(self, streams: Streams) -> list[Tensor]:
        """What each modality makes of its two sources, in :data:`ORDER`, side by side: [B, T_m, 2d] of each m."""
        found = []
        for m in range(len(MODALITIES)):
            parts = []
            for name, transformer in self.of(m).sources.items():
                assert isinstance(transformer, CrossModalTransformer)
                parts.append(self._attended(streams, m, MODALITIES.index(name), transformer))
            found.append(torch.cat(parts, dim=2))
        return found

    def summary(self, memory: CrossModalTransformer, h: Tensor, lengths: Tensor | None) -> Tensor:
        """Vector [R, 2d] of h [R, T, 2d]: the last step of what the memory transformer makes of it."""
        last: Tensor = memory(h, lengths=lengths, last=True)
        return last

    def _attended(self, streams: Streams, m: int, n: int, transformer: CrossModalTransformer) -> Tensor:
        """h_{m ← n} [B, T, d]; x_m where one of the two is absent."""
        x, present = streams.x[m], streams.present
        rows = (present[:, m] & present[:, n]).nonzero(as_tuple=True)[0]
        first, which = distinct(streams.source[rows])
        read = rows[first]
        if len(read) or not self.training:
            lengths = (streams.lengths_of(m, read), streams.lengths_of(n, read))
            attended = transformer(x[read], streams.x[n][read], *lengths)
        else:
            # In training a transformer that no row reads runs on zeros, so that its parameters have a gradient.
            attended = transformer(torch.zeros_like(x[:1]), torch.zeros_like(streams.x[n][:1]))[:0]
        return x.index_copy(0, rows, attended[which].to(x.dtype))

    def _vector(self, streams: Streams, m: int, h: Tensor, tokens: Sequence[Tensor] | None) -> Tensor:
        """z_m [B, 2d] of h [B, T, 2d]."""
        target, present = self.of(m), streams.present
        if tokens is not None:
            h = torch.cat([h, tokens[m].to(h.dtype)], dim=1)
        rows = present[:, m].nonzero(as_tuple=True)[0]
        pattern = (present * torch.tensor([1, 2, 4], device=present.device)).sum(dim=1)
        first, which = distinct(8 * streams.source[rows] + pattern[rows])
        read = rows[first]
        if len(read) or not self.training:
            z = self.summary(target.memory, h[read], streams.lengths_of(m, read))
        else:
            z = self.summary(target.memory, 0.0 * h[:1], None)[:0]
        return target.absent.to(z.dtype).expand(len(h), -1).index_copy(0, rows, z[which])
