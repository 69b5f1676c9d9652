"""Curriculum correlation: our definitions (tests/data/papers/curriculum.npz, float64), and that it finds noise."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from baselines import curriculum_correlation
from baselines.curriculum_correlation import PAIRS, Curriculum, CurriculumCorrelation, PairPredictor, buckets
from ifmmin.cli.main import main
from ifmmin.nn.correlation import largest_root, misalignment
from ifmmin.tasks import Regression
from ifmmin.testing import check_model
from tests.batches import CLASSES, DIMS, random_batch
from tests.cli.running import fit, fresh, metrics, same, sample, weights
from tests.cli.test_resume import KILL
from tests.systems import close, load_system

GOLDEN = load_system("curriculum", "papers")
NARROW: dict[str, Any] = {"embedding_dim": 8, "text_channels": 8, "hidden_dims": [8], "pair_dim": 8}


def made(**options: Any) -> CurriculumCorrelation:
    torch.manual_seed(0)
    given: dict[str, Any] = {"feature_dims": list(DIMS), "class_names": CLASSES}
    return CurriculumCorrelation(**(given | NARROW | options)).double().eval()


@pytest.fixture
def in_float64() -> Iterator[None]:
    """Distances of classes have the default dtype."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("in_float64")
def test_targets_of_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    label, expected = GOLDEN["in/label"], GOLDEN["out/pair_target"]
    others = (~torch.eye(6, dtype=torch.bool)).nonzero()
    monkeypatch.setattr(curriculum_correlation, "draw_misaligned", lambda known, count, generator: others)
    rows, tau = made().draw(torch.ones(6, 3, dtype=torch.bool), label, pair=0)
    assert {tuple(row) for row in rows.tolist()} == {(i, j) for i in range(6) for j in range(6)}
    close(tau, expected[rows[:, 0], rows[:, 1]])


@pytest.mark.usefixtures("in_float64")
def test_targets_of_triples() -> None:
    triples = GOLDEN["in/triples"]
    apart = (triples != triples[:, :1]).any(dim=1)
    for label, largest, name in (
        ("in/label", largest_root(3), "out/triple_target"),
        ("in/sentiment", float(GOLDEN["in/gamma"]), "out/triple_target_sentiment"),
    ):
        members = [GOLDEN[label][rows] for rows in triples[apart].unbind(dim=1)]
        close(misalignment(members, largest, float(GOLDEN["in/alpha"])), GOLDEN[name][apart])
        assert not GOLDEN[name][~apart].any()


def test_difficulty_and_buckets() -> None:
    difficulty = (GOLDEN["in/loss_pretrained"] + GOLDEN["in/loss_current"]) / 2
    close(difficulty, GOLDEN["out/difficulty"])
    count, discarded = int(GOLDEN["in/buckets"]), float(GOLDEN["in/discard"])
    assert torch.equal(buckets(difficulty, count, discarded), GOLDEN["out/bucket"])
    for stage in range(count):
        curriculum = Curriculum(count, discarded).double()
        curriculum.stage.fill_(stage)
        fed = curriculum.fed(difficulty, GOLDEN["in/loss_current"])
        assert torch.equal(fed, (GOLDEN["out/bucket"] >= 0) & (GOLDEN["out/bucket"] <= stage))


def test_actions_and_stages() -> None:
    """Of one loss per epoch: each bucket has it."""
    count = int(GOLDEN["in/buckets"])
    curriculum = Curriculum(count, 0.0, float(GOLDEN["in/tolerance"])).double()
    actions, stages = [], []
    for loss in GOLDEN["in/loss_history"]:
        curriculum.fed(torch.arange(float(count)), loss.expand(count))
        actions.append(curriculum.step(curriculum.taken()))
        stages.append(int(curriculum.stage))
    assert actions == GOLDEN["out/action"].tolist() and stages == GOLDEN["out/stage"].tolist()


