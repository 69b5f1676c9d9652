"""MMMIE's definitions (tests/data/papers/vclub.npz and contrast.npz, float64), and that its bounds do what they say."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal
from torch.nn import functional as F

from baselines.mmmie import MMMIE, PAIRS, vclub
from datamodules.batches.batch import Batch
from datamodules.batches.visible import under_conditions
from datamodules.conditions import CONDITIONS, MODALITIES
from datamodules.errors import InputError
from ifmmin.nn.gaussians import ConditionalGaussian, Gaussian
from ifmmin.tasks import Regression
from ifmmin.testing import check_model
from tests.batches import CLASSES, DIMS, batch_of, learnable_utterances, random_batch, random_present, random_utterances
from tests.systems import close, load_system

VCLUB, CONTRAST = load_system("vclub", "papers"), load_system("contrast", "papers")
SMALL: dict[str, Any] = {
    "embedding_dim": 8, "heads": 2, "feedforward_dim": 6, "hidden_dim": 6, "text_channels": 4, "q_dim": 5
}  # fmt: skip


def made(**options: Any) -> MMMIE:
    torch.manual_seed(0)
    given: dict[str, Any] = {"feature_dims": list(DIMS), "class_names": CLASSES}
    return MMMIE(**(given | SMALL | options)).double().eval()


def golden_q() -> ConditionalGaussian:
    """The golden file's q, whose networks are linear."""
    q = ConditionalGaussian(3, 2)
    q.mean, q.log_variance = nn.Sequential(nn.Linear(3, 2)), nn.Sequential(nn.Linear(3, 2))
    names = {"mean": "mean", "log_variance": "logvar"}
    state = {f"{o}.0.{kind}": VCLUB[f"in/{t}_{kind}"] for o, t in names.items() for kind in ("weight", "bias")}
    q.double().load_state_dict(state)
    return q


@torch.no_grad()
def test_the_golden_density() -> None:
    q, x, y = golden_q(), VCLUB["in/x"], VCLUB["in/y"]
    given = q.given(x)
    close(given.mean, VCLUB["out/mean"])
    close(2 * given.std.log(), VCLUB["out/logvar"])
    constant = y.shape[1] * math.log(2 * math.pi)
    likelihood = q(x, y).mean()
    close(likelihood, VCLUB["out/log_likelihood"])
    close(2 * likelihood + constant, VCLUB["out/log_likelihood_public_scale"])


@torch.no_grad()
def test_the_golden_vclub() -> None:
    q, x, y, use = golden_q(), VCLUB["in/x"], VCLUB["in/y"], VCLUB["in/use"]
    close(vclub(q.given(x), y), VCLUB["out/vclub_all_pairs"])
    close(vclub(q.given(x[use]), y[use]), VCLUB["out/vclub_used_rows"])
    # The estimate by one permutation, which is that over all pairs in the mean, has the same density.
    close(q(x, y).mean() - q(x, y[VCLUB["in/permutation"]]).mean(), VCLUB["out/vclub_sampled"])
    # The file's own parts leave constants out, which cancel.
    close(VCLUB["out/positive"] - VCLUB["out/negative_all_pairs"], vclub(q.given(x), y))


@torch.no_grad()
def test_the_golden_contrast() -> None:
    model = made(embedding_dim=4, temperature=float(CONTRAST["in/temperature"]))
    h, present = CONTRAST["in/embedding"], CONTRAST["in/present"]
    for (m, n), expected in zip(PAIRS, CONTRAST["out/infonce_av_at_vt"], strict=True):
        shown = torch.zeros_like(present)
        shown[:, [m, n]] = present[:, [m, n]]
        close(model.contrast(h, shown), expected)
    close(model.contrast(h, present), CONTRAST["out/infonce_av_at_vt"].sum())


@torch.no_grad()
def test_vclub_pair_by_pair() -> None:
    torch.manual_seed(0)
    given, y = Gaussian(torch.randn(6, 3).double(), torch.rand(6, 3).double() + 0.2), torch.randn(6, 3).double()
    density = [[float(Normal(given.mean[i], given.std[i]).log_prob(y[j]).sum()) for j in range(6)] for i in range(6)]
    expected = sum(density[i][i] for i in range(6)) / 6 - sum(map(sum, density)) / 36
    assert float(vclub(given, y)) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("size", [0, 1])
def test_vclub_of_few_rows_is_zero_with_a_zero_gradient(size: int) -> None:
    y = torch.randn(size, 3, requires_grad=True)
    value = vclub(Gaussian(torch.randn(size, 3), torch.ones(size, 3)), y)
    value.backward()
    assert float(value.detach()) == 0
    assert y.grad is not None and not y.grad.any()


