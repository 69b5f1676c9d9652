"""LSTMs whose input is what their own state attends to, side by side, with their gradient written out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def attended_lstms(
    keys: Sequence[Tensor],
    values: Sequence[Tensor],
    scores: Sequence[Tensor],
    queries: Sequence[Tensor],
    recurrent: Sequence[Tensor],
) -> Sequence[Tensor]:
    """From s_0 = 0, for i = 1..S: α_i = softmax_j(v · tanh(k_j + Q s_{i-1})), s_i = LSTM(Σ_j α_ij u_j + W s_{i-1}).

    What LSTM is given here are the inputs of the gates of :class:`torch.nn.LSTMCell`, in its order. The
    attention is that of Bahdanau, Cho and Bengio, "Neural machine translation by jointly learning to
    align and translate", ICLR 2015, with W_ih applied to what is attended to, in which the gates are linear.

    Several with parameters of their own, but the same S and H, go through the steps together: a step's time is
    that of its calls, not of its rows.

    Args:
        keys: of each, k [R, S, H].
        values: of each, u [R, S, 4H].
        scores: of each, v [H].
        queries: of each, Q [H, H].
        recurrent: of each, W [4H, H].

    Returns:
        of each, s [R, S, H]; its gradient cannot be differentiated again.
    """
    rows = [len(each) for each in keys]
    joint = torch.stack([torch.cat(pair) for pair in zip(recurrent, queries, strict=True)])
    states: Tensor = AttendedLSTMs.apply(rows, torch.cat([*keys]), torch.cat([*values]), torch.stack([*scores]), joint)  # type: ignore[no-untyped-call]
    parts: Sequence[Tensor] = states.split(rows)
    return parts


class AttendedLSTMs(torch.autograd.Function):
    """See :func:`attended_lstms`; W and Q are one matrix of ``joint`` [P, 5H, H], so that a state is multiplied once.

    Autograd would multiply out and add up the gradients of W, Q and v in every step; written out, the steps
    pass on only what the recurrence needs, and each of these gradients is one product over all of them.

    What is kept of every step is [S, R, ...], for the R rows of all; the loops go over views of it made beforehand.
    """

    @staticmethod
    def forward(ctx: Any, rows: list[int], keys: Tensor, values: Tensor, vectors: Tensor, joint: Tensor) -> Tensor:
        """The states [R, S, H]."""
        R, S, H = keys.shape
        states, cells = keys.new_zeros(2, S + 1, R, H).unbind()
        squashed, gates = keys.new_empty(S, R, H), keys.new_empty(S, R, 4 * H)
        weights, energies = keys.new_empty(S, R, 1, S), keys.new_empty(S, R, S, H)
        passed = keys.new_empty(R, 1, 5 * H)
        to_gates, asked = passed.split([4 * H, H], dim=2)
        products = [*zip(passed[:, 0].split(rows), joint.mT, strict=True)]
        vector, score = of_rows(vectors, rows)[:, None], keys.new_empty(R, 1, S)
        gating = zip(gates[:, :, None], gates[..., : 2 * H], *gates.chunk(4, dim=2), strict=True)
        recurrence = zip(by_part(states[:-1], rows), states[1:], cells[:-1], cells[1:], squashed, strict=True)
        for (energy, weight), (gate, both, i, f, g, o), (state, next_state, cell, next_cell, squash) in zip(
            zip(energies, weights, strict=True), gating, recurrence, strict=True
        ):
            for part, (into, matrix) in zip(state, products, strict=True):
                torch.mm(part, matrix, out=into)
            torch.add(keys, asked, out=energy).tanh_()
            torch.softmax(torch.bmm(vector, energy.mT, out=score), dim=2, out=weight)
            torch.baddbmm(to_gates, weight, values, out=gate)
            both.sigmoid_()  # i and f lie together
            g.tanh_()
            o.sigmoid_()
            torch.mul(i, g, out=next_cell).addcmul_(f, cell)
            torch.mul(o, torch.tanh(next_cell, out=squash), out=next_state)
        ctx.save_for_backward(values, vectors, joint, states, cells, squashed, gates, weights, energies)
        ctx.rows = rows
        return states[1:].transpose(0, 1).contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of keys, values, vectors and joint."""
        with torch.autocast(gradient.device.type, enabled=False):  # as in the forward pass
            return None, *_gradients(gradient, ctx.rows, *ctx.saved_tensors)


