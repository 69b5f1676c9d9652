"""DiCMoR's parity with its published code (tests/data/systems/dicmor.npz, float64), and its own parts.

The published flows have no permutation, which is a defect: ours are compared with the loops that reverse the channels.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from baselines.dicmor import DiCMoR
from baselines.dicmor.networks import ChannelFlow, ClassPrior, ScaledLinear, bits_per_dimension
from datamodules.batches.batch import Batch
from datamodules.batches.pooling import pool_steps
from datamodules.batches.visible import under_conditions
from datamodules.conditions import CONDITIONS, MODALITIES, per_modality
from datamodules.errors import InputError
from ifmmin.tasks import Regression
from ifmmin.testing import check_model
from tests.batches import CLASSES, DIMS, batch_of, random_batch, random_utterances
from tests.systems import below, close, load_system

GOLDEN = load_system("dicmor")
LETTERS = "lva"
HALF = 2
INTERLEAVED = [place for j in range(HALF) for place in (HALF + j, j)]
"""Published outputs of a coupling: raw scales, then shifts; ours: shift and raw scale of each channel."""


def published_flow(letter: str) -> ChannelFlow:
    flow = ChannelFlow(2 * HALF, couplings=3, hidden_dim=6).double()
    state = flow.state_dict()
    for coupling in range(3):
        theirs = below(GOLDEN, f"param_flow_{letter}/blocks.0.flows.{coupling}.coupling.net.")
        ours = f"parts.transforms.{2 * coupling}.hyper."
        for layer in ("0", "2"):
            state[f"{ours}{layer}.weight"] = theirs[f"{layer}.weight"].flatten(1)
            state[f"{ours}{layer}.bias"] = theirs[f"{layer}.bias"]
        state[f"{ours}4.weight"] = theirs["4.conv.weight"].flatten(1)[INTERLEAVED]
        state[f"{ours}4.bias"] = theirs["4.conv.bias"][INTERLEAVED]
        state[f"{ours}4.log_scale"] = theirs["4.scale"].flatten()[INTERLEAVED]
    flow.load_state_dict(state)
    return flow


@torch.no_grad()
@pytest.mark.parametrize("letter", LETTERS)
def test_flow_with_reversed_channels(letter: str) -> None:
    flow, x = published_flow(letter), GOLDEN[f"in/x_{letter}"].transpose(1, 2)
    z, volume = flow.with_volume(x)
    close(z.transpose(1, 2), GOLDEN[f"corrected/z_{letter}_channels_reversed_after_each_coupling"])
    close(volume.sum(dim=1), GOLDEN[f"corrected/logdet_{letter}_same"])
    close(flow(x), z)
    close(flow.inverse(z), x)


def published_prior() -> ClassPrior:
    prior = ClassPrior(classes=3, channels=2 * HALF).double()
    for number in range(3):
        theirs = below(GOLDEN, f"param_prior_class{number}/")
        table = theirs["conv.bias"] * (3 * theirs["scale"].flatten()).exp()  # a convolution of zeros is its bias
        prior.mean.data[number], prior.log_std.data[number] = table.chunk(2)
    return prior


@torch.no_grad()
def test_class_priors() -> None:
    prior = published_prior()
    close(prior.mean, GOLDEN["out/class_means"])
    close(prior.log_std, GOLDEN["out/class_log_sd"])


@torch.no_grad()
@pytest.mark.parametrize("letter", LETTERS)
def test_log_density_and_bits_per_dimension(letter: str) -> None:
    """Of the published z: theirs are sums over the batch, ours are of each row."""
    z = GOLDEN[f"out/z_{letter}"].transpose(1, 2)
    density = published_prior()(z, GOLDEN["in/classes"])
    close(density.sum()[None], GOLDEN[f"out/log_p_{letter}"])
    bits = bits_per_dimension(density + GOLDEN[f"out/logdet_{letter}"], dimensions=z[0].numel())
    close(bits.mean()[None], GOLDEN[f"loss/bits_per_dim_{letter}_before_clamp"])


def test_a_new_flow_shrinks_every_channel_alike_and_reverses_them() -> None:
    flow, x = ChannelFlow(6, couplings=4, hidden_dim=8).double(), torch.randn(3, 5, 6).double()
    shrunk = x * torch.sigmoid(torch.tensor(2.0, dtype=torch.float64)) ** 2  # each half in two of four couplings
    torch.testing.assert_close(flow(x), shrunk)


def made(**options: Any) -> DiCMoR:
    """A small model of 4 steps, whose flows are far from the identity."""
    torch.manual_seed(0)
    small: dict[str, Any] = {"steps": 4, "width": 8, "heads": 2, "layers": 1, "refinement_width": 6}
    small |= {"refinement_blocks": 1, "couplings": 3, "flow_hidden_dim": 6}
    model = DiCMoR(feature_dims=list(DIMS), **{"class_names": CLASSES, **small, **options}).double().eval()
    for part in model.modules():
        if isinstance(part, ScaledLinear):
            torch.nn.init.normal_(part.weight, std=0.3)
    for table in (model.prior.mean, model.prior.log_std):
        torch.nn.init.normal_(table, std=0.3)
    return model


def pooled(batch: Batch) -> Batch:
    """As a datamodule serves it to the small model."""
    frames = per_modality(pool_steps(part, batch.lengths[:, m], 4) for m, part in enumerate(batch.frames))
    return replace(batch, frames=frames, lengths=4 * (batch.lengths > 0))


def projected(model: DiCMoR, batch: Batch, modality: int, utterance: int) -> Tensor:
    """The sequence [S, C] of one stored utterance, alone."""
    frames = batch.frames[modality][utterance]
    found: Tensor = model.projections[MODALITIES[modality]](frames.T[None])[0].T
    return found


@torch.no_grad()
@pytest.mark.parametrize("partial", [False, True], ids=["complete corpus", "corpus with gaps"])
def test_what_is_absent_is_recovered_row_by_row(partial: bool) -> None:
    model, stored = made(), pooled(batch_of(random_utterances(5, seed=2, partial=partial)))
    batch, _ = under_conditions(stored, CONDITIONS)
    sequences = model.restore(model.project(batch), batch)
    for row, utterance in enumerate(batch.row.tolist()):
        for m, name in enumerate(MODALITIES):
            expected = projected(model, stored, m, utterance)
            if not batch.present[row, m]:
                z = [model.flow(n)(projected(model, stored, n, utterance)) for n in range(3) if batch.present[row, n]]
                guesses = [model.flow(m).inverse(each) for each in z]
                guess = guesses[0] if len(guesses) == 1 else model.joining[name](torch.cat(guesses, dim=1))
                expected = model.refinements[name](guess[None])[0]
            torch.testing.assert_close(sequences[row, m], expected)
    torch.testing.assert_close(model(batch), model.classify(sequences))


@torch.no_grad()
@pytest.mark.parametrize("partial", [False, True], ids=["complete corpus", "corpus with gaps"])
def test_losses_row_by_row(partial: bool) -> None:
    model, stored = made(), pooled(batch_of(random_utterances(9, seed=3, partial=partial)))
    shown = stored.present & random_batch(9, seed=3).present
    batch = replace(stored, present=shown.where(shown.any(dim=1, keepdim=True), stored.present))
    losses, sequences = model.losses(batch), model.restore(model.project(batch), batch)
    logits = model.classify(sequences)
    torch.testing.assert_close(losses["cls"], -logits.log_softmax(1)[torch.arange(9), batch.labels].mean())
    errors, bits = [], torch.zeros((), dtype=torch.float64)
    for m in range(3):
        found = []
        for row in batch.available[:, m].nonzero()[:, 0].tolist():
            x = projected(model, stored, m, row)
            if not batch.present[row, m]:
                errors.append((sequences[row, m] - x).square())
            volume = torch.linalg.slogdet(torch.autograd.functional.jacobian(model.flow(m), x).view(32, 32)).logabsdet
            mean, std = model.prior.mean[batch.labels[row]], model.prior.log_std[batch.labels[row]].exp()
            density = torch.distributions.Normal(mean, std).log_prob(model.flow(m)(x)).sum()
            found.append(-(density + volume) / (32 * math.log(2)))
        bits = bits + torch.stack(found).mean()
    torch.testing.assert_close(losses["recovery"], torch.stack(errors).mean())
    torch.testing.assert_close(losses["nll"], bits)
    ones = {name: torch.ones(()) for name in losses}
    assert float(made(lambda_nll=2.0, lambda_recovery=5.0).total_loss(ones)) == 8.0


def reached(model: DiCMoR, *names: str) -> set[str]:
    """Sub-networks that get a gradient from these losses."""
    model.zero_grad(set_to_none=True)
    losses = model.losses(pooled(random_batch(12, seed=6)))
    torch.stack([losses[name] for name in names]).sum().backward()
    return {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}


def test_the_likelihood_alone_trains_flows_and_priors_and_nothing_else() -> None:
    model = made()
    assert reached(model, "nll") == {"flows", "prior"}
    assert reached(model, "recovery") == {"refinements", "joining"}
    assert reached(model, "cls") == {"projections", "refinements", "joining", "fusion", "head", "output"}


@torch.no_grad()
def test_each_pair_of_modalities_is_transferred_once_however_many_rows_read_it() -> None:
    model, stored = made(), pooled(batch_of(random_utterances(5, seed=2)))
    flowed: list[int] = []
    for flow in model.flows.values():
        flow.register_forward_pre_hook(lambda _, inputs: flowed.append(len(inputs[0])))
    model(under_conditions(stored, CONDITIONS)[0])
    assert flowed == [5] * 6
    flowed.clear()
    model(under_conditions(stored, ["avt"])[0])
    assert not flowed


def test_classes_of_a_regression_are_the_whole_numbers_of_its_scale() -> None:
    model = made(class_names=[], task=Regression(-3, 3).spec())
    assert model.prior.mean.shape == (7, 8)
    batch = replace(pooled(random_batch(5)), labels=torch.tensor([-3.2, -0.6, 0.0, 1.4, 2.9]))
    assert model.classes(batch).tolist() == [0, 2, 3, 4, 6]
    assert model.losses(batch)["nll"].isfinite()


OPTIONS: list[dict[str, Any]] = [{"couplings": 1}, {"memory_layers": 2, "kernel": 3}, {"width": 7, "heads": 1}]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_contract_with_other_options(options: dict[str, Any]) -> None:
    check_model(DiCMoR, **{"steps": 4, "width": 8, "heads": 2, "refinement_width": 4, "flow_hidden_dim": 4, **options})


@pytest.mark.parametrize("options", [{"heads": 3}, {"width": 1, "heads": 1}], ids=str)
def test_impossible_sizes_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(InputError, match=next(iter(options))):
        DiCMoR(feature_dims=list(DIMS), class_names=CLASSES, **options)
