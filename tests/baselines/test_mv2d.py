"""MV2D's definitions (tests/data/papers/mv2d.npz, float64), and that it does what its paper says."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy.special import softmax
from scipy.stats import entropy
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.mv2d import MV2D, NoiseBottleneck, Views, code_distance
from ifmmin.nn.gaussians import Gaussian
from ifmmin.tasks import Regression
from ifmmin.testing import check_model
from tests.batches import CLASSES, DIMS, batch_of, learnable_utterances, random_batch, random_present, random_utterances
from tests.systems import close, load_system

GOLDEN = load_system("mv2d", "papers")
SMALL: dict[str, Any] = {"embedding_dim": 8, "text_channels": 4}


def made(**options: Any) -> MV2D:
    torch.manual_seed(0)
    return MV2D(feature_dims=list(DIMS), class_names=CLASSES, **(SMALL | options)).double().eval()


def logits(kind: str) -> Tensor:
    """Golden logits [6, 3, 4]."""
    return GOLDEN[f"in/{kind}_logits"].transpose(0, 1)


def test_bottleneck() -> None:
    bottleneck = NoiseBottleneck(3, 0.0).double()
    bottleneck.alpha = nn.Parameter(GOLDEN["in/alpha"])
    code = bottleneck(GOLDEN["in/x"])
    close(code.mean, GOLDEN["out/bottleneck_mean"])
    close(code.std.square(), GOLDEN["out/bottleneck_variance"].expand(6, 3))


def test_divergence_of_two_codes() -> None:
    sides = torch.cat([GOLDEN["in/mean"], (GOLDEN["in/logvar"] / 2).exp()], dim=2)
    close(code_distance(*sides), GOLDEN["out/symmetric"].mean())
    for row, expected in enumerate(GOLDEN["out/symmetric"]):
        close(code_distance(*sides[:, row : row + 1]), expected)
        close(2 * expected, GOLDEN["out/kl_0_to_1"][row] + GOLDEN["out/kl_1_to_0"][row])


def reading(model: MV2D, observed: Tensor, drawn: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a model read the given outputs from h, and codes that are outputs: its classifier changes nothing."""
    model.add_module("classifier", nn.Identity())
    views = Views(drawn, observed, Gaussian(drawn, torch.ones_like(drawn)), drawn)
    monkeypatch.setattr(model, "read", lambda _: views)


def test_losses(monkeypatch: pytest.MonkeyPatch) -> None:
    model, known = made(), GOLDEN["in/present"]
    # What is absent may be anything.
    observed, codes = (logits(kind).where(known[..., None], torch.nan) for kind in ("observation", "representation"))
    reading(model, observed, codes, monkeypatch)
    # The golden subsets: of each row, each modality that is there alone.
    row, modality = known.nonzero(as_tuple=True)
    batch = random_batch(6)
    shown = torch.eye(3, dtype=torch.bool)[modality]
    losses = model.losses(replace(batch, lengths=batch.lengths * known, row=row, present=shown))
    close(losses["vsd"], GOLDEN["out/vsd"])
    close(losses["vcd"], GOLDEN["out/vcd"])
    close(losses["subset"], GOLDEN["out/subset_consistency"])
    assert abs(float(losses["vsd"] - GOLDEN["out/vsd_as_published_code_wrong"])) > 1


