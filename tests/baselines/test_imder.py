"""IMDer's parity with its published code (tests/data/systems/imder.npz, float64), and its own parts.

The published condition is noisy, a defect: ours is compared with the loop that has a clean one. Its sampler is
stochastic: it is written out here, on our network. Parity of the refinement is in tests/ifmmin/nn/test_refinement.py.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from baselines.imder import IMDer
from baselines.imder.networks import ScoreNetwork, noise_std
from datamodules.batches.batch import Batch
from datamodules.batches.pooling import pool_steps
from datamodules.batches.visible import under_conditions
from datamodules.conditions import CONDITIONS, per_modality
from datamodules.errors import InputError
from ifmmin.testing import check_model
from tests.batches import CLASSES, DIMS, batch_of, random_batch, random_utterances
from tests.systems import State, below, close, load_system

GOLDEN = load_system("imder")
TRANSFORMER = {
    "layers.0.self_attn.in_proj_": "layers.0.attention.project.",
    "layers.0.self_attn.out_proj.": "layers.0.attention.output.",
    "layers.0.fc1.": "layers.0.hidden.",
    "layers.0.fc2.": "layers.0.output.",
    "layers.0.layer_norms.0.": "layers.0.norm.",
    "layers.0.layer_norms.1.": "layers.0.norm_feedforward.",
    "layer_norm.": "norm.",
}
NETWORK = {"embed.0.W": "time.frequencies", "embed.1.": "time.linear.", "conv1.": "first."}
NETWORK |= {"tconv1.": "last.", "tconv1_cond.": "condition_last.", "attention_t1.": "last_crossing.transformer."}
for level in range(4):
    NETWORK |= {
        f"attention_{level + 1}.": f"falling.{level}.crossing.transformer.",
        f"dense{level + 1}.dense.": f"falling.{level}.time.",
        f"gnorm{level + 1}.": f"falling.{level}.norm.",
    }
for level in range(3):
    NETWORK |= {
        f"conv{level + 2}.": f"down.{level}.",
        f"conv{level + 2}_cond.": f"condition_down.{level}.",
        f"tconv{4 - level}.": f"up.{level}.",
        f"tconv{4 - level}_cond.": f"condition_up.{level}.",
        f"attention_t{4 - level}.": f"rising.{level}.crossing.transformer.",
        f"dense{5 + level}.dense.": f"rising.{level}.time.",
        f"tgnorm{4 - level}.": f"rising.{level}.norm.",
    }


def published_network() -> ScoreNetwork:
    network = ScoreNetwork([4, 4, 4, 4], steps=8, time_dim=8, groups=2, heads=2, layers=1).double()
    state: State = {}
    for key, value in below(GOLDEN, "param/").items():
        theirs = next(prefix for prefix in NETWORK if key.startswith(prefix))
        rest = key.removeprefix(theirs)
        if "attention" in theirs:
            inner = next(prefix for prefix in TRANSFORMER if rest.startswith(prefix))
            rest = TRANSFORMER[inner] + rest.removeprefix(inner)
        state[NETWORK[theirs] + rest] = value
    network.load_state_dict(state)
    return network


def golden(name: str) -> Tensor:
    """An array [B, C, S] in our order."""
    return GOLDEN[name].transpose(-1, -2)


@torch.no_grad()
def test_noise_and_score() -> None:
    t = GOLDEN["in/t"]
    close(noise_std(t), GOLDEN["out/marginal_prob_std"])
    estimated = published_network()(golden("in/x"), t, golden("in/condition"))
    close(estimated / noise_std(t)[:, None, None], golden("out/score"))


@torch.no_grad()
def test_loss() -> None:
    network, t = published_network(), GOLDEN["in/t"]
    x, condition, noise = golden("in/x"), golden("in/condition"), golden("in/noise")
    close(network.loss(x, condition, t, noise).mean(), GOLDEN["corrected/score_clean_condition"])
    noisy = {
        "loss/score_published_same_noise_on_condition": noise,
        "corrected/score_independent_noise_on_condition": golden("in/noise_of_condition"),
    }
    for name, of_condition in noisy.items():
        theirs = condition + noise_std(t)[:, None, None] * of_condition
        close(network.loss(x, theirs, t, noise).mean(), GOLDEN[name])


@torch.no_grad()
def test_published_sampler_on_our_network() -> None:
    """Euler and Maruyama's, with a noisy condition; what it gives is large, and is compared relatively."""
    network, times = published_network(), torch.linspace(1, 1e-3, 4, dtype=torch.float64)
    condition, between = golden("in/condition"), float(times[0] - times[1])
    x = golden("in/sampler_start_noise") * noise_std(times[0])
    mean = x
    for step, t in enumerate(times):
        noisy = condition + noise_std(t) * golden("in/sampler_condition_noise")[step]
        score = network(x, t.expand(3), noisy) / noise_std(t)
        mean = x + 25 ** (2 * t) * score * between
        x = mean + between**0.5 * 25**t * golden("in/sampler_step_noise")[step]
    torch.testing.assert_close(mean, golden("out/sampled_4_steps"), rtol=1e-9, atol=0)


