"""Three-stage contrast: our definitions (tests/data/papers/contrast.npz, float64), and that each stage trains its own.

Contrasts are compared with loops over anchors too.
"""

from __future__ import annotations

import csv
import math
from itertools import combinations
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.three_stage_contrastive import PARTS, STAGES, Interaction, ThreeStageContrastive, stage_of
from datamodules.batches.batch import Batch
from datamodules.conditions import per_modality
from datamodules.errors import InputError
from datamodules.linear_gaussian.generator import LinearGaussianCorpus
from datamodules.synthetic import Synthetic
from ifmmin.cli.main import main
from ifmmin.tasks import Regression
from ifmmin.testing import check_model
from tests.batches import CLASSES, DIMS, batch_of, learnable_utterances, random_batch, random_present, random_utterances
from tests.cli.running import fit, fresh, metrics, same, sample, weights
from tests.cli.test_resume import KILL
from tests.systems import close, load_system

GOLDEN = load_system("contrast", "papers")
EMBEDDING, LABEL, PRESENT = (GOLDEN[f"in/{name}"] for name in ("embedding", "label", "present"))
NARROW: dict[str, Any] = {
    "embedding_dim": 8, "heads": 2, "feedforward_dim": 8, "text_channels": 8, "hidden_dims": [8]
}  # fmt: skip
every_stage = pytest.mark.parametrize("stage", range(4))


def made(stage: int | None = None, **options: Any) -> ThreeStageContrastive:
    torch.manual_seed(0)
    given: dict[str, Any] = {"feature_dims": list(DIMS), "class_names": CLASSES}
    model = ThreeStageContrastive(**(given | NARROW | options)).double().eval()
    model.enter(stage)
    return model


def contrast(x: Tensor, kinds: list[int], temperature: float = 0.1) -> float:
    """Anchor by anchor; 0 without a positive."""
    x, found = x.detach() / x.detach().norm(dim=1, keepdim=True), []
    for i in range(len(x)):
        near = {k: math.exp(float(x[i] @ x[k]) / temperature) for k in range(len(x)) if k != i}
        positives = [k for k in near if kinds[k] == kinds[i]]
        if positives:
            total = math.fsum(near.values())
            found.append(-math.fsum(math.log(near[p] / total) for p in positives) / len(positives))
    return math.fsum(found) / max(1, len(found))


def test_contrast_of_classes() -> None:
    model = made(temperature=float(GOLDEN["in/temperature"]))
    kinds = LABEL[:, None].expand(-1, 3)
    close(model.contrast(EMBEDDING[PRESENT], kinds[PRESENT]), GOLDEN["out/supcon_all"])
    each = GOLDEN["out/supcon_per_modality"]
    for m in range(3):
        close(model.contrast(EMBEDDING[PRESENT[:, m], m], LABEL[PRESENT[:, m]]), each[m])
    close(model.unimodal(EMBEDDING, PRESENT, LABEL), each.mean())


def test_contrast_of_two_views() -> None:
    views = torch.cat([GOLDEN["in/view_one"], GOLDEN["in/view_two"]])
    close(made().contrast(views, torch.arange(6).repeat(2)), GOLDEN["out/ntxent_two_views"])


