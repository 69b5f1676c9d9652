"""MIB's parity with its published code (tests/data/systems/mib.npz, float64), and its own parts.

The golden x_m take the place of our encoders' embeddings, and the golden noise that of the draws.
"""

from __future__ import annotations

import csv
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence
from torch.nn import functional as F

from baselines.mib import MIB, Bottleneck, FusionForm, TensorFusion, Variant
from datamodules.conditions import CONDITIONS
from ifmmin.checkpoints.parts import load_part
from ifmmin.nn.cross_modal import CrossModalTransformer
from ifmmin.nn.gaussians import Gaussian
from ifmmin.tasks import Regression
from ifmmin.testing import check_model
from tests.baselines.test_mult import transformer_state
from tests.batches import CLASSES, DIMS, random_batch
from tests.cli.running import SMALL as SMALL_CORPUS
from tests.cli.running import fit
from tests.systems import State, below, close, load_system

GOLDEN = load_system("mib")
PARAMETERS = below(GOLDEN, "param/")
SHORT = {"audio": "a", "visual": "v", "text": "l"}
PUBLISHED: dict[Variant, str] = {"complete": "cmib", "late": "lmib", "early": "emib"}
SMALL: dict[str, Any] = {"embedding_dim": 6, "bottleneck_dim": 12, "text_channels": 4}
BETA = float(GOLDEN["const/beta"])


def linear(name: str) -> State:
    return {kind: PARAMETERS[f"{name}.{kind}"] for kind in ("weight", "bias")}


def load_bottleneck(made: nn.Module, ending: str) -> None:
    assert isinstance(made, Bottleneck)
    made.hidden.load_state_dict(linear(f"encoder{ending}.0"))
    both = [linear(f"fc_{kind}{ending}") for kind in ("mu", "std")]
    made.code.linear.load_state_dict({kind: torch.cat([part[kind] for part in both]) for kind in ("weight", "bias")})


def published(variant: Variant, fusion: FusionForm = "concat") -> MIB:
    """A model with the published weights; its own encoders are not used."""
    model = MIB(feature_dims=list(DIMS), task=Regression().spec(), variant=variant, fusion=fusion, **SMALL).double()
    for name, short in SHORT.items():
        if hasattr(model, "bottlenecks"):
            load_bottleneck(model.bottlenecks[name], f"_{short}")
        if variant != "early":
            model.decoders[name].load_state_dict(linear(f"decoder_{short}"))
    if hasattr(model, "bottleneck"):
        load_bottleneck(model.bottleneck, "")
    if fusion == "concat":
        text, audio, visual = PARAMETERS["fusion1.linear_1.weight"].split(6, dim=1)
        bias = PARAMETERS["fusion1.linear_1.bias"]
        model.fusion.load_state_dict({"linear.weight": torch.cat([audio, visual, text], dim=1), "linear.bias": bias})
    model.decoder.load_state_dict(linear("decoder"))
    return model.eval()


def codes(model: MIB) -> Gaussian:
    """What the model would read of the golden x_m, [4, 3, 6]."""
    x = [GOLDEN[f"in/x_{short}"] for short in SHORT.values()]
    if not hasattr(model, "bottlenecks"):
        return Gaussian(torch.stack(x, dim=1), torch.zeros(4, 3, 6).double())
    found = [model.bottlenecks[name](each) for name, each in zip(SHORT, x, strict=True)]
    return Gaussian(*(torch.stack(parts, dim=1) for parts in zip(*found, strict=True)))


@pytest.fixture
def given_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = torch.stack([GOLDEN[f"in/eps_{short}"] for short in SHORT.values()], dim=1)
    monkeypatch.setattr(torch, "randn_like", lambda like: noise if like.dim() == 3 else GOLDEN["in/eps_z"])


