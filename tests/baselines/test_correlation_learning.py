"""MCL's parity with its published code (tests/data/systems/lf_mcl_lmr_gcnet.npz, float64), and its own parts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from baselines import correlation_learning
from baselines.correlation_learning import CorrelationLearning
from ifmmin.nn.correlation import misalignment
from ifmmin.tasks import Regression
from ifmmin.testing import check_model
from tests.batches import CLASSES, DIMS, random_batch
from tests.systems import close, load_system

GOLDEN = load_system("lf_mcl_lmr_gcnet")
LARGEST = 10.39
"""The published γ on MOSI, rounded."""
ORDER = [2, 1, 0]
"""Of audio, visual, text in the published indices, which are of text, visual, audio."""


def made(**options: Any) -> CorrelationLearning:
    torch.manual_seed(0)
    small: dict[str, Any] = {"embedding_dim": 8, "text_channels": 8, "hidden_dims": [8], "class_names": CLASSES}
    return CorrelationLearning(feature_dims=list(DIMS), **(small | options)).double().eval()


def test_published_targets() -> None:
    labels = GOLDEN["in_mcl/labels"]
    members = [labels[rows] for rows in GOLDEN["in_mcl/negative_indices_text_visual_audio"].unbind(dim=1)]
    close(misalignment(members, LARGEST), GOLDEN["out_mcl/negative_targets"])


@torch.no_grad()
def test_published_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = GOLDEN["in_mcl/negative_indices_text_visual_audio"][:, ORDER]
    monkeypatch.setattr(correlation_learning, "draw_misaligned", lambda known, count, generator: drawn)
    model = made(embedding_dim=3, class_names=[], task=Regression(-3, 3).spec())
    assert model.largest == pytest.approx(LARGEST, abs=0.005)
    model.largest = LARGEST
    weight = GOLDEN["param_mcl/classifier3.weight"].unflatten(1, (3, 3))[:, ORDER]
    model.predictor.weight.copy_(weight.flatten(1))
    model.predictor.bias.copy_(GOLDEN["param_mcl/classifier3.bias"])
    h = torch.stack([GOLDEN[f"in_mcl/{short}"] for short in "avl"], dim=1)
    known = torch.ones(h.shape[:2], dtype=torch.bool)
    close(model.correlation(h, known, GOLDEN["in_mcl/labels"]), GOLDEN["loss_mcl/correlation_L1"])


def test_the_task_is_learnt_under_the_mask_and_correlation_of_whole_utterances() -> None:
    model, batch = made(), random_batch(12)
    losses = model.losses(batch)
    torch.testing.assert_close(losses["cls"], model.task.loss(model(batch), batch.target))
    other = replace(batch, present=batch.present.flip(0))
    torch.testing.assert_close(model.losses(other)["correlation"], losses["correlation"])
    assert not torch.equal(model.losses(other)["cls"], losses["cls"])


@torch.no_grad()
def test_aligned_members_are_those_of_utterances_that_have_all() -> None:
    """Of two utterances no three members are different: the aligned one remains."""
    model = made()
    known = torch.tensor([[True, True, True], [True, False, True]])
    h, labels = torch.randn(2, 3, 8).double(), torch.tensor([0, 1])
    h[1, 1] = torch.nan
    expected = model.predictor(h[0].flatten()).abs()[0]
    torch.testing.assert_close(model.correlation(h, known, labels), expected)


def test_correlation_of_nothing_has_a_zero_gradient() -> None:
    model = made().train()
    h, known = torch.randn(2, 3, 8).double().requires_grad_(), torch.zeros(2, 3, dtype=torch.bool)
    loss = model.correlation(h, known, torch.tensor([0, 1]))
    loss.backward()
    assert float(loss.detach()) == 0
    assert h.grad is not None and not h.grad.any()
    assert model.predictor.weight.grad is not None and not model.predictor.weight.grad.any()


def test_misaligned_members_are_drawn_anew_in_training_alone() -> None:
    model, batch = made(text_dropout=0.0), random_batch(12)

    def correlation() -> Tensor:
        return model.losses(batch)["correlation"].detach()

    assert torch.equal(correlation(), correlation())
    model.train()
    assert not torch.equal(correlation(), correlation())


def test_the_scale_of_values_follows_the_task() -> None:
    assert made().largest == pytest.approx(3**0.5)
    assert made(class_names=[], task=Regression(-1, 1).spec()).largest == pytest.approx(2 * 3**0.5)


def test_soft_labels_are_those_of_certain_classes() -> None:
    model, batch = made(), random_batch(12)
    soft = torch.nn.functional.one_hot(batch.labels, len(CLASSES)).float()
    expected = model.losses(batch)
    for name, value in model.losses(replace(batch, soft_labels=soft)).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-6, atol=1e-6)


def test_the_contract_with_values() -> None:
    check_model(CorrelationLearning, embedding_dim=8, text_channels=8, class_names=[], task=Regression(-3, 3).spec())
