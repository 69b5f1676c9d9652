from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

from ifmmin.nn.imagination import Autoencoder, Cascade, InvariantImagination, ResidualImagination
from ifmmin.nn.initialisation import CascadeInit, initialise

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


def built(kind: type[Cascade], **options: Any) -> Cascade:
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


@pytest.mark.parametrize("cascaded", [True, False])
def test_the_form_that_was_first_released(inputs: tuple[torch.Tensor, torch.Tensor], cascaded: bool) -> None:
    module = built(InvariantImagination, form="accumulated", cascaded_input=cascaded)
    imagined, joint = module(*inputs)
    h, H = map(array, inputs)
    codes, out = [], h
    for position, block in enumerate(module.blocks, start=1):
        u = h + (position if cascaded else 1) * H
        out, code = phi(u, block)
        codes.append(code)
    np.testing.assert_allclose(array(imagined), chain(u + out, module.head, relu), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(array(joint), np.concatenate(codes, axis=1), rtol=1e-10, atol=1e-12)
    # What no output depends on is not trained, or several devices would wait for its gradient.
    (imagined.sum() + joint.sum()).backward()
    for name, parameter in module.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
    frozen = {name for name, parameter in module.named_parameters() if not parameter.requires_grad}
    decoders = {name for name in module.state_dict() if "decoder" in name}
    assert frozen == {name for name in decoders if f"blocks.{BLOCKS - 1}." not in name}


@pytest.mark.parametrize("cascaded", [True, False])
def test_the_form_whose_head_reads_what_the_last_block_reads_and_gives(
    inputs: tuple[torch.Tensor, torch.Tensor], cascaded: bool
) -> None:
    module = built(InvariantImagination, form="summed", cascaded_input=cascaded)
    imagined, joint = module(*inputs)
    x, H = map(array, inputs)
    codes = []
    for position, block in enumerate(module.blocks):
        u = x + H if cascaded or position == 0 else x
        x, code = phi(u, block)
        codes.append(code)
    np.testing.assert_allclose(array(imagined), chain(u + x, module.head, relu), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(array(joint), np.concatenate(codes, axis=1), rtol=1e-10, atol=1e-12)


def test_all_forms_have_the_same_parameters() -> None:
    chained, *others = (built(InvariantImagination, form=form) for form in ("chained", "accumulated", "summed"))
    for other in others:
        other.load_state_dict(chained.state_dict())


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


CASCADES: dict[str, tuple[type[Cascade], dict[str, Any]]] = {
    "MMIN": (ResidualImagination, {}),
    "IF-MMIN": (InvariantImagination, {}),
    "IF-MMIN, accumulated": (InvariantImagination, {"form": "accumulated"}),
}


def spreads(name: str, cascade_init: CascadeInit) -> list[float]:
    """Standard deviation of what each of five blocks of the published size reads, and then of what the head reads."""
    kind, options = CASCADES[name]
    torch.manual_seed(0)
    module, found = kind(384, **options), []
    initialise(module, cascade_init)
    for part in (*module.blocks, module.head):
        part.register_forward_pre_hook(lambda _, given: found.append(float(given[0].std())))
    h, H = 0.3 * torch.randn(64, 384), 0.1 * torch.randn(64, 384)
    with torch.no_grad():
        module(*((h,) if name == "MMIN" else (h, H)))
    return found


@pytest.mark.parametrize("name", CASCADES)
def test_scaled_keeps_the_scale_through_the_blocks(name: str) -> None:
    first, *others = spreads(name, "scaled")
    assert all(first / 2 < spread < 2 * first for spread in others)
    if name == "MMIN":
        assert others == pytest.approx([first] * 5)  # every block begins as the identity


def test_published_multiplies_variance_by_four_in_each_block() -> None:
    torch.manual_seed(0)
    ratios = []
    for _ in range(8):
        block = Autoencoder(384)
        initialise(block)
        given = torch.randn(256, 384)
        with torch.no_grad():
            ratios.append(float(block(given)[0].square().mean() / given.square().mean()))
    assert np.mean(ratios) == pytest.approx(4, rel=0.25)
    for name, growth in (("MMIN", 20), ("IF-MMIN", 10)):
        found = spreads(name, "published")
        assert found[-1] > growth * found[0]


@pytest.mark.parametrize("name", CASCADES)
def test_scaled_draws_the_numbers_of_published(name: str) -> None:
    kind, options = CASCADES[name]
    states, weights = [], []
    for cascade_init in get_args(CascadeInit):
        torch.manual_seed(0)
        module = kind(DIM, HIDDEN, BLOCKS, **options)
        initialise(module, cascade_init)
        states.append(torch.get_rng_state())
        weights.append(module.state_dict())
    assert torch.equal(*states)
    zero = {"MMIN": range(BLOCKS), "IF-MMIN": (), "IF-MMIN, accumulated": (BLOCKS - 1,)}[name]
    for key, published in weights[0].items():
        last = ("encoder.4.weight", "decoder.4.weight", "head.2.weight")
        factor = 0.5**0.5 if key.endswith(last) else 1.0
        factor = 0.0 if key in {f"blocks.{block}.decoder.4.weight" for block in zero} else factor
        torch.testing.assert_close(weights[1][key], factor * published)