@pytest.mark.parametrize("variant", get_args(Variant))
@pytest.mark.usefixtures("given_noise")
@torch.no_grad()
def test_codes_and_answers(variant: Variant) -> None:
    model, name = published(variant), PUBLISHED[variant]
    means = model.fuse(codes(model), torch.ones(4, 3, dtype=torch.bool))
    close(means.outputs, GOLDEN[f"corrected/{name}/prediction_with_means"])
    fused = model.train().fuse(codes(model), torch.ones(4, 3, dtype=torch.bool))
    close(fused.outputs, GOLDEN[f"out/{name}/prediction"])
    read = codes(model)
    for m, short in enumerate(SHORT.values()):
        if variant != "early":
            close(read.mean[:, m], GOLDEN[f"out/{name}/mu_{short}"])
            close(read.std[:, m], GOLDEN[f"out/{name}/sigma_{short}"])
    if variant == "late":
        assert fused.code is None
    else:
        assert fused.code is not None
        close(fused.code.mean, GOLDEN[f"out/{name}/mu_z"])
        close(fused.code.std, GOLDEN[f"out/{name}/sigma_z"])


@pytest.mark.parametrize("variant", get_args(Variant))
@pytest.mark.usefixtures("given_noise")
@torch.no_grad()
def test_losses(variant: Variant, monkeypatch: pytest.MonkeyPatch) -> None:
    model, name = published(variant), PUBLISHED[variant]
    monkeypatch.setattr(model, "read", lambda batch: codes(model))
    batch = replace(random_batch(4), labels=GOLDEN["in/labels"])
    losses = model.train().losses(batch.unmasked())
    if variant != "early":
        alone = [GOLDEN[f"loss/unimodal_{short}"] for short in SHORT.values()]
        close(losses["alone"] + BETA * losses["kl_alone"], torch.stack(alone).sum())
    assert model.loss_weights == {"cls": 2.0, "kl": BETA, "kl_alone": BETA}
    close(model.total_loss(losses), GOLDEN[f"loss/{name}/total"])
    close(model.total_loss(losses) - losses["cls"], GOLDEN[f"loss/{name}/inside_fusion"])


@torch.no_grad()
def test_tensor_fusion() -> None:
    fusion = TensorFusion(4, 5).double()
    names = {"first": "post_fusion_layer_1", "second": "post_fusion_layer_2", "last": "post_fusion_layer_3"}
    state = {
        f"{ours}.{kind}": GOLDEN[f"param_fusion_tensor/{theirs}.{kind}"]
        for ours, theirs in names.items()
        for kind in ("weight", "bias")
    }
    fusion.load_state_dict(state)
    x = torch.stack([GOLDEN[f"in/x_{short}"][:, :4] for short in SHORT.values()], dim=1)
    close(fusion(x), GOLDEN["out/fusion_tensor"])


@pytest.mark.parametrize("variant", get_args(Variant))
@torch.no_grad()
def test_a_product_of_experts_is_z(variant: Variant) -> None:
    model, present = published(variant, "poe"), GOLDEN["in/present_audio_visual_text"]
    fused = model.fuse(codes(model), present)
    assert fused.code is not None
    close(fused.code.mean, GOLDEN["corrected/poe_mu"])
    close(fused.code.std.square(), GOLDEN["corrected/poe_variance"])
    weight, bias = linear("decoder").values()
    close(fused.outputs, GOLDEN["corrected/poe_mu"] @ weight.T + bias)


@torch.no_grad()
def test_published_encoder_is_a_convolution_and_a_transformer_as_in_mult() -> None:
    """Our x_m are of other encoders; this is what theirs are made of."""
    parameters = below(GOLDEN, "param_encoder/")
    convolved = F.conv1d(GOLDEN["in/frames"].transpose(1, 2), parameters["proj_a.weight"], padding=1).transpose(1, 2)
    close(convolved.transpose(0, 1), GOLDEN["out/conv"])
    heads, layers = (int(GOLDEN[f"const/{name}"]) for name in ("heads", "layers"))
    transformer = CrossModalTransformer(8, heads, layers).double().eval()
    load_part(transformer, transformer_state(parameters, "transa"), "transa")
    close(transformer(convolved).transpose(0, 1), GOLDEN["out/transformer"])