@torch.no_grad()
def test_an_answer_is_of_the_mean_of_the_codes_that_are_present() -> None:
    model, batch = made(), random_batch(9)
    outputs, read = model(batch), model.read(batch)
    for row in range(9):
        codes = []
        for m, (encoder, observe, bottleneck) in enumerate(model.readers()):
            if not bool(batch.present[row, m]):
                assert not bool(read.embeddings[row, m].any() or read.drawn[row, m].any())
                continue
            assert isinstance(bottleneck, NoiseBottleneck)
            h = encoder(batch.frames[m][row, None, : batch.lengths[row, m]])[0]
            close(read.observed[row, m], observe(h))
            codes.append(torch.sigmoid(bottleneck.alpha) * h)
        close(outputs[row], model.classifier(torch.stack(codes).mean(dim=0)))


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@torch.no_grad()
def test_losses_row_by_row_in_a_corpus_with_gaps(temperature: float) -> None:
    model = made(temperature=temperature)
    model.view_losses.copy_(torch.tensor([0.3, 1.9, 0.8]))
    batch = batch_of(random_utterances(12, partial=True, seed=4), random_present(12))
    batch = replace(batch, present=batch.present.where(batch.present.any(dim=1, keepdim=True), batch.available))
    losses, read = model.losses(batch), model.read(batch.unmasked())
    known, labels = batch.available.numpy(), batch.labels.numpy()
    assert not known.all()

    def shares(outputs: Tensor) -> npt.NDArray[np.float64]:
        found: npt.NDArray[np.float64] = softmax(outputs.numpy() / temperature, axis=-1)
        return found

    def error(outputs: Tensor, rows: npt.NDArray[np.bool_]) -> float:
        sure = softmax(outputs.numpy(), axis=-1)
        return float(np.mean([-np.log(sure[row, labels[row]]) for row in np.flatnonzero(rows)]))

    codes, everybody = model.classifier(read.drawn), np.ones(12, dtype=bool)
    h, z, part, whole = map(shares, (read.observed, codes, model(batch), model(batch.unmasked())))
    scale = temperature**2
    own = [entropy(h[row, m], z[row, m]) for row, m in np.argwhere(known)]
    assert float(losses["vsd"]) == pytest.approx(scale * np.mean(own))
    total = weight = 0.0
    for m, n in permutations(range(3), 2):
        both = np.flatnonzero(known[:, m] & known[:, n])
        priority = np.exp(-model.view_losses[m].item())
        total += priority * np.mean([entropy(h[row, m], z[row, n]) for row in both])
        weight += priority
    assert float(losses["vcd"]) == pytest.approx(scale * total / weight)
    subset = [entropy(p, q) for p, q in zip(whole, part, strict=True)]
    assert float(losses["subset"]) == pytest.approx(scale * np.mean(subset))
    assert float(losses["cls"]) == pytest.approx(error(model(batch), everybody))
    assert float(losses["complete"]) == pytest.approx(error(model(batch.unmasked()), everybody))
    alone = [error(outputs[:, m], known[:, m]) for outputs in (read.observed, codes) for m in range(3)]
    assert float(losses["alone"]) == pytest.approx(sum(alone) / 3)


def test_each_divergence_is_zero_of_equal_answers_and_positive_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = made(lambda_mutual=1.0), random_batch(6)
    terms = ("vsd", "vcd", "subset", "mutual")
    # Logits that differ by a constant are one answer.
    alike = torch.randn(6, 1, 4).double().expand(6, 3, 4)
    reading(model, alike + 5, alike, monkeypatch)
    for name in terms:
        close(model.losses(batch)[name], torch.zeros(()).double())
    for seed in range(20):
        observed, codes = torch.randn(2, 6, 3, 4, generator=torch.Generator().manual_seed(seed)).double()
        reading(model, observed, codes, monkeypatch)
        losses = model.losses(batch)
        assert all(float(losses[name]) > 0 for name in terms)


def test_no_gradient_reaches_what_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    model = made()
    observed, codes = torch.randn(2, 6, 3, 4).double().requires_grad_().unbind()
    reading(model, observed, codes, monkeypatch)
    batch = replace(random_batch(6), present=torch.tensor([[True, False, False]]).expand(6, 3))
    losses = model.losses(batch)
    for name in ("vsd", "vcd"):
        (gradient,) = torch.autograd.grad(losses[name], codes, retain_graph=True)
        assert bool(gradient.any())
        (unused,) = torch.autograd.grad(losses[name], (observed,), retain_graph=True, allow_unused=True)
        assert unused is None
    # Visual and text are in what is followed alone, audio in both.
    (gradient,) = torch.autograd.grad(losses["subset"], codes)
    assert bool(gradient[:, 0].any()) and not bool(gradient[:, 1:].any())


@torch.no_grad()
def test_far_below_zero_alpha_lets_nothing_pass() -> None:
    model, batch = made(alpha=-800.0), random_batch(6)
    outputs = model(batch)
    close(outputs, model.classifier.bias.expand_as(outputs))
    assert float(made()(batch).std(dim=0).max()) > 1e-3
    drawn = model.train().read(batch).drawn
    assert abs(float(drawn[batch.present].std()) - 1) < 0.2


@torch.no_grad()
def test_far_above_zero_alpha_lets_everything_pass() -> None:
    model, batch = made(alpha=800.0, lambda_mutual=1e-20), random_batch(6)
    read = model.read(batch)
    close(read.drawn, read.embeddings)
    assert all(bool(value.isfinite()) for value in model.losses(batch).values())


@torch.no_grad()
def test_noise_is_drawn_in_training_alone() -> None:
    model, batch = made(alpha=0.0, dropout=0.0, text_dropout=0.0), random_batch(400)
    mean = model.read(batch).drawn
    noise = (model.train().read(batch).drawn - mean)[batch.present]
    assert abs(float(noise.std()) - 0.5) < 0.03 and abs(float(noise.mean())) < 0.05
    assert torch.equal(model.eval().read(batch).drawn, mean)


