"""What MCTN's decoders read off their states: features that are compared and translated on, but never written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from baselines.mctn.networks import AttentionDecoder


class Reading(NamedTuple):
    """Decoded features of one modality, kept as what they are read off, which is many times narrower.

    Attributes:
        rows: int64 [R], of a batch.
        states: [R, S, H], of the decoder.
        output: the layer that reads the features [R, S, D] off them.
    """

    rows: Tensor
    states: Tensor
    output: nn.Linear

    def projected(self, projection: nn.Linear) -> Tensor:
        """[R, S, width]: the features through a linear layer, by the product of both layers, which is smaller."""
        weight, bias = projection.weight @ self.output.weight, projection(self.output.bias)
        return F.linear(self.states, weight, bias)

    def squared_errors(self, true: Tensor) -> Tensor:
        """[R]: the mean of (decoded - true)² over the steps and features [R, S, D]; ``true`` is overwritten."""
        errors: Tensor = ReadingError.apply(self.states, self.output.weight, self.output.bias, true)  # type: ignore[no-untyped-call]
        return errors


def by_modality(wanted: Tensor) -> tuple[Tensor, list[int]]:
    """Of bool [B, 3]: the rows [R] that want something, those of audio first, then visual, text; and R of each."""
    modality, rows = wanted.t().nonzero(as_tuple=True)
    return rows, modality.bincount(minlength=wanted.shape[1]).tolist()


def read(decoder: AttentionDecoder, states: Tensor, rows: Tensor, counts: Sequence[int]) -> list[Reading]:
    """Per modality, what a decoder reads off its states [R, S, H], which stand as :func:`by_modality` says."""
    readings = []
    for some, theirs, output in zip(rows.split(counts), states.split(counts), decoder.outputs, strict=True):
        assert isinstance(output, nn.Linear)
        readings.append(Reading(some, theirs, output))
    return readings


class ReadingError(torch.autograd.Function):
    """[R]: the mean of (W s + b - x)² over the steps and features of each row, for states s [R, S, H] and x [R, S, D].

    The residual, written over x, is all that is as wide as x: its square and the gradients are read off it.
    """

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, bias: Tensor, true: Tensor) -> Tensor:
        """See above, for W [D, H] and b [D]."""
        joint = F.pad(states, (0, 1), value=1.0)  # b is multiplied by the 1 behind each state
        matrix = torch.cat([weight, bias[:, None]], dim=1)
        residual = true.flatten(0, 1).addmm_(joint.flatten(0, 1), matrix.t(), beta=-1)
        ctx.save_for_backward(joint, weight, residual)
        _, S, D = true.shape
        errors: Tensor = torch.linalg.vector_norm(residual.view(true.shape), dim=(1, 2)).square() / (S * D)
        return errors

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of states, weight and bias."""
        joint, weight, residual = ctx.saved_tensors
        scale = (gradient * (2 / (joint.shape[1] * len(weight))))[:, None, None]
        with torch.autocast(gradient.device.type, enabled=False):  # as in the forward pass
            to_joint = residual.t() @ (joint * scale).flatten(0, 1)
            to_states = (residual @ weight).view_as(joint[..., :-1]) * scale
        return to_states, to_joint[:, :-1], to_joint[:, -1], None


def mean_squared_errors(
    readings: Sequence[Sequence[Reading]], wanted: Sequence[Tensor], true: Sequence[Tensor], row: Tensor
) -> list[Tensor]:
    """Of each, the mean over rows of the mean over a row's wanted modalities of their MSE; 0 for a row that wants none.

    What the same layer reads is compared together, since each comparison has its price.

    Args:
        readings: of each, per modality, from :func:`read` by one decoder.
        wanted: of each, bool [B, 3], what was read.
        true: per modality, the true steps [N, S, D_m] of every utterance.
        row: int64 [B], the utterance of each row.
    """
    errors = []
    for steps, *same in zip(true, *readings, strict=True):
        rows = torch.cat([each.rows for each in same])
        joined = Reading(rows, torch.cat([each.states for each in same]), same[0].output)
        compared = joined.squared_errors(steps.index_select(0, row[rows]))
        errors.append(compared.split([len(each.rows) for each in same]))
    means = []
    for parts, of_modalities, wishes in zip(readings, zip(*errors, strict=True), wanted, strict=True):
        shares = wishes.sum(dim=1)[torch.cat([part.rows for part in parts])]
        means.append((torch.cat(of_modalities) / shares).sum() / len(row))
    return means