class Exact(ScoreNetwork):
    """The score of x ~ N(condition, s² I), in closed form."""

    spread = 0.7

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        std = noise_std(t)[:, None, None]
        return -std * (x - condition) / (self.spread**2 + std**2)


def exact() -> Exact:
    return Exact([4, 4], steps=5, time_dim=2, groups=1, heads=1, layers=1).double()


def test_the_ode_ends_where_it_does_in_closed_form() -> None:
    """For a Gaussian of standard deviation s, x - c shrinks from √(s² + σ_1²) to s."""
    torch.manual_seed(0)
    condition, start = torch.randn(3, 5, 4, dtype=torch.float64), torch.randn(5, 4, dtype=torch.float64)
    first = float(noise_std(torch.tensor(1.0, dtype=torch.float64)))
    assert first == pytest.approx(math.sqrt(624 / (2 * math.log(25))))
    expected = condition + first * (start - condition / first) * 0.7 / math.hypot(0.7, first)
    errors = [float((exact().recover(condition, start, steps) - expected).abs().max()) for steps in (10, 100, 1000)]
    assert errors[0] > 5 * errors[1] > 25 * errors[2]
    assert errors[2] < 1e-2


def made(**options: Any) -> IMDer:
    """A small model of 4 steps."""
    torch.manual_seed(0)
    small: dict[str, Any] = {"steps": 4, "width": 8, "heads": 2, "layers": 1, "refinement_width": 6, "ode_steps": 3}
    small |= {"refinement_blocks": 1, "channels": [8, 6], "time_dim": 8}
    return IMDer(feature_dims=list(DIMS), class_names=CLASSES, **{**small, **options}).double().eval()


def pooled(batch: Batch) -> Batch:
    """As a datamodule serves it to the small model."""
    frames = per_modality(pool_steps(part, batch.lengths[:, m], 4) for m, part in enumerate(batch.frames))
    return replace(batch, frames=frames, lengths=4 * (batch.lengths > 0))


@torch.no_grad()
@pytest.mark.parametrize("partial", [False, True], ids=["complete corpus", "corpus with gaps"])
def test_what_is_absent_is_recovered_row_by_row(partial: bool) -> None:
    model, stored = made(), pooled(batch_of(random_utterances(4, seed=2, partial=partial)))
    batch, _ = under_conditions(stored, CONDITIONS)
    whole, sequences = model.project(stored), model.restore(model.project(batch), batch)
    for row, utterance in enumerate(batch.row.tolist()):
        shown = [m for m in range(3) if batch.present[row, m]]
        condition = sum((whole[utterance, m] for m in shown), torch.zeros(4, 8)) / len(shown)
        for m, name in enumerate(("audio", "visual", "text")):
            expected = whole[utterance, m]
            if m not in shown:
                times = torch.tensor([1.0, (1 + 1e-3) / 2, 1e-3], dtype=torch.float64)
                stds = [math.sqrt((25 ** (2 * float(t)) - 1) / (2 * math.log(25))) for t in times] + [0.0]
                x = stds[0] * model.start[m]
                for step, t in enumerate(times):
                    score = model.score(m)(x[None], t[None], condition[None])[0] / stds[step]
                    x = x + (stds[step + 1] - stds[step]) * -stds[step] * score
                expected = model.refinements[name](x[None])[0]
            torch.testing.assert_close(sequences[row, m], expected)


