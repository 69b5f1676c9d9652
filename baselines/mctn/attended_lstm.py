"""An LSTM whose input is what its own state attends to, with its gradient written out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def attended_lstm(keys: Tensor, values: Tensor, score: Tensor, query: Tensor, recurrent: Tensor) -> Tensor:
    """From s_0 = 0, for i = 1..S: α_i = softmax_j(v · tanh(k_j + Q s_{i-1})), s_i = LSTM(Σ_j α_ij u_j + W s_{i-1}).

    What LSTM is given here are the inputs of the gates of :class:`torch.nn.LSTMCell`, in its order. The
    attention is that of Bahdanau, Cho and Bengio, "Neural machine translation by jointly learning to
    align and translate", ICLR 2015, with W_ih applied to what is attended to, in which the gates are linear.

    Args:
        keys: k [R, S, H].
        values: u [R, S, 4H].
        score: v [H].
        query: Q [H, H].
        recurrent: W [4H, H].

    Returns:
        s [R, S, H]; its gradient cannot be differentiated again.
    """
    states: Tensor = AttendedLSTM.apply(keys, values, score, torch.cat([recurrent, query]))  # type: ignore[no-untyped-call]
    return states


class AttendedLSTM(torch.autograd.Function):
    """See :func:`attended_lstm`; here W and Q are ``joint`` [5H, H], so that a state is multiplied once.

    Autograd would multiply out and add up the gradients of W, Q and v in every step; written out, the steps
    pass on only what the recurrence needs, and each of these gradients is one product over all of them.

    What is kept of every step is [S, R, ...]; the loops go over views of it that zip has made beforehand.
    """

    @staticmethod
    def forward(ctx: Any, keys: Tensor, values: Tensor, score: Tensor, joint: Tensor) -> Tensor:
        """The states [R, S, H]."""
        R, S, H = keys.shape
        states, cells = keys.new_zeros(2, S + 1, R, H).unbind()
        squashed, gates = keys.new_empty(S, R, H), keys.new_empty(S, R, 4 * H)
        weights, energies = keys.new_empty(S, R, S), keys.new_empty(S, R, S, H)
        passed = keys.new_empty(R, 5 * H)
        to_gates, asked = passed[:, None].split([4 * H, H], dim=2)
        attention = zip(energies, weights[:, :, None], strict=True)
        gating = zip(gates[:, :, None], gates[..., : 2 * H], *gates.chunk(4, dim=2), strict=True)
        recurrence = zip(states[:-1], states[1:], cells[:-1], cells[1:], squashed, strict=True)
        for (energy, weight), (gate, both, i, f, g, o), (state, next_state, cell, next_cell, squash) in zip(
            attention, gating, recurrence, strict=True
        ):
            torch.mm(state, joint.t(), out=passed)
            torch.add(keys, asked, out=energy).tanh_()
            torch.softmax((energy @ score)[:, None], dim=2, out=weight)
            torch.baddbmm(to_gates, weight, values, out=gate)
            both.sigmoid_()  # i and f lie together
            g.tanh_()
            o.sigmoid_()
            torch.mul(i, g, out=next_cell).addcmul_(f, cell)
            torch.mul(o, torch.tanh(next_cell, out=squash), out=next_state)
        ctx.save_for_backward(values, score, joint, states, cells, squashed, gates, weights, energies)
        return states[1:].transpose(0, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        """The gradients of keys, values, score and joint."""
        with torch.autocast(gradient.device.type, enabled=False):  # as in the forward pass
            return _gradients(gradient, *ctx.saved_tensors)


def _gradients(
    gradient: Tensor,
    values: Tensor,
    score: Tensor,
    joint: Tensor,
    states: Tensor,
    cells: Tensor,
    squashed: Tensor,
    gates: Tensor,
    weights: Tensor,
    energies: Tensor,
) -> tuple[Tensor, ...]:
    """Of keys [R, S, H], values [R, S, 4H], score [H] and joint [5H, H]; d_x is the gradient of x.

    Args:
        gradient: of the states, [R, S, H].
        values: [R, S, 4H].
        score: [H].
        joint: [5H, H].
        states: [S + 1, R, H], from s_0.
        cells: [S + 1, R, H], from c_0.
        squashed: tanh of the cells 1..S, [S, R, H].
        gates: i, f, g, o, [S, R, 4H].
        weights: α, [S, R, S].
        energies: tanh(k + Q s), [S, R, S, H].
    """
    R, _, H = gradient.shape
    i, f, g, o = gates.chunk(4, dim=2)
    # d_gates begins as the slopes, by which the gradients of a step's cell (for o: of its state) are multiplied.
    d_gates = torch.cat([i * (1 - i) * g, f * (1 - f) * cells[:-1], (1 - g * g) * i, o * (1 - o) * squashed], dim=2)
    cell_slopes = (1 - squashed * squashed) * o
    energy_slopes = (1 - energies * energies).mul_(score)
    d_scores, d_asked = torch.empty_like(weights), torch.empty_like(squashed)
    d_state, d_cell = gradient.new_zeros(2, R, H).unbind()
    to_gates, to_asked = joint.split([4 * H, H])
    gating = zip(d_gates, d_gates[..., : 3 * H].unflatten(2, (3, H)), d_gates[..., 3 * H :], strict=True)
    attention = zip(weights[:, :, None], d_scores[:, :, None], energy_slopes, d_asked, strict=True)
    recurrence = zip(gradient.transpose(0, 1), cell_slopes, f, strict=True)
    for (d_gate, d_ifg, d_o), (weight, d_score, energy_slope, d_ask), (d_output, cell_slope, forget) in reversed(
        [*zip(gating, attention, recurrence, strict=True)]
    ):
        d_state += d_output
        d_cell.addcmul_(d_state, cell_slope)
        d_ifg *= d_cell[:, None]
        d_o *= d_state
        d_weight = torch.bmm(values, d_gate[:, :, None]).mT
        torch._softmax_backward_data(d_weight, weight, 2, d_weight.dtype, grad_input=d_score)
        torch.bmm(d_score, energy_slope, out=d_ask[:, None])
        torch.mm(d_gate, to_gates, out=d_state).addmm_(d_ask, to_asked)
        d_cell *= forget
    d_keys = energy_slopes.mul_(d_scores[..., None]).sum(dim=0)
    d_values = torch.bmm(weights.permute(1, 2, 0), d_gates.transpose(0, 1))
    d_vector = energies.flatten(0, 2).t() @ d_scores.flatten()
    d_joint = torch.cat([d_gates, d_asked], dim=2).flatten(0, 1).t() @ states[:-1].flatten(0, 1)
    return d_keys, d_values, d_vector, d_joint
