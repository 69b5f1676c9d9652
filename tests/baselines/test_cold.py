"""COLD's definitions (tests/data/papers/cold.npz, float64), and that its uncertainties are what the paper says."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch.distributions import Normal, kl_divergence
from torch.nn import functional as F

from baselines.cold import COLD, Latent, LatentEncoder, distribution_matching, fusion_weights
from datamodules.batches.batch import Batch
from datamodules.conditions import MODALITIES
from ifmmin.nn.gaussians import Gaussian, kl_to_standard_normal
from ifmmin.tasks import Regression
from ifmmin.testing import check_model
from tests.batches import CLASSES, DIMS, batch_of, random_batch
from tests.systems import close, load_system

GOLDEN = load_system("cold", "papers")


def made(**options: Any) -> COLD:
    torch.manual_seed(0)
    given: dict[str, Any] = {"feature_dims": list(DIMS), "class_names": CLASSES, "dim": 5, "hidden_dim": 6}
    return COLD(**(given | options)).double().eval()


def golden_latent() -> Latent:
    """The golden Gaussians as what the model reads of one frame, [6, 3, ...], norms unscaled."""
    mean, logvar = (GOLDEN[f"in/{name}"].transpose(0, 1) for name in ("mean", "logvar"))
    divergence = kl_to_standard_normal(Gaussian(mean, (logvar / 2).exp())).sum(dim=2)
    return Latent(mean, torch.linalg.vector_norm(logvar.exp(), dim=2), divergence)


def test_weights_and_fused_mean() -> None:
    latent, present = golden_latent(), GOLDEN["in/present"]
    close(latent.uncertainty, GOLDEN["out/variance_norm"])
    close(fusion_weights(latent.uncertainty, present), GOLDEN["out/fusion_weight"])
    # The weights are those of scaled norms too.
    close(fusion_weights(latent.uncertainty / 5**0.5, present), GOLDEN["out/fusion_weight"])
    close(made().fuse(latent, present), GOLDEN["out/fused_mean"])


def test_losses(monkeypatch: pytest.MonkeyPatch) -> None:
    model, latent, logits = made(), golden_latent(), GOLDEN["in/logits"]
    batch = replace(random_batch(6), labels=GOLDEN["in/label"], present=GOLDEN["in/present"])
    for m, own in enumerate(logits):
        close(model.distance(own, batch.label), GOLDEN["out/distance"][:, m])
    # Answers of a modality by itself are the golden logits, found by its μ.
    monkeypatch.setattr(model, "read", lambda _: latent)
    answers = {id(layer): own for layer, own in zip(model.alone.values(), logits, strict=True)}
    monkeypatch.setattr(model, "answer", lambda layer, _: answers.get(id(layer), logits[0]))
    losses = model.losses(batch)
    close(losses["alone"], GOLDEN["out/unimodal_cross_entropy"].sum())
    close(losses["calibration"], GOLDEN["out/calibration"].sum())
    close(losses["ordinal"], GOLDEN["out/ordinal"])
    close(losses["calibration"] + losses["ordinal"], GOLDEN["out/matching_loss"])
    close(losses["prior"], GOLDEN["out/prior_kl"])


@pytest.mark.parametrize("scaled", [True, False])
@torch.no_grad()
def test_an_utterance_is_the_mean_over_its_true_frames(scaled: bool) -> None:
    torch.manual_seed(1)
    encoder = LatentEncoder(4, 6, 5, dropout=0.3, scaled=scaled).double().eval()
    frames, lengths = 5 * torch.randn(3, 7, 4).double(), torch.tensor([7, 1, 4])
    found = encoder(frames, lengths)
    for row, length in enumerate(lengths.tolist()):
        states = encoder.rnn(frames[row, :length, None])[0][:, 0]
        mean, logvar = encoder.head.linear(states).chunk(2, dim=1)
        variance = logvar.exp().clamp(1e-6, 1e4)
        close(found.mean[row], mean.mean(dim=0))
        norm = variance.square().sum(dim=1).sqrt().mean() / (5**0.5 if scaled else 1)
        close(found.uncertainty[row], norm)
        kl = kl_divergence(Normal(mean, variance.sqrt()), Normal(0, 1)).sum(dim=1).mean()
        close(found.divergence[row], kl)


@torch.no_grad()
def test_variances_have_limits() -> None:
    encoder = LatentEncoder(4, 6, 5, dropout=0.0, scaled=True).double()
    frames, lengths = torch.zeros(1, 2, 4).double(), torch.tensor([2])
    for logvar, variance in ((-60.0, 1e-6), (60.0, 1e4)):
        encoder.head.linear.weight.zero_()
        encoder.head.linear.bias[5:] = logvar
        torch.testing.assert_close(encoder(frames, lengths).uncertainty.item(), variance)


@torch.no_grad()
def test_weights_add_up_over_what_is_present_and_nothing_else_counts() -> None:
    model, batch = made(), random_batch(9)
    latent, present = model.read(batch), batch.present
    weights = fusion_weights(latent.uncertainty, present)
    close(weights.sum(dim=1), torch.ones(9).double())
    assert bool((weights[~present] == 0).all()) and bool((weights[present] > 0).all())
    odd = Latent(*(part.masked_fill(~present.view(9, 3, *[1] * (part.dim() - 2)), torch.nan) for part in latent))
    close(model.fuse(odd, present), model.fuse(latent, present))
    alone = present.sum(dim=1) == 1
    close(model.fuse(latent, present)[alone], latent.mean[present & alone[:, None]])


def test_the_matching_is_a_divergence_of_two_softmaxes() -> None:
    torch.manual_seed(2)
    distance, uncertainty = torch.randn(2, 6).double()
    p, q = (-distance).softmax(0).numpy(), (-uncertainty).softmax(0).numpy()
    expected = sum(a * np.log(a / b) + b * np.log(b / a) for a, b in zip(p, q, strict=True))
    close(distribution_matching(distance, uncertainty), torch.tensor(expected))
    close(distribution_matching(distance, uncertainty + 7.5), torch.tensor(expected))
    close(distribution_matching(distance, distance - 3), torch.tensor(0.0).double())


@pytest.mark.parametrize("count", [0, 1])
def test_the_matching_of_nothing_or_of_one_is_zero_with_a_zero_gradient(count: int) -> None:
    uncertainty = torch.ones(count, requires_grad=True)
    loss = distribution_matching(torch.full((count,), 4.0), uncertainty)
    loss.backward()
    assert loss.item() == 0 and uncertainty.grad is not None and not bool(uncertainty.grad.any())


def test_distances_of_other_targets() -> None:
    torch.manual_seed(3)
    outputs, soft = torch.randn(4, 4).double(), torch.rand(4, 4).softmax(dim=1)
    expected = -(soft.double() * outputs.log_softmax(dim=1)).sum(dim=1)
    close(made().distance(outputs, soft), expected)
    valued = made(class_names=[], task=Regression().spec())
    close(valued.distance(outputs[:, :1], soft[:, 0]), (outputs[:, 0] - soft[:, 0].double()) ** 2)


def test_matching_trains_uncertainties_and_not_answers() -> None:
    model, batch = made(), random_batch(7)
    losses = model.losses(batch)
    (losses["calibration"] + losses["ordinal"]).backward()
    for layer in model.alone.values():
        assert all(parameter.grad is None for parameter in layer.parameters())
    for encoder in model.readers():
        gradient = encoder.head.linear.weight.grad
        assert gradient is not None and bool(gradient[5:].any()) and not bool(gradient[:5].any())


def test_no_gradient_is_all_zero() -> None:
    model, batch = made(), random_batch(7)
    model.total_loss(model.losses(batch)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and bool(parameter.grad.any()), name


@pytest.mark.parametrize(
    "options", [{"scaled_norm": False}, {"lambda_co": 0.0}, {"class_names": [], "task": Regression().spec()}]
)
def test_the_contract_with_other_options(options: dict[str, Any]) -> None:
    check_model(COLD, dim=5, hidden_dim=6, **options)


@torch.no_grad()
def test_uncertainties_of_each_row_are_columns_of_predictions() -> None:
    model, batch = made(), random_batch(8)
    values = model.row_values(batch)
    assert [*values] == [f"uncertainty_{name}" for name in MODALITIES]
    found = torch.stack([*values.values()], dim=1)
    assert torch.equal(found.isnan(), ~batch.present)
    close(found[batch.present], model.read(batch).uncertainty[batch.present])


# What the paper promises, on utterances each of whose modalities has a noise of its own.

WIDTHS = (8, 8, 8)


def noisy(size: int, seed: int, extra: float = 0.0) -> Batch:
    """Utterances of 4 frames that show the class (position % 4); the noise of a modality is drawn for each of them.

    Args:
        size: number of utterances.
        seed: of the noise; all seeds share one world.
        extra: added to the standard deviation of audio's noise.
    """
    world, rng = np.random.default_rng(0), np.random.default_rng(seed)
    means = world.standard_normal((3, len(CLASSES), 8))
    spread = rng.uniform(0.2, 3.0, (size, 3)) + np.array([extra, 0.0, 0.0])
    labels, utterances = np.arange(size) % len(CLASSES), []
    for label, noise in zip(labels, spread, strict=True):
        offsets = noise[:, None] * rng.standard_normal((3, 8))
        frames = means[:, label, None] + offsets[:, None] + 0.3 * noise[:, None, None] * rng.standard_normal((3, 4, 8))
        utterances.append((frames[0], frames[1], frames[2]))
    return batch_of(utterances, dtype=torch.float32)


@cache
def trained(lambda_co: float) -> COLD:
    torch.manual_seed(0)
    model = COLD(feature_dims=list(WIDTHS), class_names=CLASSES, dim=16, hidden_dim=32, lambda_co=lambda_co).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    batch = noisy(1024, seed=1)
    for step in range(150):
        rows = torch.randperm(1024, generator=torch.Generator().manual_seed(step))[:128]
        few = replace(batch, row=rows, present=batch.present[rows])
        optimizer.zero_grad()
        model.total_loss(model.losses(few)).backward()
        optimizer.step()
    return model.eval()


@torch.no_grad()
def ranks(model: COLD) -> list[float]:
    """Spearman's correlation of uncertainty and distance on a test split: audio, visual, text, all together."""
    batch = noisy(600, seed=2)
    latent = model.read(batch)
    own = [model.answer(layer, latent.mean[:, m]) for m, layer in enumerate(model.alone.values())]
    distance = torch.stack([F.cross_entropy(each, batch.label, reduction="none") for each in own])
    pairs = [*zip(latent.uncertainty.T, distance, strict=True), (latent.uncertainty.T.flatten(), distance.flatten())]
    return [float(spearmanr(s, d).statistic) for s, d in pairs]


def test_uncertainties_rank_errors_within_and_over_modalities() -> None:
    found, without = ranks(trained(1.0)), ranks(trained(0.0))
    assert found[3] > max(0.5, without[3] + 0.2)
    assert sum(found[:3]) / 3 > max(0.5, sum(without[:3]) / 3 + 0.2)


@torch.no_grad()
def test_more_noise_lowers_the_weight_of_a_modality() -> None:
    model = trained(1.0)
    shares = []
    for extra in (0.0, 2.0, 4.0):
        batch = noisy(400, seed=3, extra=extra)
        shares.append(float(fusion_weights(model.read(batch).uncertainty, batch.present)[:, 0].mean()))
    assert shares[0] > shares[1] > shares[2]