def by_part(steps: Tensor, rows: Sequence[int]) -> Iterator[tuple[Tensor, ...]]:
    """Of each step of [S, R, ...], its parts."""
    return zip(*(part.unbind() for part in steps.split(rows, dim=1)), strict=True)


def of_rows(parameters: Tensor, rows: Sequence[int]) -> Tensor:
    """[P, ...] as [R, ...], each for its rows."""
    return torch.cat([each.expand(r, *each.shape) for each, r in zip(parameters, rows, strict=True)])


def _gradients(
    gradient: Tensor,
    rows: list[int],
    values: Tensor,
    vectors: Tensor,
    joint: Tensor,
    states: Tensor,
    cells: Tensor,
    squashed: Tensor,
    gates: Tensor,
    weights: Tensor,
    energies: Tensor,
) -> tuple[Tensor, ...]:
    """Of keys [R, S, H], values [R, S, 4H], vectors [P, H] and joint [P, 5H, H]; d_x is the gradient of x.

    Args:
        gradient: of the states, [R, S, H].
        rows: of each of the P.
        values: [R, S, 4H].
        vectors: [P, H].
        joint: [P, 5H, H].
        states: [S + 1, R, H], from s_0.
        cells: [S + 1, R, H], from c_0.
        squashed: tanh of the cells 1..S, [S, R, H].
        gates: i, f, g, o, [S, R, 4H].
        weights: α, [S, R, 1, S].
        energies: tanh(k + Q s), [S, R, S, H].
    """
    R, S, H = gradient.shape
    i, f, g, o = gates.chunk(4, dim=2)
    # d_gates begins as the slopes, by which the gradients of a step's cell (for o: of its state) are multiplied.
    d_sigmoid, d_tanh = torch.ops.aten.sigmoid_backward, torch.ops.aten.tanh_backward  # x·y(1 - y) and x(1 - y²)
    d_gates = torch.cat([d_sigmoid(g, i), d_sigmoid(cells[:-1], f), d_tanh(i, g), d_sigmoid(squashed, o)], dim=2)
    cell_slopes, energy_slopes = d_tanh(o, squashed), d_tanh(of_rows(vectors, rows)[:, None], energies)
    d_scores, d_asked = torch.empty_like(weights), torch.empty_like(squashed)
    to_weights = values.mT
    d_state, d_cell = gradient.new_zeros(2, R, H).unbind()
    products = [*zip(d_state.split(rows), *joint.split([4 * H, H], dim=1), strict=True)]
    parts = zip(by_part(d_gates, rows), by_part(d_asked, rows), strict=True)
    gating = zip(d_gates[:, :, None], d_gates[..., : 3 * H].unflatten(2, (3, H)), d_gates[..., 3 * H :], strict=True)
    attention = zip(weights, d_scores, energy_slopes, d_asked[:, :, None], strict=True)
    recurrence = zip(gradient.transpose(0, 1), cell_slopes, f, parts, strict=True)
    for (d_gate, d_ifg, d_o), (weight, d_score, energy_slope, d_asking), (
        d_output,
        cell_slope,
        forget,
        part,
    ) in reversed([*zip(gating, attention, recurrence, strict=True)]):
        d_state += d_output
        d_cell.addcmul_(d_state, cell_slope)
        d_ifg *= d_cell[:, None]
        d_o *= d_state
        d_weight = torch.bmm(d_gate, to_weights)
        torch._softmax_backward_data(d_weight, weight, 2, d_weight.dtype, grad_input=d_score)
        torch.bmm(d_score, energy_slope, out=d_asking)
        for d_part, d_ask, (into, to_gates, to_asked) in zip(*part, products, strict=True):
            torch.mm(d_part, to_gates, out=into).addmm_(d_ask, to_asked)
        d_cell *= forget
    d_keys = energy_slopes.mul_(d_scores.mT).sum(dim=0)
    d_values = torch.bmm(weights[:, :, 0].permute(1, 2, 0), d_gates.transpose(0, 1))
    d_vectors = torch.bmm(d_scores.flatten(0, 1), energies.flatten(0, 1)).view(S, R, H).sum(dim=0)
    d_passed = torch.cat([d_gates, d_asked], dim=2)
    d_joint = [
        of_passed.flatten(0, 1).t() @ before.flatten(0, 1)
        for of_passed, before in zip(d_passed.split(rows, dim=1), states[:-1].split(rows, dim=1), strict=True)
    ]
    return d_keys, d_values, torch.stack([part.sum(dim=0) for part in d_vectors.split(rows)]), torch.stack(d_joint)
