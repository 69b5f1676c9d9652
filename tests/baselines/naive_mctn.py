"""MCTN from its equations, apart from the code under test: one row, one step, one modality at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.mctn import MCTN
from baselines.mctn.networks import AttentionDecoder, TranslationEncoder
from tests.batches import FloatArray

STEPS = 20


def naive_pool(frames: FloatArray) -> Tensor:
    """[S, D] of frames [L, D]; PyTorch pools one whole sequence, so there is no padding to be wrong about."""
    return F.adaptive_avg_pool1d(torch.from_numpy(frames).T[None], STEPS)[0].T


def naive_cell(x: Tensor, h: Tensor, c: Tensor, weights: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    w_ih, w_hh, b_ih, b_hh = weights
    i, f, g, o = (w_ih @ x + b_ih + w_hh @ h + b_hh).chunk(4)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def layer_weights(rnn: nn.Module, suffix: str) -> tuple[Tensor, ...]:
    return tuple(getattr(rnn, f"{name}{suffix}") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))


def naive_lstm(steps: list[Tensor], weights: tuple[Tensor, ...]) -> list[Tensor]:
    h = c = torch.zeros(weights[1].shape[1])
    states = []
    for x in steps:
        h, c = naive_cell(x, h, c, weights)
        states.append(h)
    return states


def naive_encoder(encoder: TranslationEncoder, steps: list[Tensor]) -> list[Tensor]:
    forwards = naive_lstm(steps, layer_weights(encoder.rnn, "_l0"))
    backwards = naive_lstm(steps[::-1], layer_weights(encoder.rnn, "_l0_reverse"))[::-1]
    return [left + right for left, right in zip(forwards, backwards, strict=True)]


def naive_attention(decoder: AttentionDecoder, state: Tensor, encoded: list[Tensor]) -> list[float]:
    scores = []
    for h in encoded:
        inner = decoder.query.weight @ state + decoder.key.weight @ h + decoder.key.bias
        scores.append((decoder.score.weight[0] @ torch.tanh(inner)).item())
    exponents = np.exp(np.array(scores) - max(scores))
    return list(exponents / exponents.sum())


def naive_decoder(decoder: AttentionDecoder, encoded: list[Tensor]) -> list[Tensor]:
    state = memory = torch.zeros_like(encoded[0])
    weights = layer_weights(decoder.cell, "")
    states = []
    for _ in encoded:
        context = torch.zeros_like(encoded[0])
        for alpha, h in zip(naive_attention(decoder, state, encoded), encoded, strict=True):
            context = context + alpha * h
        state, memory = naive_cell(context, state, memory, weights)
        states.append(state)
    return states


def linear(layer: Any, steps: list[Tensor]) -> list[Tensor]:
    return [layer.weight @ step + layer.bias for step in steps]


def mse(decoded: list[Tensor], true: Tensor) -> float:
    squares: list[float] = [
        (ours - theirs) ** 2
        for row, want in zip(decoded, true, strict=True)
        for ours, theirs in zip(row.tolist(), want.tolist(), strict=True)
    ]
    return sum(squares) / len(squares)


def naive_logits(model: MCTN, second: list[Tensor]) -> Tensor:
    states = naive_lstm(second, layer_weights(model.pooling.rnn, "_l0"))
    attention, vector = model.pooling.attention, model.pooling.attention_vector
    scores = torch.stack([vector.weight[0] @ torch.tanh(attention.weight @ o + attention.bias) for o in states])
    pooled = sum((alpha * o for alpha, o in zip(scores.softmax(0), states, strict=True)), torch.zeros(len(states[0])))
    return model.classifier.weight @ pooled + model.classifier.bias


@torch.no_grad()
def naive_translations(
    model: MCTN, utterance: tuple[FloatArray, ...], present: npt.NDArray[np.bool_]
) -> dict[int, tuple[Tensor, Tensor]]:
    """By absent modality, the mean over steps of its translation and of its true steps, both projected."""
    projections = list(model.projections.values())
    pooled = [naive_pool(frames) for frames in utterance]
    sources = [linear(projections[m], list(pooled[m])) for m in range(3) if present[m]]
    encoded = naive_encoder(model.encoder, [torch.stack(parts).mean(dim=0) for parts in zip(*sources, strict=True)])
    levels = (model.decoder, encoded), (model.second_decoder, naive_encoder(model.second_encoder, encoded))
    start = int(np.flatnonzero(present)[0])
    targets = [m for m in ((start + 1) % 3, (start + 2) % 3) if not present[m]]
    found = {}
    for m, (decoder, states) in zip(targets, levels, strict=False):
        translated = linear(projections[m], linear(decoder.outputs[m], naive_decoder(decoder, states)))
        true = linear(projections[m], list(pooled[m]))
        found[m] = torch.stack(translated).mean(dim=0), torch.stack(true).mean(dim=0)
    return found


@torch.no_grad()
def naive_row(
    model: MCTN, utterance: tuple[FloatArray, ...], present: npt.NDArray[np.bool_], label: int
) -> dict[str, float]:
    """All four losses of one utterance, from the equations."""
    projections = list(model.projections.values())
    pooled = [naive_pool(frames) for frames in utterance]
    sources = [linear(projections[m], list(pooled[m])) for m in range(3) if present[m]]
    x_s = [torch.stack(parts).mean(dim=0) for parts in zip(*sources, strict=True)]
    encoded = naive_encoder(model.encoder, x_s)
    second = naive_encoder(model.second_encoder, encoded)
    logits = naive_logits(model, second)
    losses = {"cls": float(torch.logsumexp(logits, 0) - logits[label]), "translation": 0.0, "cycle": 0.0, "second": 0.0}
    start = int(np.flatnonzero(present)[0])
    targets = [m for m in ((start + 1) % 3, (start + 2) % 3) if not present[m]]
    if targets:
        first = targets[0]
        translated = linear(model.decoder.outputs[first], naive_decoder(model.decoder, encoded))
        losses["translation"] = mse(translated, pooled[first])
        back = naive_decoder(model.decoder, naive_encoder(model.encoder, linear(projections[first], translated)))
        available = [m for m in range(3) if present[m]]
        errors = [mse(linear(model.decoder.outputs[m], back), pooled[m]) for m in available]
        losses["cycle"] = sum(errors) / len(errors)
    if len(targets) == 2:
        third = naive_decoder(model.second_decoder, second)
        losses["second"] = mse(linear(model.second_decoder.outputs[targets[1]], third), pooled[targets[1]])
    return losses
