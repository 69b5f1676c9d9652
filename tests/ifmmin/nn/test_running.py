from __future__ import annotations

import pytest
import torch

from ifmmin.nn.encoders import LSTMEncoder, SequenceEncoder, TextCNN

ENCODERS: dict[str, SequenceEncoder] = {
    "maximum": LSTMEncoder(3, 4),
    "last": LSTMEncoder(3, 4, "last"),
    "attention": LSTMEncoder(3, 4, "attention"),
    "convolutions": TextCNN(3, 4, channels=5),
    "convolutions of other widths": TextCNN(3, 4, channels=5, widths=(1, 4, 2)),
}


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("chunks", [[1], [3], [4, 1], [1, 1, 1, 1, 1, 1], [6, 1, 9], [2, 5], [1, 40, 3]])
@torch.no_grad()
def test_the_pool_after_each_chunk_is_that_of_the_whole(name: str, chunks: list[int]) -> None:
    torch.manual_seed(0)
    encoder = ENCODERS[name].double()
    frames = 3 * torch.randn(sum(chunks), 3, dtype=torch.float64)
    running = encoder.running()
    assert running is not None
    seen = 0
    for chunk in chunks:
        running.push(frames[seen : seen + chunk])
        seen += chunk
        whole = encoder.pool(frames[None, :seen], torch.tensor([seen]))
        torch.testing.assert_close(running.pooled(), whole, rtol=1e-12, atol=1e-12)


@torch.no_grad()
def test_attention_with_large_scores_does_not_overflow() -> None:
    encoder = LSTMEncoder(3, 4, "attention")
    encoder.attention_vector.weight.fill_(500.0)
    encoder.attention.weight.mul_(100.0)
    frames = torch.randn(30, 3, generator=torch.Generator().manual_seed(0))
    running = encoder.running()
    for frame in frames:
        running.push(frame[None])
    torch.testing.assert_close(running.pooled(), encoder.pool(frames[None], torch.tensor([30])))


@torch.no_grad()
def test_memory_does_not_grow_with_the_frames() -> None:
    encoder = TextCNN(3, 4, channels=5)
    running = encoder.running()
    for _ in range(50):
        running.push(torch.randn(100, 3))
        held = [each for each in vars(running).values() if isinstance(each, torch.Tensor)]
        assert sum(tensor.untyped_storage().nbytes() for tensor in held) <= 4 * 4 * 3
