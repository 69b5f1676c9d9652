"""RedCore's parity with its published code (tests/data/systems/redcore.npz, float64), and its own parts."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from numpy.typing import NDArray
from torch import Tensor

from baselines.redcore import RedCore
from baselines.redcore.model import Codes
from baselines.redcore.networks import AdaptiveWeights
from datamodules import Synthetic
from datamodules.batches.batch import Batch
from datamodules.batches.pooling import pool_steps
from datamodules.errors import InputError
from ifmmin.checkpoints.parts import load_part
from ifmmin.cli.main import main
from ifmmin.finished import logged
from ifmmin.nn.gaussians import Gaussian
from ifmmin.testing import check_model
from tests.batches import CLASSES, DIMS, random_batch
from tests.cli.running import SMALL, fit, fresh, metrics, same, weights
from tests.cli.test_resume import KILL
from tests.systems import State, below, close, load_system

GOLDEN = load_system("redcore")
PARAMETERS = below(GOLDEN, "param/")
ORDER = {"audio": ("A", "vl2a"), "visual": ("V", "al2v"), "text": ("L", "av2l")}
"""Our modalities, the letter and the generator of each."""
PRESENT = GOLDEN["in/missing_index_audio_visual_text"] > 0


def renamed(state: State, names: dict[str, str]) -> State:
    return {f"{ours}{key}": value for theirs, ours in names.items() for key, value in below(state, theirs).items()}


def encoder_state(letter: str) -> State:
    layer = {
        "attn.": "attention.",
        "ln_1.": "norm.",
        "ln_12.": "norm_attended.",
        "ln_2.": "norm_feedforward.",
        "ln_22.": "norm_mapped.",
        "mlp.c_fc.": "feedforward.0.",
        "mlp.c_proj.": "feedforward.3.",
    }
    names = {f"resblocks.0.{theirs}": f"layers.0.{ours}" for theirs, ours in layer.items()}
    names |= {"proj.": "project.", "muvar.": "head.linear."}
    return renamed(below(PARAMETERS, f"{letter}."), names) | {"absent": torch.zeros(4)}


def generator_state(name: str) -> State:
    names = {f"{part}coder_{block}.": f"blocks.{block}.{part}coder." for block in range(2) for part in ("en", "de")}
    return renamed(below(PARAMETERS, f"xenc_{name}."), names | {"transition.": "head."})


def classifier_state(name: str) -> State:
    return renamed(below(PARAMETERS, f"{name}."), {"module.": "hidden.", "fc_out.": "output."})


def golden_model() -> RedCore:
    """The published networks; our joint classifier reads the codes in another order."""
    model = RedCore(
        feature_dims=[5, 3, 6],
        class_names=CLASSES,
        dim=4,
        heads=2,
        layers=1,
        block_dims=[6, 5, 3],
        blocks=2,
        hidden_dims=[6, 6],
    ).double()
    for name, (letter, generator) in ORDER.items():
        load_part(model.encoders[name], encoder_state(letter), name)
        load_part(model.generators[name], generator_state(generator), generator)
        load_part(model.heads[name], classifier_state(f"Cls_{letter.lower()}"), name)
    state = classifier_state("Cls")
    audio, text, visual = state["hidden.0.weight"].split(4, dim=1)
    load_part(model.classifier, state | {"hidden.0.weight": torch.cat([audio, visual, text], dim=1)}, "classifier")
    return model.eval()


def golden_codes() -> Tensor:
    """Published z [5, 3, 4], of zero frames where a modality is absent."""
    return torch.stack([GOLDEN[f"out/z_{letter}"] for letter, _ in ORDER.values()], dim=1)


@torch.no_grad()
def test_encoders() -> None:
    model = golden_model()
    for modality, (name, (letter, _)) in enumerate(ORDER.items()):
        frames = GOLDEN[f"in/{name}"] * PRESENT[:, modality, None, None]
        gaussian = model.encoder(modality)(frames)
        close(gaussian.mean, GOLDEN[f"out/mu_{letter}"])
        close(2 * gaussian.std.log(), GOLDEN[f"out/logvar_{letter}"])
        close(gaussian.sample(GOLDEN[f"in/eps_{name}"]), GOLDEN[f"out/z_{letter}"])


@torch.no_grad()
def test_generators_and_answers() -> None:
    """The published generators read the encoding of zero frames, ours a learnt vector: they are given the former."""
    model, z = golden_model(), golden_codes()
    generated = model.generate(z)
    filled = z.where(PRESENT[..., None], generated)
    alone = model.answers_alone(filled)
    for modality, (letter, _) in enumerate(ORDER.values()):
        close(generated[:, modality], GOLDEN[f"out/gen_{letter}"])
        close(filled[:, modality], GOLDEN[f"out/filled_{letter}"])
        close(alone[modality], GOLDEN[f"out/logits_{letter}"])
        loss = model.task.loss(alone[modality], GOLDEN["in/labels"])
        close(loss, GOLDEN[f"loss/cross_entropy_{letter}"])
    close(model.answer(filled), GOLDEN["out/logits"])
    close(model.task.loss(model.answer(filled), GOLDEN["in/labels"]), GOLDEN["loss/cross_entropy"])


def test_errors_of_what_is_generated_and_their_gradient() -> None:
    """R and, of R, the gradient that reaches the target: the published one, or none."""
    model, z = golden_model(), golden_codes().requires_grad_()
    generated = model.generate(z.detach()).detach()
    for reaches in (False, True):
        model.target_gradient = reaches
        errors = model.errors(Codes(z, generated.requires_grad_(), z), PRESENT)
        for modality, (letter, _) in enumerate(ORDER.values()):
            close(errors[modality].detach(), GOLDEN[f"loss/recon_{letter}_sum_over_width_mean_over_present"])
        made, target = torch.autograd.grad(errors.sum(), (generated, z), allow_unused=True)
        expected = 2 * (generated - z) * PRESENT[..., None] / PRESENT.sum(dim=0)[:, None]
        close(made, expected.detach())
        assert (target is not None) == reaches
        if reaches:
            close(target, -expected.detach())


@torch.no_grad()
def test_divergence() -> None:
    model, batch = golden_model(), replace(random_batch(5), present=PRESENT)
    letters = [letter for letter, _ in ORDER.values()]
    means = torch.stack([GOLDEN[f"out/mu_{letter}"] for letter in letters], dim=1)
    stds = torch.stack([(GOLDEN[f"out/logvar_{letter}"] / 2).exp() for letter in letters], dim=1)
    model.encode = lambda batch: Gaussian(means, stds)  # type: ignore[method-assign]
    published = torch.stack([GOLDEN[f"loss/kl_{letter}_times_0.0008"] for letter in letters]).sum()
    close(model.loss_weights["kl"] * model.losses(batch)["kl"], published)


def test_weights_over_the_published_steps() -> None:
    momentum, rate, interval = (GOLDEN[f"const/{name}"].item() for name in ("loss_momentum", "eta", "interval"))
    balance = AdaptiveWeights(3, momentum, rate, largest_rate=1.0, interval=int(interval)).double()
    assert float(GOLDEN["const/etaext"]) == AdaptiveWeights.GROWTH
    assert float(GOLDEN["const/beta_floor"]) == AdaptiveWeights.FLOOR
    keys = (f"loss/recon_{letter}_sum_over_width_mean_over_present" for letter, _ in ORDER.values())
    losses = torch.stack([GOLDEN[key] for key in keys])
    for factor, expected in zip(
        GOLDEN["in/recon_factor_over_6_steps"], GOLDEN["out/beta_audio_visual_text_over_6_steps"], strict=True
    ):
        balance.update(losses * factor)
        close(balance.weights, expected)


# Our own.


def naive_weights(history: NDArray[np.float64], momentum: float, rate: float, largest: float) -> NDArray[np.float64]:
    """The rule in plain Python, step by step; 0 stands for no loss."""
    weights, running, found = [1.0, 1.0, 1.0], [0.0, 0.0, 0.0], []
    grown = rate
    for step, losses in enumerate(history.tolist()):
        for m, loss in enumerate(losses):
            if loss:
                running[m] = (1 - momentum) * running[m] + momentum * loss
        if step % 500 == 0:
            grown *= 1.5
        if step % 3 == 0:
            had = [value for value in running if value]
            for m, value in enumerate(running):
                if value:
                    mean = sum(had) / len(had)
                    weights[m] = weights[m] - min(grown, largest) * (mean - value) / mean
                weights[m] = max(0.1, weights[m])
            norm = sum(weight**2 for weight in weights) ** 0.5
            weights = [weight / norm for weight in weights]
        found.append(list(weights))
    return np.array(found)


@pytest.mark.parametrize(("rate", "largest"), [(0.1, 0.5), (0.3, 10.0), (0.0, 1.0)])
def test_weights_over_many_steps_with_and_without_losses(rate: float, largest: float) -> None:
    random = np.random.default_rng(0)
    history = random.gamma(2.0, 1.0, (1300, 3)) * np.array([1.0, 2.0, 0.5])
    history *= random.random((1300, 3)) > 0.3
    history[:40, 1] = 0.0  # a modality that nobody shows at first
    balance, found, half = AdaptiveWeights(3, 0.7, rate, largest).double(), [], {}
    for step, losses in enumerate(history):
        balance.update(torch.from_numpy(losses))
        found.append(balance.weights.numpy().copy())
        if step == 600:
            half = {name: value.clone() for name, value in balance.state_dict().items()}
    np.testing.assert_allclose(found, naive_weights(history, 0.7, rate, largest), atol=1e-9)
    again = AdaptiveWeights(3, 0.7, rate, largest).double()
    again.load_state_dict(half)
    for losses in history[601:]:
        again.update(torch.from_numpy(losses))
    assert same(again.state_dict(), balance.state_dict())


def test_the_modality_that_is_harder_to_generate_gets_more_weight() -> None:
    balance = AdaptiveWeights(3, 0.7, 0.1, 0.5)
    for _ in range(300):
        balance.update(torch.tensor([1.0, 2.0, 6.0]))
    assert balance.weights[2] > 0.9 and (balance.weights[:2] > 0.08).all()  # the floor, of a norm above 1
    balance.update(torch.zeros(3))  # no row of any modality: no number to divide by
    assert balance.weights.isfinite().all()
    fresh_one = AdaptiveWeights(3, 0.7, 0.1, 0.5)
    fresh_one.update(torch.zeros(3))
    torch.testing.assert_close(fresh_one.weights, torch.full((3,), 3**-0.5))


SMALL_MODEL: dict[str, Any] = {"steps": 4, "dim": 8, "heads": 2, "layers": 1, "block_dims": [8, 4], "hidden_dims": [6]}


def made(**options: Any) -> RedCore:
    torch.manual_seed(0)
    return RedCore(feature_dims=list(DIMS), class_names=CLASSES, **(SMALL_MODEL | options)).double().eval()


def test_losses_row_by_row() -> None:
    """Naive loops over rows and modalities; of an absent modality the generators read the learnt vector."""
    model, batch = made(), random_batch(9, seed=3)
    model.balance.weights.copy_(torch.tensor([0.2, 0.5, 0.8]))
    outputs, alone, divergence = [], [], 0.0
    away: list[list[float]] = [[], [], []]
    for row in range(9):
        codes, shown = [], batch.present[row].tolist()
        for m in range(3):
            length = batch.lengths[row, m]
            frames = pool_steps(batch.frames[m][row : row + 1, :length], length[None], 4)
            gaussian = model.encoder(m)(frames)
            codes.append(gaussian.mean if shown[m] else model.encoder(m).absent[None])
            if shown[m]:
                mean, std = gaussian.mean[0].tolist(), gaussian.std[0].tolist()
                divergence += sum(u**2 + s**2 - math.log(s**2) - 1 for u, s in zip(mean, std, strict=True))
        generators = list(model.generators.values())
        generated = [generators[m](torch.cat([codes[n] for n in range(3) if n != m], dim=1))[0] for m in range(3)]
        for m in range(3):
            if shown[m]:
                away[m].append((generated[m] - codes[m]).square().sum().item())
        filled = [codes[m] if shown[m] else generated[m] for m in range(3)]
        outputs.append(model.classifier(torch.cat(filled, dim=1))[0])
        alone.append([head(part)[0] for head, part in zip(model.heads.values(), filled, strict=True)])
    torch.testing.assert_close(model(batch), torch.stack(outputs))
    labels = batch.labels.tolist()
    answers = [
        [-row.log_softmax(0)[label] for row, label in zip(each, labels, strict=True)]
        for each in (outputs, *map(list, zip(*alone, strict=True)))
    ]
    entropies = [torch.stack(each).mean() for each in answers]
    losses = model.losses(batch)
    torch.testing.assert_close(losses["cls"], entropies[0])
    torch.testing.assert_close(losses["alone"], sum(entropies[1:], torch.zeros(())).double())
    assert float(losses["kl"]) == pytest.approx(divergence / 9)
    expected = sum(weight * np.mean(each) for weight, each in zip((0.2, 0.5, 0.8), away, strict=True))
    assert float(losses["generation"]) == pytest.approx(float(expected))


def test_what_is_imagined_is_compared_with_the_means_of_the_whole_utterance() -> None:
    model, batch = made(), random_batch(6)
    imagined, true = model.imagined_embeddings(batch)
    filled = model.modality_embeddings(batch)
    torch.testing.assert_close(true, model.encode(batch.unmasked()).mean)
    torch.testing.assert_close(filled, true.where(batch.present[..., None], imagined))


def test_weights_move_in_training_alone_and_by_the_losses_of_the_step() -> None:
    model, batch = made(dropout=0.0, attention_dropout=0.0, feedforward_dropout=0.0), random_batch(8)
    before = {name: value.clone() for name, value in model.balance.state_dict().items()}
    model.losses(batch)
    assert same(model.balance.state_dict(), before)
    model.train()
    torch.manual_seed(1)
    found = model.losses(batch)["generation"]
    assert not same(model.balance.state_dict(), before)
    torch.manual_seed(1)
    out = model.fill(model.encode(batch).sample(), batch.present)
    errors = model.errors(out, batch.present).detach()
    expected = AdaptiveWeights(3, 0.7, 0.1, 0.5).double()
    expected.update(errors)
    torch.testing.assert_close(model.balance.weights, expected.weights)
    torch.testing.assert_close(found.detach(), (expected.weights * errors).sum())


def test_without_adaptation_weights_stay_equal() -> None:
    model = made(adaptive=False).train()
    model.losses(random_batch(8))
    torch.testing.assert_close(model.balance.weights, torch.full((3,), 3**-0.5).double())


def test_codes_are_drawn_in_training_and_means_otherwise() -> None:
    model, batch = made(dropout=0.0, attention_dropout=0.0, feedforward_dropout=0.0), random_batch(6)
    assert float(model.losses(batch)["cls"]) == float(model.losses(batch)["cls"])
    model.train()
    assert float(model.losses(batch)["cls"]) != float(model.losses(batch)["cls"])


def test_devices_take_the_mean_of_those_that_have_a_modality() -> None:
    """Two devices, of which one has no visual row and neither a textual one."""
    errors = [torch.tensor([3.0, 0.0, 0.0]), torch.tensor([5.0, 4.0, 0.0])]
    found = []
    for own, other in (errors, errors[::-1]):

        def reduce(values: Tensor, reduce_op: str, other: Tensor = other) -> Tensor:
            assert reduce_op == "sum"
            return values + torch.stack([other, (other > 0).float()])

        model = made()
        model._trainer = cast("Any", SimpleNamespace(world_size=2, strategy=SimpleNamespace(reduce=reduce)))
        found.append(model._over_devices(own))
    assert [values.tolist() for values in found] == [[4.0, 4.0, 0.0]] * 2


OPTIONS: list[dict[str, Any]] = [{"adaptive": False}, {"target_gradient": True}, {"blocks": 1, "momentum": 1.0}]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_contract_with_other_options(options: dict[str, Any]) -> None:
    check_model(RedCore, **(SMALL_MODEL | options))


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(InputError, match="heads 3"):
        made(heads=3)


def test_the_weights_of_every_step_are_logged(tmp_path: Path) -> None:
    """At each step those that its loss had, though other values are logged once an epoch."""
    data = Synthetic(utterances_per_speaker=6, train_mask="0.2,0.5,0.8", permanent_mask=True)
    model = RedCore(feature_dims=data.feature_dims, class_names=data.class_names, batch_size=16, **SMALL_MODEL)
    used: list[list[float]] = []
    losses = model.losses

    def noted(batch: Batch) -> dict[str, Tensor]:
        found = losses(batch)
        if model.training:
            used.append(model.balance.weights.tolist())
        return found

    model.losses = noted  # type: ignore[method-assign]
    logger = CSVLogger(tmp_path, name="", version="logs")
    silent = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    trainer = L.Trainer(max_epochs=2, accelerator="cpu", logger=logger, num_sanity_val_steps=0, **cast("Any", silent))
    trainer.fit(model, data)
    curves = [logged(tmp_path, f"train/beta/{name}", "step") for name in ORDER]
    assert [list(curve) for curve in curves] == [list(range(1, 7))] * 3 and len(used) == 6
    np.testing.assert_allclose(np.array([[*curve.values()] for curve in curves]).T, used, rtol=1e-6)
    assert used[0] != used[3]
    with (tmp_path / "logs" / "metrics.csv").open(newline="") as file:
        steps = [int(row["step"]) for row in csv.DictReader(file)]
    assert steps == sorted(steps)  # some loggers take no step before the last


@pytest.mark.slow
def test_a_killed_fit_goes_on_with_its_weights_to_the_bit(tmp_path: Path) -> None:
    options = [*SMALL, "--data.train_mask=0.2,0.5,0.8", "--data.permanent_mask=true", "--data.batch_size=16"]
    whole = fit(tmp_path / "whole", *options, model="RedCore", epochs=4)
    run = tmp_path / "run"
    words = ["fit", "--model", "RedCore", "--run_dir", str(run), "--trainer.max_epochs", "4", *options]
    assert fresh(*words, cwd=tmp_path, prelude=KILL.format(place="run/checkpoints")).returncode < 0
    assert main(["fit", "--resume", str(run)]) == 0
    found, expected = (weights(folder / "checkpoints" / "last.ckpt") for folder in (run, whole))
    assert same(found, expected) and int(expected["balance.step"]) > 12
    assert metrics(run)["confusion"] == metrics(whole)["confusion"]
    for name in ORDER:
        assert logged(run, f"train/beta/{name}", "step") == logged(whole, f"train/beta/{name}", "step")


DUMP = """
import json
from baselines.redcore import RedCore
log = RedCore._log_weights
def dump_and_log(self):
    with open(f"rank{self.trainer.global_rank}.jsonl", "a") as file:
        for step, row in self._used.items():
            file.write(json.dumps([step, *row.tolist()]) + chr(10))
    log(self)
RedCore._log_weights = dump_and_log
"""


@pytest.mark.slow
def test_two_devices_have_the_same_weights_at_each_step(tmp_path: Path) -> None:
    words = ["fit", "--model", "RedCore", *SMALL, "--trainer.max_epochs", "2", "--data.batch_size", "16"]
    words += ["--trainer.accelerator", "cpu", "--trainer.devices", "2", "--trainer.strategy", "ddp"]
    done = fresh(*words, "--run_dir", str(tmp_path / "run"), cwd=tmp_path, prelude=DUMP)
    assert done.returncode == 0, done.stderr
    first, second = ((tmp_path / f"rank{rank}.jsonl").read_text().splitlines() for rank in range(2))
    assert first == second
    rows = [json.loads(line) for line in first]
    assert [row[0] for row in rows] == list(range(len(rows))) and len({tuple(row[1:]) for row in rows}) > 2