def test_stages_are_equal_quarters_and_the_last_trains_the_classifier() -> None:
    assert [stage_of(epoch, 40) for epoch in range(40)] == [epoch // 10 for epoch in range(40)]
    for epochs in range(1, 30):
        stages = [stage_of(epoch, epochs) for epoch in range(epochs)]
        assert stages == sorted(stages) and stages[-1] == 3
        if epochs >= 4:
            sizes = [stages.count(stage) for stage in range(4)]
            assert max(sizes) - min(sizes) <= 1 and min(sizes) >= 1


@torch.no_grad()
def test_the_interaction_reads_what_is_present_row_by_row() -> None:
    torch.manual_seed(0)
    interaction = Interaction(8, 2, 16, 0.1).double().eval()
    nn.init.normal_(interaction.modality)
    present = torch.from_numpy(random_present(14))
    h = torch.randn(14, 3, 8).double()
    hidden = h.masked_fill(~present[..., None], torch.nan)
    tokens, mean = interaction.tokens(hidden, present), interaction(hidden, present)
    for row in range(14):
        shown = (h + interaction.modality)[row, present[row]]
        expected = interaction.layer(shown[None])[0]
        torch.testing.assert_close(tokens[row, present[row]], expected)
        torch.testing.assert_close(mean[row], expected.mean(dim=0))
        assert not tokens[row, ~present[row]].any()


def test_the_terms_of_a_batch() -> None:
    """Of a corpus with gaps, by loops."""
    model = made(lambda_unimodal=0.2, lambda_interaction=0.3, lambda_fusion=0.4)
    stored = batch_of(random_utterances(12, partial=True))
    batch = batch_of(random_utterances(12, partial=True), random_present(12))
    batch.present = batch.present.where(batch.present.any(dim=1, keepdim=True), stored.present)
    labels = batch.labels.tolist()
    h, known = model.encoders(stored), stored.present
    each = [contrast(h[known[:, m], m], batch.labels[known[:, m]].tolist()) for m in range(3)]
    z = torch.cat([model.fuse(model.encoders(one), one.present) for one in (stored, batch)])
    found = {name: float(value.detach()) for name, value in model.losses(batch).items()}
    expected = {
        "unimodal": math.fsum(each) / 3,
        "interaction": contrast(z, 2 * list(range(12))),
        "fusion": contrast(z, 2 * labels),
        "cls": float(F.cross_entropy(model(batch), batch.labels).detach()),
    }
    assert found == pytest.approx(expected, rel=1e-9)
    total = expected["cls"] + 0.2 * expected["unimodal"] + 0.3 * expected["interaction"] + 0.4 * expected["fusion"]
    assert float(model.total_loss(model.losses(batch)).detach()) == pytest.approx(total, rel=1e-9)


@every_stage
def test_a_stage_has_its_term_alone(stage: int) -> None:
    model, batch = made(stage, lambda_fusion=0.5), random_batch(12)
    losses = model.losses(batch)
    assert list(losses) == [STAGES[stage][0]]
    model.enter(None)
    torch.testing.assert_close(losses, {STAGES[stage][0]: model.losses(batch)[STAGES[stage][0]]})
    model.enter(stage)
    torch.testing.assert_close(model.total_loss(losses), losses[STAGES[stage][0]])


@pytest.mark.parametrize("stage", [None, 0, 1, 2, 3])
def test_no_gradient_is_all_zero_but_of_what_is_frozen(stage: int | None) -> None:
    model = made(stage)
    nn.init.normal_(model.interaction.layer.self_attn.in_proj_bias)
    model.total_loss(model.losses(random_batch(24))).backward()
    for name, parameter in model.named_parameters():
        gradient = parameter.grad
        assert gradient is not None
        if not model.learns(name.partition(".")[0]):
            assert not gradient.any(), name
            continue
        # A bias of keys adds the same to all scores of a query.
        thirds = 3 if "in_proj" in name else 1
        for place, part in enumerate(gradient.chunk(thirds)):
            if not (name.endswith("in_proj_bias") and place == 1):
                assert bool(part.abs().max() > 1e-12), (name, place)


class Staged(ThreeStageContrastive):
    def __init__(self, *, at: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.enter(at)


@every_stage
def test_the_contract_in_each_stage(stage: int) -> None:
    check_model(Staged, at=stage, **NARROW)


@pytest.mark.parametrize("stage", [None, 0, 1, 2, 3])
@pytest.mark.parametrize("case", ["one row", "one class", "one member", "equal", "four classes"])
def test_batches_without_a_pair(stage: int | None, case: str) -> None:
    """Those without a modality are in the contract tests."""
    size = 1 if case == "one row" else 4
    batch = batch_of(random_utterances(1) * size if case == "equal" else random_utterances(size), random_present(size))
    if case != "four classes":
        batch.labels = torch.tensor([0, 0, 0, 1 if case == "one member" else 0])[:size]
    model = made(stage).train()
    losses = model.losses(batch)
    model.total_loss(losses).backward()
    assert all(bool(value.isfinite()) for value in losses.values())
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and bool(parameter.grad.isfinite().all()), name
    if stage == 0 and case in ("one row", "one class", "four classes"):
        assert not losses["unimodal"].any()


@every_stage
def test_what_is_frozen_runs_without_dropout(stage: int) -> None:
    model = made(stage, text_dropout=0.9, interaction_dropout=0.9).train()
    for part in PARTS:
        assert all(module.training is model.learns(part) for module in getattr(model, part).modules())
    assert not any(module.training for module in model.eval().modules())


def test_the_classifier_reads_what_is_frozen_as_an_answer_does() -> None:
    model, batch = made(3, text_dropout=0.9, interaction_dropout=0.9, dropout=0.0), random_batch(8)
    expected = F.cross_entropy(model(batch), batch.labels)
    close(model.train().losses(batch)["cls"], expected)
    assert not torch.equal(made(1, interaction_dropout=0.9).train()(batch), made(1)(batch))


@every_stage
def test_each_stage_lowers_its_own_loss(stage: int) -> None:
    utterances = learnable_utterances(64, seed=1)
    batch = batch_of(utterances, random_present(64))
    model = made(stage, feature_dims=[12, 14, 10])
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    history = []
    for _ in range(30):
        loss = model.total_loss(model.losses(batch))
        history.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        model.on_before_optimizer_step(optimizer)
        optimizer.step()
    assert history[-1] < 0.97 * history[0] and history[-1] == min(history)


class Remembered(ThreeStageContrastive):
    """Keeps the weights at the start of each epoch."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.history: list[dict[str, Tensor]] = []
        self.stages: list[int | None] = []

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        self.history.append({name: value.detach().clone() for name, value in self.named_parameters()})
        self.stages.append(self.stage)


def trained(folder: Path, epochs: int, size: int, **options: Any) -> tuple[Remembered, Synthetic]:
    torch.manual_seed(0)
    data = Synthetic(root=str(folder / "corpus"), utterances_per_speaker=size)
    model = Remembered(feature_dims=data.feature_dims, class_names=data.class_names, **options)
    trainer = L.Trainer(
        max_epochs=epochs,
        logger=False,
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        num_sanity_val_steps=0,
        accelerator="cpu",
    )
    trainer.fit(model, datamodule=data)
    model.history.append({name: value.detach().clone() for name, value in model.named_parameters()})
    return model, data


def test_in_a_fit_each_stage_moves_its_part_alone(tmp_path: Path) -> None:
    model, _ = trained(tmp_path, 8, 8, batch_size=16, weight_decay=0.1, **NARROW)
    assert model.stages == [0, 0, 1, 1, 2, 2, 3, 3]
    for epoch, stage in enumerate(model.stages):
        assert stage is not None
        before, after = model.history[epoch : epoch + 2]
        for name in before:
            moved = not torch.equal(before[name], after[name])
            assert not moved or name.startswith(STAGES[stage][1]), (epoch, name)
        assert any(not torch.equal(before[name], after[name]) for name in before if name.startswith(STAGES[stage][1]))


def test_a_joint_fit_moves_everything(tmp_path: Path) -> None:
    model, _ = trained(tmp_path, 1, 8, batch_size=16, joint=True, **NARROW)
    assert model.stages == [None]
    assert not any(torch.equal(model.history[0][name], value) for name, value in model.history[1].items())


def apart(values: Tensor, labels: Tensor) -> float:
    """Mean of values [N, N] of pairs within classes less that of pairs between them."""
    within: list[float] = []
    between: list[float] = []
    for i, j in combinations(range(len(labels)), 2):
        (within if labels[i] == labels[j] else between).append(float(values[i, j]))
    return math.fsum(within) / len(within) - math.fsum(between) / len(between)


def cosines(x: Tensor) -> Tensor:
    x = F.normalize(x.detach(), dim=1)
    return x @ x.T


def test_stage_1_keeps_classes_apart_where_they_are() -> None:
    """In every modality, of other utterances than it was trained on; what all frames share hides them at first."""
    batches = [batch_of(learnable_utterances(256, seed)) for seed in (1, 2)]
    for batch in batches:
        batch.frames = per_modality(part + 3 for part in batch.frames)
    model = made(0, feature_dims=[12, 14, 10], embedding_dim=16)
    untrained = model.encoders(batches[1])
    optimizer = torch.optim.Adam(model.encoders.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        model.total_loss(model.losses(batches[0])).backward()
        optimizer.step()
    for before, after in zip(untrained.unbind(dim=1), model.encoders(batches[1]).unbind(dim=1), strict=True):
        assert apart(cosines(before), batches[1].labels) < 0.15
        assert apart(cosines(after), batches[1].labels) >= 0.2


@pytest.mark.slow
def test_stage_1_keeps_classes_as_far_apart_as_they_are_in_the_built_in_corpus(tmp_path: Path) -> None:
    """A contrast is lowest where cos / τ is log p(y = y' | x, x') / p(y = y'), but for a constant (Oord et al., 2018).

    Of the exact posterior that gives 0.025, 0.018 and 0.075 as cosines: this corpus allows no more.
    """
    model, data = trained(tmp_path, 20, 400, learning_rate=1e-3)
    model.load_state_dict(dict(zip(model.stages, model.history[1:], strict=True))[0], strict=False)
    batch: Batch = next(iter(data.val_dataloader()))
    h = model.eval().encoders(batch.unmasked())
    source = LinearGaussianCorpus()
    sample = source.sample(600, np.random.default_rng(0))
    alone = np.eye(3, dtype=bool)[:, None]
    frames = [each.values for each in sample.frames], [each.offsets for each in sample.frames]
    for m, logs in enumerate(source.log_posterior_batch(*frames, alone)):
        ratio = np.log(np.exp(logs) / source.priors @ np.exp(logs).T)
        best = 0.1 * apart(torch.from_numpy(ratio), torch.from_numpy(sample.labels))
        assert 0.4 * best < apart(cosines(h[:, m]), batch.labels) < 1.4 * best


@pytest.mark.slow
def test_two_devices_train_every_stage(tmp_path: Path) -> None:
    """No device waits for a gradient."""
    words = ["fit", "--model", "ThreeStageContrastive", "--run_dir", "run", "--trainer.max_epochs", "4"]
    words += [*sample("IEMOCAP"), "--model.batch_size=8"]
    words += ["--trainer.accelerator", "cpu", "--trainer.devices", "2", "--trainer.strategy", "ddp"]
    done = fresh(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    with (tmp_path / "run" / "logs" / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for epoch, (name, _) in enumerate(STAGES):
        assert [int(row["epoch"]) for row in rows if row[f"train/{name}"]] == [epoch]


@pytest.mark.slow
def test_a_killed_fit_goes_on_in_its_stage_to_the_bit(tmp_path: Path) -> None:
    options = sample("IEMOCAP")
    whole = fit(tmp_path / "whole", *options, model="ThreeStageContrastive", epochs=8)
    run = tmp_path / "run"
    words = ["fit", "--model", "ThreeStageContrastive", "--run_dir", str(run), "--trainer.max_epochs", "8", *options]
    assert fresh(*words, cwd=tmp_path, prelude=KILL.format(place="run/checkpoints")).returncode < 0
    assert main(["fit", "--resume", str(run)]) == 0
    found, expected = (weights(folder / "checkpoints" / "last.ckpt") for folder in (run, whole))
    assert same(found, expected)
    assert metrics(run)["confusion"] == metrics(whole)["confusion"]


def test_options_that_do_not_fit() -> None:
    with pytest.raises(InputError, match="heads 3"):
        made(heads=3)
    with pytest.raises(InputError, match="not regression"):
        made(class_names=[], task=Regression(-3, 3).spec())
