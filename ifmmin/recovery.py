"""Models that recover the sequence of an absent modality and then fuse all three: the backbone of DiCMoR and IMDer."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from datamodules.batches.batch import Batch
from datamodules.batches.pooling import pool_steps
from datamodules.batches.visible import visible
from datamodules.conditions import MODALITIES
from datamodules.errors import InputError
from datamodules.needs import DataNeeds
from datamodules.ranges import BELOW_ONE, COUNT, NOT_NEGATIVE, WIDTH, Range
from ifmmin.base import MissingModalityModule
from ifmmin.nn.cross_modal import CrossModalTransformer
from ifmmin.nn.heads import ResidualHead
from ifmmin.nn.losses import known_mse
from ifmmin.nn.refinement import Refinement

HALVES = Range(2, 10_000)
"""Widths that are split in two."""


class CrossModalFusion(nn.Module):
    """MulT's fusion: each modality attends to both others, and the last step of a transformer over both is read.

    Args:
        dim: d.
        heads: divides d.
        layers: of the transformers between two modalities.
        memory_layers: of the transformers over what a modality has read.
        dropout: of attention weights, feed-forward parts and what is added; and of what enters.
    """

    def __init__(self, dim: int, heads: int, layers: int, memory_layers: int, dropout: float) -> None:
        super().__init__()
        rates = (dropout, dropout, dropout, dropout)
        self.crossing = nn.ModuleDict(
            {
                f"{to}_from_{source}": CrossModalTransformer(dim, heads, layers, *rates)
                for to in MODALITIES
                for source in MODALITIES
                if source != to
            }
        )
        self.memory = nn.ModuleDict(
            {name: CrossModalTransformer(2 * dim, heads, memory_layers, *rates) for name in MODALITIES}
        )
        self.output_dim = 2 * dim * len(MODALITIES)

    def forward(self, sequences: Tensor) -> Tensor:
        """Fuse sequences [B, 3, S, d] to [B, 6d]."""
        named = dict(zip(MODALITIES, sequences.unbind(dim=1), strict=True))
        ends = []
        for to, x in named.items():
            read = [self.crossing[f"{to}_from_{source}"](x, named[source]) for source in MODALITIES if source != to]
            ends.append(self.memory[to](torch.cat(read, dim=2), last=True))
        return torch.cat(ends, dim=1)


class RecoveryModule(MissingModalityModule):
    """Base of the models that guess x_m, the sequence of an absent modality, refine the guess, and fuse all three.

    x_m [S, C] is a convolution of the frames pooled to S steps. A subclass guesses, and
    :class:`~ifmmin.nn.refinement.Refinement` refines the guess; :class:`CrossModalFusion` reads real and recovered
    sequences alike.

    What is recovered serves the classifier: with λ_recovery = 0.1 the refinement mostly follows the task's
    gradient, and on the built-in corpus neither model's sequences come nearer to the true ones than a mean would
    (``python -m benchmarks.imagination RUN``: explained variance from -0.05 to -0.94).

    Args:
        steps: S.
        width: C, the width of a step.
        kernel: steps that the convolution sees.
        heads: of each attention of the fusion; divides ``width``.
        layers: of the transformers between two modalities.
        memory_layers: of those over what a modality has read.
        dropout: of the transformers and of the head.
        refinement_width: channels of the refinement.
        refinement_blocks: its blocks of channel attention.
        lambda_recovery: weight of ``recovery``.
        **kwargs: of :class:`~ifmmin.base.MissingModalityModule`.

    Raises:
        InputError: ``heads`` does not divide ``width``, or an option is out of range.
    """

    def __init__(
        self,
        *,
        steps: Annotated[int, WIDTH] = 8,
        width: Annotated[int, HALVES] = 32,
        kernel: Annotated[int, COUNT] = 5,
        heads: Annotated[int, WIDTH] = 8,
        layers: Annotated[int, COUNT] = 2,
        memory_layers: Annotated[int, COUNT] = 1,
        dropout: Annotated[float, BELOW_ONE] = 0.1,
        refinement_width: Annotated[int, WIDTH] = 64,
        refinement_blocks: Annotated[int, COUNT] = 4,
        lambda_recovery: Annotated[float, NOT_NEGATIVE] = 0.1,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if width % heads:
            raise InputError(f"heads {heads}: it must divide width {width}.")
        dims = zip(MODALITIES, self.feature_dims, strict=True)
        self.projections = nn.ModuleDict(
            {name: nn.Conv1d(dim, width, kernel, padding="same", bias=False) for name, dim in dims}
        )
        self.refinements = nn.ModuleDict(
            {name: Refinement(width, refinement_width, refinement_blocks) for name in MODALITIES}
        )
        self.fusion = CrossModalFusion(width, heads, layers, memory_layers, dropout)
        self.head = ResidualHead(self.fusion.output_dim, dropout)
        self.output = nn.Linear(self.fusion.output_dim, self.task.outputs)
        self.needs = DataNeeds(steps=steps)
        self.steps, self.width, self.heads = steps, width, heads
        self.loss_weights = {"recovery": lambda_recovery}

    @abstractmethod
    def guess(self, x: Tensor, batch: Batch, wanted: list[Tensor]) -> list[Tensor]:
        """Guess the sequences of absent modalities.

        Args:
            x: [N, 3, S, C], of each stored utterance what some row shows; without gradient.
            batch: B rows.
            wanted: int64 [n_m], the rows in which modality m is absent.

        Returns:
            [n_m, S, C] of each modality, of those rows.
        """

    def project(self, batch: Batch) -> Tensor:
        """Sequences x [N, 3, S, C] of each stored utterance, 0 where no row shows a modality."""
        count = len(batch.lengths)
        shown = batch.present.new_zeros(count, len(MODALITIES), dtype=torch.int64)
        shown = shown.index_add(0, batch.row, batch.present.long()) > 0
        everything = replace(batch, row=torch.arange(count, device=batch.row.device), present=shown)
        columns = []
        for modality, (name, width) in enumerate(zip(MODALITIES, self.feature_dims, strict=True)):
            seen = visible(everything, modality)
            frames = seen.frames.new_zeros(0, self.steps, width)
            if len(seen.lengths):
                frames = pool_steps(seen.frames, seen.lengths, self.steps)
            projected = self.projections[name](frames.transpose(1, 2)).transpose(1, 2)
            columns.append(seen.spread(projected))
        # Flows, diffusion and targets need full precision.
        return torch.stack(columns, dim=1).to(self.output.weight.dtype)

    def restore(self, x: Tensor, batch: Batch) -> Tensor:
        """Sequences [B, 3, S, C] of the rows: x [N, 3, S, C] where present, recovered elsewhere."""
        wanted = [column.nonzero(as_tuple=True)[0] for column in (~batch.present).unbind(dim=1)]
        columns = list(x[batch.row].unbind(dim=1))
        # Nothing to recover; in training each parameter has a gradient all the same: devices would wait for it.
        if not any(map(len, wanted)) and not torch.is_grad_enabled():
            return torch.stack(columns, dim=1)
        guesses = self.guess(x.detach(), batch, wanted)
        for modality, (name, rows) in enumerate(zip(MODALITIES, wanted, strict=True)):
            refined = self.refinements[name](guesses[modality])
            columns[modality] = columns[modality].index_copy(0, rows, refined.to(x.dtype))
        return torch.stack(columns, dim=1)

    def classify(self, sequences: Tensor) -> Tensor:
        """Outputs [B, O] of real or recovered sequences [B, 3, S, C]."""
        outputs: Tensor = self.output(self.head(self.fusion(sequences)))
        return outputs

    def modality_embeddings(self, batch: Batch) -> Tensor:
        """Sequences [B, 3, S C], those of absent modalities recovered."""
        return self.restore(self.project(batch), batch).flatten(2)

    def imagined_embeddings(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Recovered sequences and those of the whole utterances, each [B, 3, S C]."""
        true = self.project(batch.unmasked())[batch.row]
        return self.modality_embeddings(batch), true.flatten(2).detach()

    def forward(self, batch: Batch) -> Tensor:
        """Outputs [B, O]."""
        return self.classify(self.restore(self.project(batch), batch))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The task's loss, and the error of what was recovered of the modalities that the mask took away."""
        x, row = self.project(batch.unmasked()), batch.row
        sequences, taken = self.restore(x, batch), batch.available[row] & ~batch.present
        return {
            "cls": self.task.loss(self.classify(sequences), batch.target),
            "recovery": known_mse(sequences.flatten(2), x[row].flatten(2).detach(), taken),
            **self.guessing_losses(x.detach(), batch),
        }

    @abstractmethod
    def guessing_losses(self, x: Tensor, batch: Batch) -> dict[str, Tensor]:
        """What trains the guess, of x [N, 3, S, C] of the whole utterances, without gradient."""
