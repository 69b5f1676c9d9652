from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

from ifmmin.nn.imagination import Autoencoder, Cascade, InvariantImagination, ResidualImagination

FloatArray = npt.NDArray[np.float64]

DIM, HIDDEN, BLOCKS, SIZE = 7, [6, 5, 3], 4, 8


def array(tensor: torch.Tensor) -> FloatArray:
    return tensor.detach().numpy()


def relu(x: FloatArray) -> FloatArray:
    return np.maximum(x, 0)


def leaky_relu(x: FloatArray) -> FloatArray:
    return np.where(x > 0, x, 0.01 * x)


def chain(x: FloatArray, part: nn.Module, activation: Callable[[FloatArray], FloatArray]) -> FloatArray:
    """The linear layers of ``part`` in order, with an activation between but not after them."""
    layers = [layer for layer in part.modules() if isinstance(layer, nn.Linear)]
    for position, layer in enumerate(layers):
        x = (activation(x) if position else x) @ array(layer.weight).T + array(layer.bias)
    return x


def phi(x: FloatArray, block: nn.Module) -> tuple[FloatArray, FloatArray]:
    assert isinstance(block, Autoencoder)
    code = chain(x, block.encoder, leaky_relu)
    return chain(code, block.decoder, relu), code


@pytest.fixture
def inputs() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    h, H = (torch.randn(SIZE, DIM, dtype=torch.float64, generator=generator) for _ in range(2))
    return h, H


def built(kind: type[Cascade], **options: bool) -> Cascade:
    torch.manual_seed(1)
    return kind(DIM, HIDDEN, BLOCKS, **options).double()


def test_an_autoencoder_goes_down_to_its_code_and_back(inputs: tuple[torch.Tensor, torch.Tensor]) -> None:
    block = Autoencoder(DIM, HIDDEN).double()
    widths = [(layer.in_features, layer.out_features) for layer in block.modules() if isinstance(layer, nn.Linear)]
    assert widths == [(7, 6), (6, 5), (5, 3), (3, 5), (5, 6), (6, 7)]
    for ours, naive in zip(block(inputs[0]), phi(array(inputs[0]), block), strict=True):
        np.testing.assert_allclose(array(ours), naive, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("cascaded", [True, False])
def test_invariant_imagination(inputs: tuple[torch.Tensor, torch.Tensor], cascaded: bool) -> None:
    module = built(InvariantImagination, cascaded_input=cascaded)
    imagined, joint = module(*inputs)
    h, H = map(array, inputs)
    first, *others = module.blocks
    z, code = phi(h + H, first)
    codes = [code]
    for block in others:
        z, code = phi(z + H, block) if cascaded else phi(z, block)
        codes.append(code)
    np.testing.assert_allclose(array(imagined), chain(z, module.head, relu), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(array(joint), np.concatenate(codes, axis=1), rtol=1e-10, atol=1e-12)
    assert joint.shape == (SIZE, module.joint_dim)


def test_residual_imagination(inputs: tuple[torch.Tensor, torch.Tensor]) -> None:
    module = built(ResidualImagination)
    imagined, joint = module(inputs[0])
    z, codes = array(inputs[0]), []
    for block in module.blocks:
        change, code = phi(z, block)
        z = z + change
        codes.append(code)
    np.testing.assert_allclose(array(imagined), chain(z, module.head, relu), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(array(joint), np.concatenate(codes, axis=1), rtol=1e-10, atol=1e-12)


def test_the_ablation_is_another_function(inputs: tuple[torch.Tensor, torch.Tensor]) -> None:
    whole, ablated = (built(InvariantImagination, cascaded_input=given)(*inputs)[1] for given in (True, False))
    width = HIDDEN[-1]
    assert torch.equal(whole[:, :width], ablated[:, :width])  # φ₁ reads h + H' in both
    assert not torch.isclose(whole[:, width:], ablated[:, width:]).any()


def test_the_published_size() -> None:
    module = InvariantImagination(384)
    assert len(module.blocks) == 5
    assert module.joint_dim == 320
    first = module.blocks[0]
    assert isinstance(first, Autoencoder)
    assert [layer.out_features for layer in first.modules() if isinstance(layer, nn.Linear)] == [
        256,
        128,
        64,
        128,
        256,
        384,
    ]