def made(**options: Any) -> MIB:
    torch.manual_seed(0)
    return MIB(feature_dims=list(DIMS), class_names=CLASSES, **(SMALL | options)).double().eval()


def test_losses_over_the_rows_that_have_a_modality_row_by_row() -> None:
    model, batch = made(variant="complete"), random_batch(7)
    losses, read = model.losses(batch), model.read(batch)
    alone = kl = torch.zeros(()).double()
    for m, name in enumerate(SHORT):
        rows = [row for row in range(7) if batch.present[row, m]]
        answers = [model.decoders[name](read.mean[row, m]).log_softmax(0)[batch.labels[row]] for row in rows]
        alone = alone - torch.stack(answers).mean()
        kl = kl + kl_divergence(Normal(read.mean[rows, m], read.std[rows, m]), Normal(0, 1)).mean()
    torch.testing.assert_close(losses["alone"], alone)
    torch.testing.assert_close(losses["kl_alone"], kl)
    code = model.fuse(read, batch.present).code
    assert code is not None
    torch.testing.assert_close(losses["kl"], kl_divergence(Normal(*code), Normal(0, 1)).mean())


def test_an_absent_modality_is_not_in_the_product_and_zeros_elsewhere() -> None:
    batch = random_batch(6)
    for fusion in get_args(FusionForm):
        model = made(fusion=fusion)
        read = model.read(batch)
        odd = Gaussian(*(part.where(batch.present[..., None], 5.0) for part in read))
        expected, found = (model.fuse(each, batch.present).outputs for each in (read, odd))
        torch.testing.assert_close(found, expected)


@torch.no_grad()
def test_sigma_of_each_row_grows_with_what_is_missing() -> None:
    model, batch = made(), random_batch(5).unmasked()
    complete = model.row_values(batch)["sigma"]
    read = model.read(batch)
    np.testing.assert_allclose(complete, (1 + (1 / read.std**2).sum(dim=1)).rsqrt().mean(dim=1))
    for m in range(3):
        less = batch.present.clone()
        less[:, m] = False
        assert bool((model.row_values(replace(batch, present=less))["sigma"] > complete).all())


def test_noise_is_drawn_in_training_alone() -> None:
    model, batch = made(), random_batch(3)
    model.encoders.eval()
    assert torch.equal(model(batch), model(batch))
    model.train()
    model.encoders.eval()
    assert not torch.equal(model(batch), model(batch))


FORMS = [form for form in product(get_args(Variant), get_args(FusionForm)) if form != ("late", "poe")]


@pytest.mark.parametrize(("variant", "fusion"), FORMS)
def test_the_contract_with_other_options(variant: Variant, fusion: FusionForm) -> None:
    check_model(MIB, variant=variant, fusion=fusion, **SMALL)
    values: dict[str, Tensor] = made(variant=variant, fusion=fusion).row_values(random_batch(2))
    assert [*values] == ([] if variant == "late" else ["sigma"])


@pytest.mark.slow
def test_predictions_of_a_run_have_sigma_of_every_row(tmp_path: Path) -> None:
    run = fit(tmp_path / "run", *SMALL_CORPUS, model="MIB", epochs=2)
    with (run / "predictions.csv").open(encoding="utf-8", newline="") as file:
        rows = [(row["utterance"], row["condition"], float(row["sigma"])) for row in csv.DictReader(file)]
    found = {(utterance, condition): sigma for utterance, condition, sigma in rows}
    assert len(found) == len(rows) == 7 * len({utterance for utterance, _, _ in rows})
    for (utterance, condition), sigma in found.items():
        assert all(sigma > found[utterance, more] for more in CONDITIONS if set(condition) < set(more))
