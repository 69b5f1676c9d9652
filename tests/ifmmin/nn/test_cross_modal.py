"""The crossmodal transformer against scalar loops in NumPy; its parity with published code is in test_mult.py."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch

from ifmmin.nn.cross_modal import CrossModalTransformer

Array = npt.NDArray[np.float64]
DIM, HEADS = 6, 2


def made(future_mask: bool = False) -> CrossModalTransformer:
    torch.manual_seed(0)
    transformer = CrossModalTransformer(DIM, HEADS, layers=2, future_mask=future_mask).double().eval()
    for parameter in transformer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return transformer


def naive(transformer: CrossModalTransformer, x: Array, context: Array | None) -> Array:
    """Of one row without padding: [T, d]."""
    weights = {name: value.numpy() for name, value in transformer.state_dict().items()}

    def embedded(frames: Array) -> Array:
        result: Array = np.sqrt(DIM) * frames
        for step in range(len(frames)):
            for place in range(DIM // 2):
                angle = (step + 1) * 10000.0 ** (-place / (DIM // 2 - 1))
                result[step, place] += np.sin(angle)
                result[step, DIM // 2 + place] += np.cos(angle)
        return result

    def norm(frames: Array, name: str) -> Array:
        centred = frames - frames.mean(axis=1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-5)
        return np.asarray(scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"])

    def linear(frames: Array, name: str) -> Array:
        return np.asarray(frames @ weights[f"{name}.weight"].T + weights[f"{name}.bias"])

    x = embedded(x)
    other = None if context is None else embedded(context)
    for layer in range(2):
        at = f"layers.{layer}"
        read = norm(x if other is None else other, f"{at}.norm")
        query = linear(norm(x, f"{at}.norm"), f"{at}.attention.project")[:, :DIM]
        key, value = np.split(linear(read, f"{at}.attention.project")[:, DIM:], 2, axis=1)
        mixed = np.zeros_like(x)
        width = DIM // HEADS
        for head in range(HEADS):
            part = slice(head * width, (head + 1) * width)
            for i in range(len(x)):
                seen = i + 1 + abs(len(x) - len(read)) if transformer.future_mask else len(read)
                scores = np.exp([query[i, part] @ key[j, part] / np.sqrt(width) for j in range(min(seen, len(read)))])
                mixed[i, part] = sum(s / scores.sum() * value[j, part] for j, s in enumerate(scores))
        x = x + linear(mixed, f"{at}.attention.output")
        hidden = np.maximum(0, linear(norm(x, f"{at}.norm_feedforward"), f"{at}.hidden"))
        x = x + linear(hidden, f"{at}.output")
    return norm(x, "norm")


@torch.no_grad()
@pytest.mark.parametrize("itself", [False, True])
@pytest.mark.parametrize("future_mask", [False, True])
def test_rows_of_any_lengths_are_as_each_alone(future_mask: bool, itself: bool) -> None:
    transformer, random = made(future_mask), np.random.default_rng(0)
    lengths, others = torch.tensor([5, 1, 3, 2]), torch.tensor([2, 4, 3, 1])
    x, context = torch.from_numpy(random.normal(size=(4, 7, DIM))), torch.from_numpy(random.normal(size=(4, 4, DIM)))
    if itself:
        found = transformer(x, lengths=lengths)
        last = transformer(x, lengths=lengths, last=True)
    else:
        found = transformer(x, context, lengths, others)
        last = transformer(x, context, lengths, others, last=True)
    for row, (T, C) in enumerate(zip(lengths.tolist(), others.tolist(), strict=True)):
        expected = naive(transformer, x[row, :T].numpy(), None if itself else context[row, :C].numpy())
        np.testing.assert_allclose(found[row, :T].numpy(), expected, atol=1e-12)
        np.testing.assert_allclose(last[row].numpy(), expected[-1], atol=1e-12)


@torch.no_grad()
@pytest.mark.parametrize("future_mask", [False, True])
def test_without_lengths_every_step_is_a_true_one(future_mask: bool) -> None:
    transformer = made(future_mask)
    x, context = torch.randn(2, 3, DIM).double(), torch.randn(2, 5, DIM).double()
    expected = naive(transformer, x[1].numpy(), context[1].numpy())
    np.testing.assert_allclose(transformer(x, context)[1].numpy(), expected, atol=1e-12)
    np.testing.assert_allclose(transformer(x, context, last=True)[1].numpy(), expected[-1], atol=1e-12)


def test_dropout_changes_training_alone() -> None:
    transformer, x = made(), torch.randn(2, 3, DIM).double()
    assert torch.equal(transformer(x), transformer(x))
    assert not torch.equal(transformer.train()(x), transformer(x))
