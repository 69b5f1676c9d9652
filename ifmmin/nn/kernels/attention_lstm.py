"""LSTMs whose input is what their own state attends to: a plain loop, and its twin with the gradient written out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ifmmin.nn.kernels import use_plain


class Recurrence(NamedTuple):
    """What one LSTM decodes, with its parameters.

    Attributes:
        keys: k [R, S, H].
        values: u [R, S, 4H]: W_ih applied to what is attended to, biases included; the gates are linear in it.
        score: v [H].
        query: Q [H, H].
        recurrent: W [4H, H], of the gates in the order of :class:`torch.nn.LSTMCell`.
    """

    keys: Tensor
    values: Tensor
    score: Tensor
    query: Tensor
    recurrent: Tensor


def attention_lstms(parts: Sequence[Recurrence]) -> Sequence[Tensor]:
    """Decode: from s_0 = 0, α_i = softmax_j(v · tanh(k_j + Q s_{i-1})), s_i = LSTM(Σ_j α_ij u_j + W s_{i-1}).

    The attention is that of Bahdanau, Cho and Bengio, "Neural machine translation by jointly learning to align and
    translate", ICLR 2015. Several LSTMs of equal S and H go through the steps together: a step takes the time of
    its calls, not of its rows.

    Returns:
        of each part, s [R, S, H].
    """
    if use_plain("attention_lstm"):
        return [plain_attention_lstm(*part) for part in parts]
    rows = [len(part.keys) for part in parts]
    states: Tensor = AttentionLSTMs.apply(rows, *(each for part in parts for each in part))  # type: ignore[no-untyped-call]
    split: Sequence[Tensor] = states.split(rows)
    return split


def plain_attention_lstm(keys: Tensor, values: Tensor, score: Tensor, query: Tensor, recurrent: Tensor) -> Tensor:
    """Plain twin of :func:`attention_lstms`, of one part."""
    rows, steps, width = keys.shape
    state = cell = keys.new_zeros(rows, width)
    states = []
    for _ in range(steps):
        energy = torch.tanh(keys + F.linear(state, query)[:, None])
        attention = (energy @ score).softmax(dim=1)
        gates = torch.bmm(attention[:, None], values)[:, 0] + F.linear(state, recurrent)
        i, f, g, o = gates.chunk(4, dim=1)
        cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
        state = o.sigmoid() * cell.tanh()
        states.append(state)
    return torch.stack(states, dim=1)


class AttentionLSTMs(torch.autograd.Function):
    """See :func:`attention_lstms`; W and Q of a part are one matrix [5H, H], so that a state is multiplied once.

    Autograd would multiply out and add up the gradients of W, Q and v in every step; here each is one product over
    all steps. What is kept of every step is [S, R, ...], for the R rows of all parts.
    """

    @staticmethod
    def forward(ctx: Any, rows: list[int], *given: Tensor) -> Tensor:
        """Compute the states [R, S, H]."""
        keys, values = torch.cat(given[0::5]), torch.cat(given[1::5])
        joint = [torch.cat(pair) for pair in zip(given[4::5], given[3::5], strict=True)]
        vectors = _of_rows(given[2::5], rows)[:, None]
        R, S, H = keys.shape
        states, cells = keys.new_zeros(2, S + 1, R, H).unbind()
        squashed, gates = keys.new_empty(S, R, H), keys.new_empty(S, R, 4 * H)
        attentions, energies = keys.new_empty(S, R, 1, S), keys.new_empty(S, R, S, H)
        passed, scores = keys.new_empty(R, 1, 5 * H), keys.new_empty(R, 1, S)
        to_gates, asked = passed.split([4 * H, H], dim=2)
        products = [*zip(passed[:, 0].split(rows), [matrix.t() for matrix in joint], strict=True)]
        # Views of all steps at once: one at a time they take as long as the products.
        steps = zip(
            zip(*(part.unbind() for part in states[:-1].split(rows, dim=1)), strict=True),
            *(each.unbind() for each in (energies, energies.mT, attentions, gates[:, :, None], gates[..., : 2 * H])),
            *(each.unbind() for each in gates.chunk(4, dim=2)),
            *(each.unbind() for each in (cells[:-1], cells[1:], squashed, states[1:])),
            strict=True,
        )
        for before, energy, turned, attention, gate, i_and_f, i, f, g, o, cell, new_cell, tanh, state in steps:
            for each, (into, matrix) in zip(before, products, strict=True):
                torch.mm(each, matrix, out=into)
            torch.add(keys, asked, out=energy).tanh_()
            torch.softmax(torch.bmm(vectors, turned, out=scores), dim=2, out=attention)
            torch.baddbmm(to_gates, attention, values, out=gate)
            i_and_f.sigmoid_()
            g.tanh_()
            o.sigmoid_()
            torch.mul(i, g, out=new_cell).addcmul_(f, cell)
            torch.mul(o, torch.tanh(new_cell, out=tanh), out=state)
        ctx.rows = rows
        ctx.save_for_backward(*given, values, vectors, states, cells, energies, attentions, gates, squashed)
        return states[1:].transpose(0, 1).contiguous()

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        """Compute the gradients of what was given; d_x is the gradient of x."""
        (d_states,) = outer
        count = 5 * len(ctx.rows)
        given, kept = ctx.saved_tensors[:count], ctx.saved_tensors[count:]
        if torch.is_grad_enabled():  # a second derivative is wanted: by the plain twin
            again = torch.cat([plain_attention_lstm(*given[at : at + 5]) for at in range(0, count, 5)])
            wanted = [tensor for tensor in given if tensor.requires_grad]
            found = iter(torch.autograd.grad(again, wanted, d_states, create_graph=True))
            return None, *(next(found) if tensor.requires_grad else None for tensor in given)
        with torch.autocast(d_states.device.type, enabled=False):  # as in the forward pass
            return None, *_gradients(d_states, ctx.rows, given, kept)


def _of_rows(parameters: Sequence[Tensor], rows: Sequence[int]) -> Tensor:
    """[H] of each part as [R, H], each for its rows."""
    return torch.cat([each.expand(count, -1) for each, count in zip(parameters, rows, strict=True)])


def _gradients(
    d_states: Tensor, rows: list[int], given: tuple[Tensor, ...], kept: tuple[Tensor, ...]
) -> list[Tensor | None]:
    """Go through the steps backwards; what weights share is one product over all steps."""
    values, vectors, states, cells, energies, attentions, gates, squashed = kept
    weights = [*zip(given[4::5], given[3::5], strict=True)]
    R, S, H = d_states.shape
    i, f, g, o = gates.chunk(4, dim=2)
    # d_gates begin as slopes: of i, f and g in the step's cell, of o in its state.
    d_gates = torch.cat([g * i * (1 - i), cells[:-1] * f * (1 - f), i * (1 - g * g), squashed * o * (1 - o)], dim=2)
    cell_slopes = o * (1 - squashed * squashed)
    energy_slopes = torch.mul(energies, energies).neg_().add_(1).mul_(vectors)
    d_scores, d_asked = torch.empty_like(attentions), torch.empty_like(squashed)
    d_state, d_cell = d_states.new_zeros(2, R, H).unbind()
    turned, every_gate, into = values.mT, d_cell[:, None], d_state.split(rows)
    steps = zip(
        *(each.unbind() for each in (d_states.transpose(0, 1), d_gates[:, :, None], attentions, cell_slopes, f)),
        d_gates[..., : 3 * H].unflatten(2, (3, H)).unbind(),
        *(each.unbind() for each in (d_gates[..., 3 * H :], energy_slopes, d_scores, d_asked[:, :, None])),
        zip(*(part.unbind() for part in d_gates.split(rows, dim=1)), strict=True),
        zip(*(part.unbind() for part in d_asked.split(rows, dim=1)), strict=True),
        strict=True,
    )
    for outer, d_gate, attention, cell_slope, kept_cell, d_ifg, d_o, slope, d_score, d_ask, gate_parts, ask_parts in [
        *steps
    ][::-1]:
        d_state += outer
        d_cell.addcmul_(d_state, cell_slope)
        d_ifg.mul_(every_gate)
        d_o.mul_(d_state)
        d_attention = torch.bmm(d_gate, turned)
        # The softmax: α (d - Σ α d).
        d_attention.sub_(torch.linalg.vecdot(attention, d_attention)[..., None])
        torch.mul(attention, d_attention, out=d_score)
        torch.bmm(d_score, slope, out=d_ask)
        for place, to_gate, to_asked, (recurrent, query) in zip(into, gate_parts, ask_parts, weights, strict=True):
            torch.mm(to_gate, recurrent, out=place).addmm_(to_asked, query)
        d_cell *= kept_cell
    d_keys = energy_slopes.mul_(d_scores.mT).sum(dim=0).split(rows)
    d_values = torch.bmm(attentions[:, :, 0].permute(1, 2, 0), d_gates.transpose(0, 1)).split(rows)
    d_vectors = torch.bmm(d_scores.flatten(0, 1), energies.flatten(0, 1)).view(S, R, H).sum(dim=0).split(rows)
    found: list[Tensor | None] = []
    before = (part.flatten(0, 1) for part in states[:-1].split(rows, dim=1))
    asked = (part.flatten(0, 1).t() for part in d_asked.split(rows, dim=1))
    of_gates = (part.flatten(0, 1).t() for part in d_gates.split(rows, dim=1))
    for key, value, vector, state, ask, gate in zip(d_keys, d_values, d_vectors, before, asked, of_gates, strict=True):
        found += [key, value, vector.sum(dim=0), ask @ state, gate @ state]
    return found
