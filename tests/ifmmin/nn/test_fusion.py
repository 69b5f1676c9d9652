"""Tensor and low-rank fusion against loops over their terms, and the published values."""

from __future__ import annotations

from itertools import product
from math import prod

import numpy as np
import pytest
import torch
from torch import Tensor

from datamodules.conditions import CONDITIONS, present_under
from ifmmin.checkpoints.parts import load_part
from ifmmin.nn.fusion import LowRankFusion, PolynomialPooling, tensor_product
from tests.systems import State, below, close, load_system

GOLDEN = load_system("tfn_lmf")
NAMES = ("audio", "visual", "text")
DIMS = (3, 2, 4)


def embeddings(rows: int = 5, dims: tuple[int, ...] = DIMS) -> list[Tensor]:
    rng = np.random.default_rng(0)
    return [torch.from_numpy(rng.standard_normal((rows, dim))) for dim in dims]


def published(part: str, prefix: str = "out") -> list[Tensor]:
    """h of audio, visual and text; under ``corrected`` zeros where a modality is absent."""
    h = [GOLDEN[f"out/{part}/h_{name}"] for name in ("audio", "visual", "text")]
    if prefix == "out":
        return h
    return [each * column[:, None] for each, column in zip(h, GOLDEN["in/present_audio_visual_text"].T, strict=True)]


@pytest.mark.parametrize(
    ("prefix", "key"), [("out", "out/tfn/tensor"), ("corrected", "corrected/tfn/tensor_absent_is_1_0_0")]
)
def test_tensor_product_of_the_published_code(prefix: str, key: str) -> None:
    close(tensor_product(published("tfn", prefix)), GOLDEN[key])


@pytest.mark.parametrize(
    ("prefix", "key"), [("out", "out/lmf/output"), ("corrected", "corrected/lmf/output_absent_is_1_0_0")]
)
@torch.no_grad()
def test_low_rank_fusion_of_the_published_code(prefix: str, key: str) -> None:
    parameters = below(GOLDEN, "param_lmf/")
    fusion = LowRankFusion((3, 2, 3), output_dim=3, rank=4).double()
    state = {f"factors.{m}": parameters[f"{name}_factor"] for m, name in enumerate(("audio", "video", "text"))}
    state |= {"weights": parameters["fusion_weights"][0], "bias": parameters["fusion_bias"][0]}
    load_part(fusion, state, "fusion")
    close(fusion(published("lmf", prefix)), GOLDEN[key])


@pytest.mark.parametrize("condition", CONDITIONS)
def test_an_absent_modality_leaves_out_exactly_the_terms_with_it(condition: str) -> None:
    """The tensor has the sub-tensors of what is present, term by term, and zeros elsewhere."""
    present, h = present_under(condition), embeddings()
    shape = [1 + dim for dim in DIMS]
    fused = tensor_product([each * there for each, there in zip(h, present, strict=True)]).unflatten(1, shape)
    terms = 0
    for index in product(*map(range, shape)):
        # Index 0 of a modality is its 1: the term does not read it.
        read = [m for m in range(3) if index[m]]
        for row in range(5):
            expected = prod(h[m][row, index[m] - 1].item() for m in read) if all(present[m] for m in read) else 0.0
            assert fused[row][index].item() == pytest.approx(expected, abs=1e-12)
        terms += all(present[m] for m in read)
    assert terms == prod(1 + dim * there for dim, there in zip(DIMS, present, strict=True))


@pytest.mark.parametrize("condition", CONDITIONS)
@torch.no_grad()
def test_low_rank_fusion_is_a_linear_function_of_the_tensor(condition: str) -> None:
    torch.manual_seed(0)
    fusion, h = LowRankFusion(DIMS, output_dim=2, rank=3).double(), embeddings()
    fusion.bias.copy_(torch.tensor([0.3, -1.0]))
    h = [each * there for each, there in zip(h, present_under(condition), strict=True)]
    a, v, t = fusion.factors
    weight = torch.einsum("r,rio,rjo,rko->oijk", fusion.weights, a, v, t)
    torch.testing.assert_close(fusion(h), tensor_product(h) @ weight.flatten(1).T + fusion.bias)


def test_the_product_of_one_and_of_two() -> None:
    one, two = embeddings(dims=(2, 3))
    np.testing.assert_array_equal(tensor_product([one]), np.insert(one.numpy(), 0, 1.0, axis=1))
    expected = [
        np.outer([1, *first], [1, *second]).ravel() for first, second in zip(one.numpy(), two.numpy(), strict=True)
    ]
    np.testing.assert_allclose(tensor_product([one, two]), expected)


def defined(golden: State) -> list[Tensor]:
    """h of audio, visual and text, zeros where a modality is absent."""
    return [golden[f"in/{name}"] * golden["in/present"][:, m, None] for m, name in enumerate(NAMES)]


@torch.no_grad()
def test_low_rank_fusion_of_our_definition() -> None:
    golden = load_system("low_rank_fusion", "papers")
    fusion = LowRankFusion(DIMS, output_dim=3, rank=2).double()
    state = {f"factors.{m}": golden[f"in/{name}_factor"] for m, name in enumerate(NAMES)}
    load_part(fusion, state | {"weights": golden["in/rank_weight"], "bias": golden["in/bias"]}, "fusion")
    close(fusion(defined(golden)), golden["out/fused"])
    close(fusion(defined(golden)), golden["out/fused_by_full_tensor"])
    pair = LowRankFusion((DIMS[2], DIMS[0]), output_dim=3, rank=2).double()
    state = {"factors.0": state["factors.2"], "factors.1": state["factors.0"]}
    load_part(pair, state | {"weights": golden["in/rank_weight"], "bias": golden["in/bias"]}, "pair")
    audio, _, text = defined(golden)
    close(pair([text, audio]), golden["out/text_audio"])


@torch.no_grad()
def test_polynomial_pooling_of_our_definition() -> None:
    golden = load_system("polynomial_pooling", "papers")
    pooling = PolynomialPooling(sum(DIMS), output_dim=3, rank=2).double()
    state = {"factors": golden["in/factor"], "weights": golden["in/rank_weight"], "bias": golden["in/bias"]}
    load_part(pooling, state, "pooling")
    z = torch.cat(defined(golden), dim=1)
    close(pooling(z), golden["out/fused"])
    f = torch.cat([torch.ones(6, 1).double(), z], dim=1)
    close(torch.einsum("bi,bj,ijo->bo", f, f, golden["out/full_tensor"]) + golden["in/bias"], pooling(z))


@pytest.mark.parametrize("order", [1, 2, 3])
@torch.no_grad()
def test_polynomial_pooling_without_the_1_is_homogeneous(order: int) -> None:
    torch.manual_seed(0)
    pooling, z = PolynomialPooling(4, output_dim=3, rank=2, order=order).double(), torch.randn(5, 4).double()
    pooling.bias.normal_()
    whole = pooling(2 * z) - pooling.bias
    assert float((whole - 2**order * (pooling(z) - pooling.bias)).abs().max()) > 0.1
    pooling.factors[..., 0] = 0.0
    close(pooling(2 * z) - pooling.bias, 2**order * (pooling(z) - pooling.bias))