def correlated(rho: float, size: int = 20_000) -> tuple[Tensor, Tensor]:
    """X, and twice a y of correlation ``rho``, so that the variance of y is within q's range."""
    x, noise = torch.randn(2, size, 1, generator=torch.Generator().manual_seed(0))
    return x, 2 * (rho * x + (1 - rho**2) ** 0.5 * noise)


def information(rho: float) -> float:
    return -math.log(1 - rho**2) / 2


@pytest.mark.parametrize("rho", [0.6, 0.9])
def test_a_fitted_vclub_is_above_the_information_of_gaussians(rho: float) -> None:
    torch.manual_seed(0)
    x, y = correlated(rho)
    q = ConditionalGaussian(1, 1, 16)
    optimizer = torch.optim.Adam(q.parameters(), lr=0.02)
    with torch.no_grad():
        before = float(q(x, y).mean())
    for _ in range(300):
        optimizer.zero_grad()
        (-q(x[:2000], y[:2000]).mean()).backward()
        optimizer.step()
    with torch.no_grad():
        fitted, bound = float(q(x, y).mean()), float(vclub(q.given(x), y))
    # The fit first: without it there is no bound. The density of y given x, less entropy, is known.
    assert before < fitted == pytest.approx(-math.log(2 * math.pi * math.e * 4 * (1 - rho**2)) / 2, abs=0.03)
    assert bound > information(rho)
    assert bound == pytest.approx(rho**2 / (1 - rho**2), rel=0.1)


def test_of_a_wrong_q_vclub_is_no_bound_and_not_clamped() -> None:
    x, y = correlated(0.9)
    given = Gaussian(-0.5 * x, torch.ones_like(y))
    assert float(vclub(given, y / 2)) == pytest.approx(-0.45, abs=0.02) != information(0.9)


@torch.no_grad()
def test_an_answer_row_by_row() -> None:
    """Every condition of an utterance by the plain definition, from what is present alone."""
    model, stored = made(), random_batch(3, seed=4, padding=2)
    batch, _ = under_conditions(stored, CONDITIONS)
    outputs, layer = model(batch), model.fusion
    attention = layer.self_attn
    for row, (utterance, present) in enumerate(zip(batch.row.tolist(), batch.present, strict=True)):
        tokens = torch.cat(
            [
                encoder(stored.frames[m][utterance, None, : stored.lengths[utterance, m]]) + model.identity.weight[m]
                for m, encoder in enumerate(model.encoders.encoders())
                if present[m]
            ]
        )
        parts = (tokens @ attention.in_proj_weight.T + attention.in_proj_bias).chunk(3, dim=1)
        heads = [
            (query @ key.T / 2).softmax(dim=1) @ value
            for query, key, value in zip(*(part.chunk(2, dim=1) for part in parts), strict=True)
        ]
        states = layer.norm1(tokens + attention.out_proj(torch.cat(heads, dim=1)))
        states = layer.norm2(states + layer.linear2(layer.linear1(states).relu()))
        close(outputs[row], model.head(states.mean(dim=0)))


@torch.no_grad()
def test_identity_tells_the_modalities_of_equal_embeddings_apart() -> None:
    model, present = made(), torch.eye(3, dtype=torch.bool)
    h = torch.randn(8).double().expand(3, 3, 8)
    answers = model.answer(h, present)
    assert min(float((answers[m] - answers[n]).abs().max()) for m, n in PAIRS) > 1e-4
    model.identity.weight.zero_()
    close(*model.answer(h, present)[:2])


def gaps() -> Batch:
    """24 utterances, some without a modality, under masks that show something of each."""
    batch = batch_of(random_utterances(24, seed=4, partial=True), random_present(24, seed=4), padding=2)
    batch.present[:] = torch.where(batch.present.any(1, keepdim=True), batch.present, batch.available)
    return batch


@torch.no_grad()
@pytest.mark.parametrize("lambda_nce", [0.1, 0.0])
def test_the_losses_row_by_row(lambda_nce: float) -> None:
    """Of what utterances have; with no contrast of what rows show, since nothing else is loaded."""
    model, batch = made(lambda_nce=lambda_nce), gaps()
    losses, has = model.losses(batch), batch.available if lambda_nce else batch.present
    close(losses["cls"], F.cross_entropy(model(batch), batch.labels))
    h, means = torch.zeros(24, 3, 8).double(), [torch.zeros(24, D).double() for D in DIMS]
    for row, m in has.nonzero().tolist():
        frames = batch.frames[m][row, : batch.lengths[row, m]]
        h[row, m], means[m][row] = list(model.encoders.encoders())[m](frames[None])[0], frames.mean(dim=0)
    nce = club = fit = 0.0
    for m, n in PAIRS:
        rows = (has[:, m] & has[:, n]).nonzero()[:, 0].tolist()
        cosine = [[float(torch.cosine_similarity(h[i, m], h[j, n], dim=0)) / 0.1 for j in rows] for i in rows]
        for table in (np.array(cosine), np.array(cosine).T):
            nce += float(np.mean(np.log(np.exp(table).sum(axis=1)) - np.diag(table))) / 2
    for m, name in enumerate(MODALITIES):
        q, rows = model.q[name], has[:, m].nonzero()[:, 0].tolist()
        density = np.array([[float(q(means[m][[i]], h[[j], m])) for j in rows] for i in rows])
        club += float(np.diag(density).mean() - density.mean())
        fit -= float(np.diag(density).mean())
    assert [float(losses[name]) for name in ("nce", "club", "fit")] == pytest.approx([nce, club, fit], abs=1e-9)
    total = losses["cls"] + lambda_nce * losses["nce"] + 0.01 * losses["club"] + losses["fit"]
    close(model.total_loss(losses), total)


