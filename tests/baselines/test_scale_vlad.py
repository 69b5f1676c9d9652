"""ScaleVLAD's definitions (tests/data/papers/scale_vlad.npz, float64), its descriptors, and how its clusters move."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, cast

import lightning as L
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from baselines.scale_vlad import ScaleVLAD, SharedTopics, ShiftedClusters, normalised, window_means
from datamodules import Synthetic
from datamodules.batches.batch import Batch
from datamodules.batches.visible import under_conditions
from datamodules.conditions import CONDITIONS, MODALITIES
from datamodules.errors import InputError
from ifmmin.cli.main import main
from ifmmin.tasks import Regression
from ifmmin.testing import check_model
from tests.batches import CLASSES, DIMS, random_batch
from tests.cli.running import SMALL, fit, fresh, metrics, same, weights
from tests.cli.test_resume import KILL
from tests.systems import close, load_system

GOLDEN = load_system("scale_vlad", "papers")
SMALL_MODEL: dict[str, Any] = {"dim": 8, "heads": 2, "feedforward_dim": 6, "topics": 3}


def made(**options: Any) -> ScaleVLAD:
    torch.manual_seed(0)
    given = {"feature_dims": list(DIMS), "class_names": CLASSES, **SMALL_MODEL}
    return ScaleVLAD(**(given | options)).double().eval()


def golden_topics(averaged: bool = False) -> SharedTopics:
    topics = SharedTopics(4, 3, GOLDEN["in/scales"].tolist(), averaged).double()
    names = {"assignment.weight": "assignment_weight", "assignment.bias": "assignment_bias", "centres": "centres"}
    topics.load_state_dict({ours: GOLDEN[f"in/{theirs}"] for ours, theirs in names.items()})
    return topics


def golden_clusters(patience: int) -> ShiftedClusters:
    clusters = ShiftedClusters(3, 4, 0.9, patience).double()
    clusters.centres.copy_(GOLDEN["in/clusters"])
    return clusters


def of_modalities(topics: SharedTopics) -> Tensor:
    """V [B, 3, K, d] of the golden frames, 0 where absent."""
    found = [topics(GOLDEN[f"in/{name}"], GOLDEN["in/lengths"][:, m]) for m, name in enumerate(MODALITIES)]
    return torch.stack(found, dim=1) * GOLDEN["in/present"][..., None, None]


def windows_by_hand(frames: Tensor, size: int) -> Tensor:
    """Window means of true frames [L, d], one after the other."""
    return torch.stack([frames[start : start + size].mean(dim=0) for start in range(0, len(frames), size)])


@torch.no_grad()
def test_descriptors() -> None:
    residuals = of_modalities(golden_topics())
    close(residuals.sum(dim=1), GOLDEN["out/residuals"])
    close(normalised(residuals.sum(dim=1)).flatten(1), GOLDEN["out/descriptor"])


@torch.no_grad()
def test_every_window_is_assigned_once() -> None:
    """Mass is the number of windows, by topic as the golden file has it."""
    topics, mass, windows = golden_topics(), torch.zeros(3, 3).double(), []
    for size in topics.scales:
        for m, name in enumerate(MODALITIES):
            means, counts = window_means(GOLDEN[f"in/{name}"], GOLDEN["in/lengths"][:, m], size)
            counts = counts * GOLDEN["in/present"][:, m]
            mass += topics.assign(means, counts).sum(dim=1)
            windows.append(counts)
    close(mass, GOLDEN["out/mass"])
    counted = torch.stack(windows, dim=1)
    close(mass.sum(dim=1), counted.sum(dim=1).double())
    assert counted.view(3, 3, 3).sum().item() == GOLDEN["out/windows"].sum().item()


def test_windows_are_means_of_true_frames() -> None:
    frames, lengths = torch.randn(4, 7, 2).double(), torch.tensor([7, 1, 4, 0])
    for size in (1, 2, 3, 9):
        means, counts = window_means(frames, lengths, size)
        for row, length in enumerate(lengths.tolist()):
            count = math.ceil(length / size)
            assert counts[row] == count and not means[row, count:].any()
            if length:
                close(means[row, :count], windows_by_hand(frames[row, :length], size))


@torch.no_grad()
def test_what_a_descriptor_does_not_depend_on() -> None:
    """Padding, and at scale 1 the order of frames; the order of modalities never."""
    topics, frames, lengths = golden_topics(), GOLDEN["in/audio"].clone(), GOLDEN["in/lengths"][:, 0]
    expected = topics(frames, lengths)
    for row, length in enumerate(lengths):
        frames[row, length:] = torch.nan
    close(topics(F.pad(frames, (0, 0, 0, 5), value=1e9), lengths), expected)
    single = SharedTopics(4, 3, [1]).double()
    single.load_state_dict(topics.state_dict())
    turned = torch.stack([torch.cat([each[:n].flip(0), each[n:]]) for each, n in zip(frames, lengths, strict=True)])
    close(single(turned, lengths), single(frames, lengths))
    assert not torch.allclose(topics(turned, lengths), expected)
    model, residuals = made(), torch.randn(5, 3, 3, 8).double()
    close(model.fuse(residuals[:, [2, 0, 1]]), model.fuse(residuals))


@torch.no_grad()
@pytest.mark.parametrize("averaged", [False, True])
def test_a_sequence_twice_has_the_same_descriptor(averaged: bool) -> None:
    topics, frames, lengths = golden_topics(averaged), torch.randn(2, 12, 4).double(), torch.tensor([12, 6])
    twice = torch.zeros(2, 24, 4).double()
    for row, length in enumerate(lengths.tolist()):
        twice[row, : 2 * length] = frames[row, :length].repeat(2, 1)
    close(normalised(topics(twice, 2 * lengths)), normalised(topics(frames, lengths)))
    assert torch.allclose(topics(twice, 2 * lengths), (1 if averaged else 2) * topics(frames, lengths))


@torch.no_grad()
def test_without_centres_and_assignment_topics_share_the_sum() -> None:
    topics = golden_topics()
    for parameter in topics.parameters():
        parameter.zero_()
    frames, length = torch.randn(7, 4).double(), torch.tensor([7])
    total = sum((windows_by_hand(frames, size).sum(dim=0) for size in topics.scales), torch.zeros(4).double())
    close(topics(frames[None], length)[0], (total / 3).expand(3, 4))


@torch.no_grad()
@pytest.mark.parametrize("per_modality", [False, True])
def test_an_answer_row_by_row(per_modality: bool) -> None:
    """Every condition of an utterance, from its own true frames and windows, one after the other."""
    model = made(per_modality=per_modality)
    stored = random_batch(3, seed=4, padding=2)
    batch, _ = under_conditions(stored, CONDITIONS)
    outputs = model(batch)
    for row, (utterance, present) in enumerate(zip(batch.row.tolist(), batch.present, strict=True)):
        V = torch.zeros(3, 8).double()
        for m, name in enumerate(MODALITIES):
            if not present[m]:
                continue
            frames = stored.frames[m][utterance, : stored.lengths[utterance, m]]
            encoder: Any = model.encoders[name]
            z = F.conv1d(frames.T[None], encoder.convolution.weight, encoder.convolution.bias, padding=1)[0].T
            place, rate = np.arange(1, len(z) + 1)[:, None], 1e4 ** (-np.arange(4) / 3)
            z = z + torch.from_numpy(np.concatenate([np.sin(place * rate), np.cos(place * rate)], axis=1))
            states = encoder.layer(z[None])[0]
            for size in (1, 2, 4):
                windows = windows_by_hand(states, size)
                for f in windows:
                    a = (model.topics.assignment.weight @ f + model.topics.assignment.bias).softmax(dim=0)
                    V += a[:, None] * (f - model.topics.centres) / (len(windows) if per_modality else 1)
        V = V / V.norm(dim=1, keepdim=True)
        r = model.fusion((24**0.5 * V / V.norm())[None])[0].mean(dim=0)
        close(outputs[row], model.head(r))


@torch.no_grad()
def test_pseudo_labels_loss_and_movement() -> None:
    clusters, r = golden_clusters(patience=7), GOLDEN["in/fused"]
    assert clusters.nearest(r).tolist() == GOLDEN["out/pseudo_label"].tolist()
    close(clusters(r), GOLDEN["out/clustering_loss"])
    clusters.move(clusters.summary(r)[None])
    close(clusters.centres, GOLDEN["out/moved_clusters"])
    assert clusters.idle.tolist() == [0, 0, 6]


@torch.no_grad()
def test_a_pseudo_label_does_not_depend_on_other_rows() -> None:
    clusters, r = golden_clusters(patience=7), GOLDEN["in/fused"]
    alone = [clusters.nearest(each[None]).item() for each in r]
    assert alone == clusters.nearest(r).tolist() == clusters.nearest(r.flip(0)).flip(0).tolist()


@torch.no_grad()
def test_a_cluster_without_members_begins_at_the_farthest_row() -> None:
    clusters, r = golden_clusters(patience=6), GOLDEN["in/fused"]
    farthest = clusters.distances(r).amin(dim=1).argmax()
    clusters.move(clusters.summary(r)[None])
    close(clusters.centres[:2], GOLDEN["out/moved_clusters"][:2])
    assert torch.equal(clusters.centres[2], r[farthest]) and not clusters.idle.any()
    assert 2 in clusters.nearest(r)


@torch.no_grad()
def test_several_clusters_begin_at_different_rows_and_none_where_rows_run_out() -> None:
    clusters = ShiftedClusters(4, 2, 0.9, patience=2).double()
    clusters.centres.copy_(torch.tensor([[0.0, 0.0], [90.0, 0.0], [0.0, 90.0], [90.0, 90.0]]))
    clusters.move(clusters.summary(torch.tensor([[1.0, 0.0], [3.0, 0.0]]).double())[None])
    close(clusters.centres, torch.tensor([[0.2, 0], [3, 0], [1, 0], [90, 90]], dtype=torch.float64))
    assert clusters.idle.tolist() == [0, 0, 0, 2]


@torch.no_grad()
@pytest.mark.parametrize("patience", [6, 7])
def test_several_devices_move_clusters_as_one(patience: int) -> None:
    one, several = golden_clusters(patience), golden_clusters(patience)
    r = GOLDEN["in/fused"]
    one.move(one.summary(r)[None])
    several.move(torch.stack([several.summary(part) for part in r.split([1, 3, 2])]))
    close(several.centres, one.centres)
    assert torch.equal(several.idle, one.idle)


def test_equal_rows_and_zero_residuals_have_finite_gradients() -> None:
    clusters, r = golden_clusters(patience=6), torch.ones(5, 4).double().requires_grad_()
    clusters(r).backward()
    clusters.move(clusters.summary(r.detach())[None])
    assert r.grad is not None and bool(r.grad.isfinite().all()) and bool(clusters.centres.isfinite().all())
    V = torch.zeros(2, 3, 4).double().requires_grad_()
    normalised(V).sum().backward()
    assert V.grad is not None and float(V.grad.abs().max()) < 1e13


def test_no_gradient_is_all_zero() -> None:
    model, batch = made(), random_batch(12)
    model.total_loss(model.losses(batch)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        # Shifting every key by one vector changes no attention.
        stacked = "in_proj" in name
        parts = dict(zip(("query", "key", "value"), parameter.grad.chunk(3), strict=True)) if stacked else {}
        for part, gradient in parts.items() or [("", parameter.grad)]:
            assert bool(gradient.abs().max() > 1e-9) != ("bias" in name and part == "key"), (name, part)


@torch.no_grad()
def test_losses_and_options() -> None:
    model, batch = made(lambda_clustering=0.3), random_batch(12)
    losses = model.losses(batch)
    r = model.fuse(model.residuals(batch))
    distances = torch.cdist(r, model.clusters.centres).square()
    close(losses["clustering"], F.cross_entropy(-distances, distances.argmin(dim=1)))
    close(losses["cls"], F.cross_entropy(model(batch), batch.label))
    close(model.total_loss(losses), losses["cls"] + 0.3 * losses["clustering"])
    assert len(model.clusters.centres) == 8 and len(made(clusters=5).clusters.centres) == 5
    assert model.modality_embeddings(batch).shape == (12, 3, 24)
    with pytest.raises(InputError, match="heads 3: it must divide dim 8"):
        made(heads=3)


@pytest.mark.parametrize("options", [{"per_modality": True, "scales": [3]}, {"task": Regression().spec()}])
def test_the_contract_with_other_options(options: dict[str, Any]) -> None:
    check_model(ScaleVLAD, **(SMALL_MODEL | options))


@torch.no_grad()
def test_an_utterance_is_read_once_for_all_conditions(monkeypatch: pytest.MonkeyPatch) -> None:
    model, read = made(), []
    whole = SharedTopics.forward

    def counted(self: SharedTopics, frames: Tensor, lengths: Tensor) -> Tensor:
        read.append(len(frames))
        return whole(self, frames, lengths)

    monkeypatch.setattr(SharedTopics, "forward", counted)
    model(under_conditions(random_batch(5), CONDITIONS)[0])
    assert read == [5, 5, 5]


def test_clusters_move_once_a_training_step_after_the_loss_has_read_them() -> None:
    data = Synthetic(utterances_per_speaker=12)
    model = ScaleVLAD(feature_dims=data.feature_dims, class_names=data.class_names, batch_size=32, **SMALL_MODEL)
    moved: list[tuple[Tensor, Tensor]] = []
    losses, started = model.losses, model.clusters.centres.clone()

    def noted(batch: Batch) -> dict[str, Tensor]:
        read = model.clusters.centres.clone()
        found = losses(batch)
        assert torch.equal(model.clusters.centres, read)
        if model.training:
            moved.append((read, cast(Tensor, model._fused)))
        return found

    model.losses = noted  # type: ignore[method-assign]
    silent: dict[str, Any] = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    trainer = L.Trainer(max_epochs=3, accelerator="cpu", enable_checkpointing=False, num_sanity_val_steps=0, **silent)
    trainer.fit(model, data)
    expected = ShiftedClusters(8, 8, 0.9, 32)
    expected.centres.copy_(started)
    for read, r in moved:
        assert torch.equal(expected.centres, read)
        expected.move(expected.summary(r)[None])
    assert torch.equal(expected.centres, model.clusters.centres) and len(moved) > 6


def test_trained_clusters_are_in_use() -> None:
    """Their entropy over fused features of the test split is above log 2."""
    data = Synthetic(utterances_per_speaker=40)
    options = SMALL_MODEL | {"dim": 16, "lambda_clustering": 1.0, "learning_rate": 2e-3}
    torch.manual_seed(0)
    model = ScaleVLAD(feature_dims=data.feature_dims, class_names=data.class_names, **options)
    silent: dict[str, Any] = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    trainer = L.Trainer(max_epochs=15, accelerator="cpu", enable_checkpointing=False, num_sanity_val_steps=0, **silent)
    trainer.fit(model, data)
    with torch.no_grad():
        model.eval()
        found = [model.clusters.nearest(model.fuse(model.residuals(batch))) for batch in data.test_dataloader()]
    share = torch.cat(found).bincount(minlength=8) / len(torch.cat(found))
    assert float(-torch.xlogy(share, share).sum()) > math.log(2)


@pytest.mark.slow
def test_a_killed_fit_goes_on_with_its_clusters_to_the_bit(tmp_path: Path) -> None:
    options = [*SMALL, "--model.dim=8", "--data.batch_size=16"]
    whole = fit(tmp_path / "whole", *options, model="ScaleVLAD", epochs=4)
    run = tmp_path / "run"
    words = ["fit", "--model", "ScaleVLAD", "--run_dir", str(run), "--trainer.max_epochs", "4", *options]
    assert fresh(*words, cwd=tmp_path, prelude=KILL.format(place="run/checkpoints")).returncode < 0
    assert main(["fit", "--resume", str(run)]) == 0
    found, expected = (weights(folder / "checkpoints" / "last.ckpt") for folder in (run, whole))
    assert same(found, expected) and "clusters.centres" in expected
    assert metrics(run)["confusion"] == metrics(whole)["confusion"]


DUMP = """
from baselines.scale_vlad import ShiftedClusters
import os
move = ShiftedClusters.move
def move_and_dump(self, summaries):
    move(self, summaries)
    with open("rank" + os.environ.get("LOCAL_RANK", "0") + ".txt", "a") as file:
        print(len(summaries), self.centres.double().flatten().tolist(), self.idle.tolist(), file=file)
ShiftedClusters.move = move_and_dump
"""


@pytest.mark.slow
def test_two_devices_have_the_same_clusters_at_each_step(tmp_path: Path) -> None:
    words = ["fit", "--model", "ScaleVLAD", *SMALL, "--trainer.max_epochs", "2", "--data.batch_size", "16"]
    words += ["--model.dim", "8", "--trainer.accelerator", "cpu", "--trainer.devices", "2", "--trainer.strategy", "ddp"]
    done = fresh(*words, "--run_dir", str(tmp_path / "run"), cwd=tmp_path, prelude=DUMP)
    assert done.returncode == 0, done.stderr
    first, second = ((tmp_path / f"rank{rank}.txt").read_text().splitlines() for rank in range(2))
    assert first == second and len(set(first)) == len(first) > 2
    assert all(line.startswith("2 ") for line in first)