@pytest.mark.parametrize("size", [1, 2, 9, 10, 19, 20, 100, 1234])
def test_the_hardest_tenth_has_no_bucket(size: int) -> None:
    difficulty = torch.rand(size, generator=torch.Generator().manual_seed(size))
    found = buckets(difficulty, 5, 0.1).numpy()
    hardest = set(np.argsort(difficulty.numpy())[size - size // 10 :].tolist())
    assert set(np.flatnonzero(found == -1).tolist()) == hardest
    kept = found[np.argsort(difficulty.numpy())][: size - size // 10]
    assert kept.tolist() == sorted(kept.tolist()) and kept[0] == 0
    sizes = np.bincount(kept, minlength=5)
    assert sizes.max() - sizes.min() <= 1 and len(sizes) == 5


def test_stages_move_by_one_and_stay_inside() -> None:
    curriculum, rng = Curriculum(4, 0.0, 0.01), np.random.default_rng(0)
    stages = [0]
    for _ in range(200):
        curriculum.fed(torch.arange(8.0), torch.from_numpy(rng.random(8)))
        curriculum.step(curriculum.taken())
        stages.append(int(curriculum.stage))
    assert set(stages) == {0, 1, 2, 3} and set(np.diff(stages).tolist()) == {-1, 0, 1}


def test_a_step_forward_is_not_taken_back_for_harder_pairs() -> None:
    """Losses fall by a tenth in each epoch; those of harder buckets are far larger."""
    curriculum, losses = Curriculum(3, 0.0, 0.001), torch.tensor([0.1, 0.5, 2.0])
    actions = []
    for epoch in range(5):
        curriculum.fed(losses, 0.9**epoch * losses)
        actions.append(curriculum.step(curriculum.taken()))
    assert actions == [0, 1, 1, 1, 1] and int(curriculum.stage) == 2


def test_only_training_counts() -> None:
    curriculum = Curriculum().eval()
    curriculum.fed(torch.rand(10), torch.rand(10))
    assert not curriculum.taken().any()


def embeddings(labels: Tensor, seed: int) -> Tensor:
    """Embeddings [N, 3, 8] that show, in each modality in another way, the class and who it is."""
    world, own = torch.Generator().manual_seed(0), torch.Generator().manual_seed(seed)
    means = 2.5 * torch.eye(4)
    views = torch.randn(3, 6, 8, generator=world) / 6**0.5
    blur, who = (torch.randn(len(labels), width, generator=own) for width in (4, 2))
    z = torch.cat([means[labels] + 0.3 * blur, who], dim=1)
    return torch.einsum("nd,mde->nme", z, views)


def taught(labels: Tensor, h: Tensor, model: CurriculumCorrelation, steps: int) -> None:
    """Train the predictor alone on pairs, after the warm-up on those that the curriculum feeds."""
    optimizer = torch.optim.Adam(model.predictor.parameters(), lr=3e-3)
    known = torch.ones(len(h), 3, dtype=torch.bool)
    for _ in range(steps):
        drawn = [model.draw(known, labels, pair) for pair in range(len(PAIRS))]
        losses = model.pair_losses(model.predictor, h, drawn)
        if bool(model.ready):
            before = model.pair_losses(model.pretrained.predictor, h, drawn)
            losses = losses[model.curriculum.fed((before + losses.detach()) / 2, losses)]
        optimizer.zero_grad()
        losses.mean().backward()
        optimizer.step()


@pytest.mark.parametrize("seed", range(3))
def test_pairs_of_flipped_labels_are_discarded(seed: int) -> None:
    torch.manual_seed(seed)
    model = CurriculumCorrelation(feature_dims=list(DIMS), class_names=CLASSES, **NARROW, misaligned=4)
    model.predictor = PairPredictor(8, 32)
    model.pretrained = curriculum_correlation.Pretrained(model.encoders, model.predictor)
    true = torch.randint(4, (256,))
    flipped = torch.rand(256) < 0.1
    labels = torch.where(flipped, (true + torch.randint(1, 4, (256,))) % 4, true)
    h = embeddings(true, seed)
    taught(labels, h, model.train(), steps=150)
    model.pretrained.copy_from(model.encoders, model.predictor)
    model.ready.fill_(True)
    model.curriculum.stage.fill_(4)
    taught(labels, h, model, steps=50)

    known = torch.ones(256, 3, dtype=torch.bool)
    drawn = [model.draw(known, labels, pair) for pair in range(3)]
    with torch.no_grad():
        losses = [model.pair_losses(each, h, drawn) for each in (model.pretrained.predictor, model.predictor)]
    rows = torch.cat([rows for rows, _ in drawn])
    same_label, same_class = (each[rows[:, 0]] == each[rows[:, 1]] for each in (labels, true))
    wrong, discarded = same_label != same_class, buckets((losses[0] + losses[1]) / 2, 5, 0.1) == -1
    found = (wrong & discarded).sum()
    assert float(found / discarded.sum()) >= 0.5 and float(found / wrong.sum()) >= 0.7
    # Of others: it tells both who belongs together and who shares a class, which no constant does.
    other = torch.randint(4, (256,))
    test = [model.draw(known, other, pair) for pair in range(3)]
    with torch.no_grad():
        error = float(model.pair_losses(model.predictor, embeddings(other, seed + 10), test).mean())
    tau = torch.cat([tau for _, tau in test])
    assert error < 0.5 * float((tau - tau.median()).abs().mean())


def ready(stage: int) -> CurriculumCorrelation:
    """A model after its warm-up, whose copy has weights of its own."""
    model = made()
    with torch.no_grad():
        for parameter in model.pretrained.parameters():
            parameter.mul_(1.5)
    model.ready.fill_(True)
    model.curriculum.stage.fill_(stage)
    return model


@pytest.mark.parametrize("stage", [0, 3])
def test_the_loss_of_what_is_fed(stage: int) -> None:
    """Pair by pair."""
    model, batch = ready(stage), random_batch(12)
    whole, pairs = batch.unmasked(), []
    with torch.no_grad():
        h, before = model.encoders(whole), model.pretrained.encoders(whole)
        for pair, (m, n) in enumerate(PAIRS):
            rows, _ = model.draw(whole.present, batch.labels, pair)
            for i, j in rows.tolist():
                tau = 0.0 if i == j else 1.0 if batch.labels[i] != batch.labels[j] else 0.1 / 1.1
                one = abs(float(model.predictor(pair, h[[i], m], h[[j], n])) - tau)
                other = abs(float(model.pretrained.predictor(pair, before[[i], m], before[[j], n])) - tau)
                pairs.append(((one + other) / 2, one))
        pairs.sort()
        kept = pairs[: len(pairs) - len(pairs) // 10]
        fed = [loss for place, (_, loss) in enumerate(kept) if place * 5 // len(kept) <= stage]
        found = float(model.losses(batch)["correlation"])
    assert found == pytest.approx(math.fsum(fed) / len(fed), rel=1e-6)
    assert len(pairs) == 3 * (12 + 24)


def test_the_warm_up_feeds_everything_and_teaches_the_encoders_correlation_alone() -> None:
    model, batch = made(), random_batch(12)
    model.losses(batch)["cls"].backward()
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in model.encoders.parameters())
    assert all(bool(parameter.grad.any()) for parameter in model.classifier.parameters() if parameter.grad is not None)
    whole = batch.unmasked()
    drawn = [model.draw(whole.present, batch.labels, pair) for pair in range(3)]
    expected = model.pair_losses(model.predictor, model.encoders(whole), drawn).mean()
    torch.testing.assert_close(model.losses(batch)["correlation"], expected)
    after = ready(0)
    after.losses(batch)["cls"].backward()
    assert all(bool(parameter.grad.any()) for parameter in after.encoders.parameters() if parameter.grad is not None)


@pytest.mark.parametrize("model", [made(), ready(4)])
def test_no_gradient_is_all_zero(model: CurriculumCorrelation) -> None:
    model.total_loss(model.losses(random_batch(24))).backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and bool(parameter.grad.abs().max() > 1e-12), name
        else:
            assert name.startswith("pretrained.")


def test_the_copy_stays_as_it_was_taken() -> None:
    model = made(text_dropout=0.9).train()
    assert not any(module.training for module in model.pretrained.modules())
    batch = random_batch(8)
    model.pretrained.copy_from(model.encoders, model.predictor)
    h = model.pretrained.encoders(batch.unmasked())
    assert not h.requires_grad
    torch.testing.assert_close(h, model.eval().encoders(batch.unmasked()).detach())


def test_the_mask_does_not_change_the_pairs() -> None:
    model, batch = ready(2), random_batch(12)
    other = replace(batch, present=batch.present.flip(0))
    torch.testing.assert_close(model.losses(other)["correlation"], model.losses(batch)["correlation"])
    assert not torch.equal(model.losses(other)["cls"], model.losses(batch)["cls"])


class AfterWarmup(CurriculumCorrelation):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.ready.fill_(True)


@pytest.mark.parametrize("options", [{}, {"class_names": [], "task": Regression(-3, 3).spec()}])
def test_the_contract_after_the_warm_up(options: dict[str, Any]) -> None:
    check_model(AfterWarmup, **NARROW, **options)


def test_the_scale_of_values_follows_the_task() -> None:
    assert made().largest == 1 and made(class_names=[], task=Regression(-3, 3).spec()).largest == 6


@pytest.mark.slow
def test_a_killed_fit_goes_on_with_its_stage_to_the_bit(tmp_path: Path) -> None:
    options = [*sample("IEMOCAP"), "--model.pretraining_epochs=1", "--model.tolerance=0"]
    whole = fit(tmp_path / "whole", *options, model="CurriculumCorrelation", epochs=6)
    run = tmp_path / "run"
    words = ["fit", "--model", "CurriculumCorrelation", "--run_dir", str(run), "--trainer.max_epochs", "6", *options]
    assert fresh(*words, cwd=tmp_path, prelude=KILL.format(place="run/checkpoints")).returncode < 0
    assert main(["fit", "--resume", str(run)]) == 0
    found, expected = (weights(folder / "checkpoints" / "last.ckpt") for folder in (run, whole))
    assert same(found, expected) and bool(expected["ready"]) and bool(expected["curriculum.previous"].any())
    with (whole / "logs" / "metrics.csv").open(newline="") as file:
        stages = {float(row["train/stage"]) for row in csv.DictReader(file) if row["train/stage"]}
    assert stages == {0.0, 1.0}
    assert metrics(run)["confusion"] == metrics(whole)["confusion"]


COUNTED = """
import os
from baselines.curriculum_correlation import Curriculum
fed = Curriculum.fed
def counted(self, difficulty, losses):
    if self.training:
        with open("rank" + os.environ.get("LOCAL_RANK", "0"), "a") as file:
            print(float(losses.sum()), len(losses), file=file)
    return fed(self, difficulty, losses)
Curriculum.fed = counted
"""


@pytest.mark.slow
def test_two_devices_step_by_the_losses_of_both(tmp_path: Path) -> None:
    words = ["fit", "--model", "CurriculumCorrelation", "--run_dir", "run", "--trainer.max_epochs", "2"]
    words += [*sample("IEMOCAP"), "--model.pretraining_epochs=1", "--model.batch_size=8", "--model.discarded=0"]
    words += ["--trainer.accelerator", "cpu", "--trainer.devices", "2", "--trainer.strategy", "ddp"]
    done = fresh(*words, cwd=tmp_path, prelude=COUNTED)
    assert done.returncode == 0, done.stderr
    each = [np.loadtxt(tmp_path / f"rank{rank}", ndmin=2) for rank in range(2)]
    assert len(each[0]) > 2 and len(each[1]) > 2
    found = weights(tmp_path / "run" / "checkpoints" / "last.ckpt")["curriculum.previous"].sum(dim=1)
    np.testing.assert_allclose(found.numpy(), sum(part.sum(axis=0) for part in each), rtol=1e-4)
