from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from ifmmin.nn.kernels import winning_window
from ifmmin.nn.kernels.winning_window import winning_responses


def plain(frames: Tensor, convolution: nn.Conv1d, padding: Tensor | None) -> Tensor:
    """The definition, with PyTorch's own gradients."""
    windows: Tensor = convolution(frames.transpose(1, 2))
    if padding is not None:
        windows = windows.masked_fill(padding[:, None], -torch.inf)
    return windows.max(dim=2).values


def case(width: int, lengths: list[int] | None) -> tuple[Tensor, nn.Conv1d, Tensor | None]:
    torch.manual_seed(width)
    frames = torch.randn(6, 9, 4, dtype=torch.float64, requires_grad=True)
    convolution = nn.Conv1d(4, 5, width).double()
    windows = torch.arange(9 - width + 1)
    padding = None if lengths is None else windows > torch.tensor(lengths)[:, None] - width
    return frames, convolution, padding


@pytest.mark.parametrize("width", [1, 3, 5, 9])
@pytest.mark.parametrize("lengths", [None, [9, 9, 9, 9, 9, 9]])
def test_values_and_gradients_are_those_of_the_definition(width: int, lengths: list[int] | None) -> None:
    compare(*case(width, lengths))


@pytest.mark.parametrize("width", [1, 3, 5])
def test_windows_that_reach_into_padding_do_not_count(width: int) -> None:
    compare(*case(width, [5, 9, 6, 5, 8, 7]))


def test_wide_frames_are_summed_in_blocks_of_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(winning_window, "NEAR_CACHE", 1)
    torch.manual_seed(0)
    compare(torch.randn(6, 9, 150, dtype=torch.float64, requires_grad=True), nn.Conv1d(150, 5, 3).double(), None)


def test_convolutions_side_by_side() -> None:
    torch.manual_seed(0)
    frames = torch.randn(6, 9, 4, dtype=torch.float64, requires_grad=True)
    convolutions = [nn.Conv1d(4, channels, width).double() for width, channels in ((3, 5), (1, 2), (4, 7))]
    outside = torch.arange(6) >= torch.tensor([2, 6, 3, 2, 5, 4])[:, None]
    paddings = [None, None, outside]
    ours = winning_responses(frames, convolutions, paddings)
    expected = torch.cat([plain(frames, *each) for each in zip(convolutions, paddings, strict=True)], dim=1)
    check(ours, expected, [frames, *(parameter for each in convolutions for parameter in each.parameters())])


def compare(frames: Tensor, convolution: nn.Conv1d, padding: Tensor | None) -> None:
    ours, expected = winning_responses(frames, [convolution], [padding]), plain(frames, convolution, padding)
    check(ours, expected, [frames, *convolution.parameters()])


def check(ours: Tensor, expected: Tensor, inputs: list[Tensor]) -> None:
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)
    arriving = torch.randn_like(ours)
    gradients = zip(
        torch.autograd.grad(ours, inputs, arriving), torch.autograd.grad(expected, inputs, arriving), strict=True
    )
    for mine, theirs in gradients:
        assert theirs.any()
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)


def test_in_bfloat16_under_autocast() -> None:
    """Small whole numbers: bfloat16 holds their sums exactly, so the same windows win."""
    frames, convolution, padding = case(3, [5, 9, 6, 5, 8, 7])
    frames = frames.detach().float().mul(2).round()
    convolution.float()
    with torch.no_grad():
        for parameter in convolution.parameters():
            parameter.copy_(torch.randint(-4, 5, parameter.shape))
    with torch.autocast("cpu", torch.bfloat16):
        ours = winning_responses(frames.bfloat16(), [convolution], [padding])
    assert ours.dtype == torch.bfloat16
    expected = plain(frames, convolution, padding)
    assert torch.equal(ours.float(), expected)
    ours.sum().backward()
    for parameter, theirs in zip(
        convolution.parameters(), torch.autograd.grad(expected.sum(), list(convolution.parameters())), strict=True
    ):
        assert parameter.grad is not None and parameter.grad.dtype == torch.float32
        assert torch.equal(parameter.grad, theirs)


@torch.no_grad()
@pytest.mark.parametrize("width", [1, 3, 9])
@pytest.mark.parametrize("row", range(6))
def test_one_sequence_without_gradients(width: int, row: int) -> None:
    frames, convolution, padding = case(width, [9, 9, 9, 9, 9, 9] if width == 9 else [5, 9, 6, 5, 8, 7])
    assert padding is not None
    alone = slice(row, row + 1)
    for mask in (None, padding[alone]):
        ours = winning_responses(frames[alone], [convolution], [mask])
        torch.testing.assert_close(ours, plain(frames[alone], convolution, mask), rtol=1e-12, atol=1e-12)


def test_second_derivatives() -> None:
    frames, convolution, padding = case(3, [5, 9, 6, 5, 8, 7])
    function = partial(respond, convolution, padding)
    assert torch.autograd.gradgradcheck(function, [frames, *convolution.parameters()])


def respond(convolution: nn.Conv1d, padding: Tensor | None, frames: Tensor, *_: Tensor) -> Tensor:
    return winning_responses(frames, [convolution], [padding])


def test_transforms_take_the_plain_twin() -> None:
    frames, convolution, padding = case(3, [5, 9, 6, 5, 8, 7])

    def loss(frames: Tensor) -> Tensor:
        return winning_responses(frames, [convolution], [padding]).square().sum()

    (expected,) = torch.autograd.grad(loss(frames), frames)
    torch.testing.assert_close(torch.func.grad(loss)(frames.detach()), expected)
    whole = winning_responses(frames, [convolution], [None])
    each = torch.func.vmap(lambda one: winning_responses(one[None], [convolution], [None])[0])(frames)
    torch.testing.assert_close(each, whole)