def test_the_better_a_view_tells_the_label_the_more_it_teaches() -> None:
    model, batch = made(dropout=0.0, text_dropout=0.0), random_batch(8)
    assert bool((model.priorities() == model.priorities()[0]).all())
    model.losses(batch)
    assert not bool(model.view_losses.any())  # in evaluation nothing is remembered
    expected = torch.zeros(3).double()
    for _ in range(3):
        read = model.train().read(batch.unmasked())
        losses = [F.cross_entropy(read.observed[:, m], batch.labels) for m in range(3)]
        model.losses(batch)
        expected = 0.99 * expected + 0.01 * torch.stack(losses)
    close(model.view_losses, expected)
    shares = torch.exp(-expected) / torch.exp(-expected).sum()
    close(model.priorities(), shares)
    assert model.priorities().argmax() == expected.argmin()
    assert bool((made(prioritise=False).priorities() == 1).all())


def test_a_view_that_nobody_has_keeps_its_loss() -> None:
    model = made().train()
    model.view_losses.copy_(torch.tensor([0.5, 0.6, 0.7]))
    batch = random_batch(4)
    lost = batch.lengths * torch.tensor([1, 0, 1])
    model.losses(replace(batch, lengths=lost, present=lost > 0))
    moved = model.view_losses != torch.tensor([0.5, 0.6, 0.7])
    assert moved.tolist() == [True, False, True]


class At:
    """A trainer that is in an epoch."""

    def __init__(self, epoch: int) -> None:
        self.current_epoch = epoch


@pytest.mark.parametrize(("epoch", "share"), [(0, 0.0), (2, 2 / 6), (6, 1.0), (25, 1.0)])
def test_divergences_grow_over_a_fifth_of_the_epochs(epoch: int, share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    model = made(lambda_vsd=2.0, lambda_vcd=3.0, lambda_subset=5.0)
    losses = model.losses(random_batch(6))
    plain = losses["cls"] + losses["complete"] + losses["alone"]
    weighted = 2 * losses["vsd"] + 3 * losses["vcd"] + 5 * losses["subset"]
    close(model.total_loss(losses), plain + weighted)
    monkeypatch.setattr(model, "_scheduled", model.settings, raising=False)
    monkeypatch.setattr(model, "_trainer", At(epoch))
    assert model.settings.epochs == 30
    close(model.total_loss(losses), plain + share * weighted)
    close(made(ramp=0.0).total_loss(losses), plain + losses["vsd"] + losses["vcd"] / 2 + losses["subset"])


@pytest.mark.parametrize("options", [{}, {"lambda_mutual": 1e-4}])
def test_no_gradient_is_all_zero(options: dict[str, Any]) -> None:
    model, batch = made(**options), random_batch(7)
    model.total_loss(model.losses(batch)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and bool(parameter.grad.any()), name


@pytest.mark.parametrize(
    "options",
    [
        {"lambda_mutual": 5e-5, "alpha": 0.0},
        {"prioritise": False, "temperature": 3.0, "ramp": 0.0},
        {"class_names": [], "task": Regression().spec()},
    ],
)
def test_the_contract_with_other_options(options: dict[str, Any]) -> None:
    check_model(MV2D, **SMALL, **options)


# What the paper promises, on utterances whose modalities show the class.


def distance_from_all(lambda_subset: float, seed: int) -> float:
    """Mean of KL(p(y|z_all) ‖ p(y|z_a)) on unseen utterances, after training with no other divergence."""
    torch.manual_seed(seed)
    options = SMALL | {"lambda_vsd": 0.0, "lambda_vcd": 0.0, "lambda_subset": lambda_subset}
    model = MV2D(feature_dims=[12, 14, 10], class_names=CLASSES, **options)
    optimizer = torch.optim.Adam(model.train().parameters(), lr=1e-2)
    batch = batch_of(learnable_utterances(384, seed=1), dtype=torch.float32)
    for step in range(60):
        shown = torch.from_numpy(random_present(384, seed=step))
        optimizer.zero_grad()
        model.total_loss(model.losses(replace(batch, present=shown))).backward()
        optimizer.step()
    unseen = batch_of(learnable_utterances(192, seed=2), dtype=torch.float32)
    with torch.no_grad():
        whole, audio = (
            softmax(model.eval()(replace(unseen, present=torch.tensor([shown]).expand(192, 3))).numpy(), axis=1)
            for shown in ([True, True, True], [True, False, False])
        )
    return float(np.mean([entropy(p, q) for p, q in zip(whole, audio, strict=True)]))


@pytest.mark.parametrize("seed", range(3))
def test_a_subset_follows_what_all_tell(seed: int) -> None:
    assert distance_from_all(1.0, seed) < 0.95 * distance_from_all(0.0, seed)
