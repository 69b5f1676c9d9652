"""Attention over long sequences: in blocks, as PyTorch's own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ifmmin.nn import attention
from ifmmin.nn.attention import BlockAttention, packed_layer


@pytest.fixture(autouse=True)
def short_is_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sequences above 4 frames are attended to in blocks of 3 or fewer queries."""
    monkeypatch.setattr(attention, "LONG", 4)
    monkeypatch.setattr(attention, "BLOCK", 20)


@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("lengths", [[5], [25], [2, 3, 3, 4, 5, 9, 13]])
def test_blocks_give_what_pytorch_gives(lengths: list[int], dtype: torch.dtype, close: float) -> None:
    torch.manual_seed(0)
    layer = torch.nn.TransformerEncoderLayer(8, 2, 12, dropout=0.5, batch_first=True).to(dtype).eval()
    frames = torch.randn(sum(lengths), 8, dtype=dtype, requires_grad=True)
    padding = torch.arange(max(lengths)) >= torch.tensor(lengths)[:, None]
    reference = layer(pad_sequence(frames.split(lengths), batch_first=True), src_key_padding_mask=padding)[~padding]
    ours = packed_layer(layer, frames, torch.tensor(lengths), together=2)
    direction = torch.randn_like(ours)
    results = [torch.autograd.grad(states, [frames, *layer.parameters()], direction) for states in (ours, reference)]
    for mine, theirs in zip([ours, *results[0]], [reference, *results[1]], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=close, atol=close)


@pytest.mark.parametrize("probability", [0.0, 0.4])
def test_the_gradient_is_that_of_finite_differences(probability: float) -> None:
    torch.manual_seed(0)
    parts = [torch.randn(2, 7, 3, dtype=torch.float64, requires_grad=True) for _ in range(3)]

    def attended(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        torch.manual_seed(1)  # the same weights are dropped each time
        context: Tensor = BlockAttention.apply(query, key, value, probability)  # type: ignore[no-untyped-call]
        return context

    assert torch.autograd.gradcheck(attended, parts)


def test_dropout_drops_its_share_of_the_weights() -> None:
    torch.manual_seed(0)
    values = torch.eye(50, dtype=torch.float64)[None]
    weights: Tensor = BlockAttention.apply(torch.zeros(1, 50, 50).double(), values, values, 0.3)  # type: ignore[no-untyped-call]
    assert set(weights.mul(50 * 0.7).round(decimals=9).unique().tolist()) == {0.0, 1.0}
    assert float((weights == 0).double().mean()) == pytest.approx(0.3, abs=0.03)


PROGRAM = """
import resource, torch
from ifmmin.nn.attention import packed_layer
layer = torch.nn.TransformerEncoderLayer(128, 4, 256, batch_first=True)
frames = torch.randn(5000, 128, requires_grad=True)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
packed_layer(layer, frames, torch.tensor([5000])).sum().backward()
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e6)
"""


@pytest.mark.slow
def test_five_thousand_frames_take_no_square_of_them() -> None:
    """All weights would be 0.4 GB, and their gradient as much again."""
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=root, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 0.3
