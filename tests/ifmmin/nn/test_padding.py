"""Shapes and lengths that an encoder is handed directly."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from baselines.cm_arr.networks import GaussianEncoder
from datamodules.errors import InputError
from ifmmin.nn.encoders import LSTMEncoder, TextCNN

ENCODERS = [LSTMEncoder(5, 4), LSTMEncoder(5, 4, "attention"), TextCNN(5, 4, 3).eval(), GaussianEncoder(5, 4, 2, 4, 0)]


@pytest.mark.parametrize("encoder", ENCODERS, ids=lambda encoder: type(encoder).__name__)
def test_without_lengths_nothing_is_padding(encoder: torch.nn.Module) -> None:
    frames = torch.randn(3, 7, 5)
    whole, given = encoder(frames), encoder(frames, torch.full((3,), 7))
    for ours, theirs in zip(whole, given, strict=True):
        assert torch.equal(ours, theirs)


REFUSED = [
    (torch.zeros(7, 5), None, "frames [7, 5]: give [K, T, 5]; of one sequence frames[None]."),
    (torch.zeros(5), None, "frames [5]: give [K, T, 5]."),
    (torch.zeros(2, 7, 4), None, "frames [2, 7, 4]: give [K, T, 5]."),
    (torch.zeros(2, 0, 5), None, "frames [2, 0, 5]: give [K, T, 5]."),
    (torch.zeros(1, 2, 7, 5), None, "frames [1, 2, 7, 5]: give [K, T, 5]."),
    (torch.zeros(2, 7, 5), torch.tensor([7]), "lengths [1]: give a whole number of frames for each of 2 sequences."),
    (torch.zeros(2, 7, 5), torch.tensor(7), "lengths []: give a whole number of frames for each of 2 sequences."),
    (torch.zeros(2, 7, 5), torch.tensor([7.0, 2.0]), "lengths [2]: give a whole number of frames for each of 2"),
    (torch.zeros(2, 7, 5), torch.tensor([0, 7]), "lengths from 0 to 7: each must be from 1 to 7."),
    (torch.zeros(2, 7, 5), torch.tensor([3, 8]), "lengths from 3 to 8: each must be from 1 to 7."),
]


@pytest.mark.parametrize(("frames", "lengths", "expected"), REFUSED)
@pytest.mark.parametrize("encoder", ENCODERS, ids=lambda encoder: type(encoder).__name__)
def test_other_shapes_are_refused(
    encoder: torch.nn.Module, frames: Tensor, lengths: Tensor | None, expected: str
) -> None:
    with pytest.raises(InputError) as refused:
        encoder(frames, lengths)
    assert str(refused.value).startswith(expected)