def test_the_two_problems_have_no_parameter_in_common() -> None:
    model, batch = made(), random_batch(16)
    names = dict(model.named_parameters())
    reached = {}
    for term, value in model.losses(batch).items():
        found = torch.autograd.grad(value, list(names.values()), retain_graph=True, allow_unused=True)
        pairs = zip(names, found, strict=True)
        reached[term] = {name.partition(".")[0] for name, gradient in pairs if gradient is not None and gradient.any()}
    assert reached == {
        "cls": {"encoders", "identity", "fusion", "head"},
        "nce": {"encoders"},
        "club": {"encoders"},
        "fit": {"q"},
    }


def test_no_gradient_is_all_zero() -> None:
    model = made()
    model.total_loss(model.losses(random_batch(12))).backward()
    zero = []
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        blocks = zip(("query", "key", "value"), parameter.grad.chunk(3), strict=True)
        parts = dict(blocks) if "in_proj" in name else {"": parameter.grad}
        zero += [f"{name} {part}".strip() for part, gradient in parts.items() if float(gradient.abs().max()) < 1e-9]
    # Shifting every key by one vector changes no attention.
    assert zero == ["fusion.self_attn.in_proj_bias key"]


def decodability(lambda_club: float, seed: int) -> list[float]:
    """R² of a linear regression of the mean frames on h, over utterances not trained on; the mean over modalities.

    Returns:
        from h as it is, and from h with noise of variance e⁻¹, the least that q knows.
    """
    dims, size = (12, 14, 10), 256
    torch.manual_seed(seed)
    sizes = SMALL | {"embedding_dim": 16}
    model = MMMIE(feature_dims=list(dims), class_names=CLASSES, lambda_club=lambda_club, lambda_nce=0.0, **sizes)
    batch = batch_of(learnable_utterances(size, 1, dims), random_present(size), dtype=torch.float32)
    rates = model.recipe.rates
    parts = [{"params": part.parameters(), "lr": 2e-3 * rates.get(name, 1.0)} for name, part in model.subnetworks()]
    optimizer = torch.optim.Adam(parts)
    for _ in range(120):
        optimizer.zero_grad()
        model.total_loss(model.losses(batch)).backward()
        optimizer.step()
    model.eval()
    halves = []
    with torch.no_grad():
        for other in (2, 3):
            found = model.embed(batch_of(learnable_utterances(size, other, dims), dtype=torch.float32))
            halves.append((found.h.double().numpy(), [mean.double().numpy() for mean in found.means]))
    (h, x), (h_test, x_test) = halves
    scores = []
    for noise in (1e-7, math.exp(-1)):
        of_modalities = []
        for m in range(3):
            A, centre, target = h[:, m] - h[:, m].mean(axis=0), h[:, m].mean(axis=0), x[m].mean(axis=0)
            weights = np.linalg.solve(A.T @ A + noise * size * np.eye(A.shape[1]), A.T @ (x[m] - target))
            missed = x_test[m] - target - (h_test[:, m] - centre) @ weights
            of_modalities.append(1 - (missed**2).sum() / ((x_test[m] - x_test[m].mean(axis=0)) ** 2).sum())
        scores.append(float(np.mean(of_modalities)))
    return scores


@pytest.mark.parametrize("seed", [0, 1])
def test_minimised_information_makes_frames_harder_to_decode(seed: int) -> None:
    without, minimised = decodability(0.0, seed), decodability(0.1, seed)
    assert minimised[0] < without[0] - 0.03
    assert minimised[1] < without[1] / 2


@pytest.mark.parametrize(
    "options", [{"lambda_nce": 0.0}, {"lambda_club": 0.0}, {"class_names": [], "task": Regression().spec()}]
)
def test_the_contract_with_other_options(options: dict[str, Any]) -> None:
    check_model(MMMIE, **(SMALL | options))


def test_heads_must_divide_the_embeddings() -> None:
    with pytest.raises(InputError, match="heads 3: it must divide embedding_dim 8"):
        made(heads=3)