def test_the_start_is_the_same_for_every_model_utterance_and_seed() -> None:
    starts = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        starts.append(made().start)
    assert torch.equal(*starts)
    assert "start" in made().state_dict()
    assert np.abs(starts[0].numpy().std() - 1) < 0.2


@torch.no_grad()
def test_score_loss_is_over_what_the_mask_took_row_by_row(monkeypatch: pytest.MonkeyPatch) -> None:
    model = made()
    stored = pooled(batch_of(random_utterances(9, seed=3, partial=True)))
    shown = stored.present & random_batch(9, seed=3).present
    batch = replace(stored, present=shown.where(shown.any(dim=1, keepdim=True), stored.present))
    x = model.project(batch.unmasked())
    monkeypatch.setattr(torch, "rand", lambda size, **_: torch.full((size,), 0.5, dtype=torch.float64))
    monkeypatch.setattr(torch, "randn", lambda shape, **_: torch.ones(shape, dtype=torch.float64))
    found = torch.zeros((), dtype=torch.float64)
    for m in range(3):
        errors = []
        for row in (batch.available & ~batch.present)[:, m].nonzero()[:, 0].tolist():
            seen = [x[row, n] for n in range(3) if batch.present[row, n]]
            condition = torch.stack(seen).mean(dim=0)
            t = torch.tensor([1e-5 + (1 - 1e-5) * 0.5], dtype=torch.float64)
            raw = model.score(m)(x[row, m][None] + noise_std(t), t, condition[None])
            errors.append((raw + 1).square().sum())
        found = found + (torch.stack(errors).mean() if errors else 0.0)
    torch.testing.assert_close(model.losses(batch)["score"], found)


def test_weights_of_the_terms() -> None:
    ones = {name: torch.ones(()) for name in ("cls", "recovery", "score")}
    assert float(made(lambda_score=2.0, lambda_recovery=5.0).total_loss(ones)) == 8.0


def reached(model: IMDer, name: str) -> set[str]:
    """Sub-networks that get a gradient from this loss."""
    model.zero_grad(set_to_none=True)
    model.losses(pooled(random_batch(12, seed=6)))[name].backward()
    return {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}


def test_the_score_loss_alone_trains_the_score_networks_and_nothing_else() -> None:
    model = made()
    assert reached(model, "score") == {"scores"}
    assert reached(model, "recovery") == {"refinements"}
    assert reached(model, "cls") == {"projections", "refinements", "fusion", "head", "output"}


def test_training_draws_anew_and_evaluation_does_not() -> None:
    model, batch = made(dropout=0.0), pooled(random_batch(6))
    assert torch.equal(model.losses(batch)["score"], model.losses(batch)["score"])
    model.train()
    torch.manual_seed(1)
    assert not torch.equal(model.losses(batch)["score"], model.losses(batch)["score"])
    assert torch.equal(model(batch), model(batch))


@torch.no_grad()
def test_score_networks_are_asked_only_for_what_is_absent() -> None:
    model, stored = made(), pooled(batch_of(random_utterances(5, seed=2)))
    asked: list[int] = []
    for network in model.scores.values():
        network.register_forward_pre_hook(lambda _, inputs: asked.append(len(inputs[0])))
    model(under_conditions(stored, ["avt"])[0])
    assert not asked
    model(under_conditions(stored, ["at"])[0])
    assert asked == [5] * 3  # steps


OPTIONS: list[dict[str, Any]] = [{"steps": 5, "ode_steps": 1}, {"groups": 3, "score_layers": 2}]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_contract_with_other_options(options: dict[str, Any]) -> None:
    small = {"steps": 4, "width": 8, "heads": 2, "refinement_width": 4, "channels": [4, 8, 4], "ode_steps": 2}
    check_model(IMDer, **{**small, "time_dim": 4, **options})


@pytest.mark.parametrize(
    ("options", "named"), [({"channels": [64, 12]}, "heads 8: .* channels, but 12"), ({"channels": []}, "channels")]
)
def test_impossible_sizes_are_refused(options: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=named):
        IMDer(feature_dims=list(DIMS), class_names=CLASSES, **options)
