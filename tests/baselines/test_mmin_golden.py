"""MMIN's parity with the published implementation, which computed tests/data/reference.npz (float64)."""

from __future__ import annotations

from typing import Any, TypeVar

import pytest
import torch

from baselines.mmin import MMIN, MMINWithoutCycle
from ifmmin.checkpoints.published import published_parts
from tests.golden import (
    CASCADE,
    CLASSES,
    CLASSIFIER,
    DIMS,
    ENCODER_NETWORKS,
    ENCODERS,
    GOLDEN,
    check_gradient_norms,
    close,
    golden_batch,
    in_our_order,
    load,
    networks,
)

Model = TypeVar("Model", bound=MMINWithoutCycle)

PUBLISHED = {**ENCODER_NETWORKS, "imagination": "AE", "classifier": "C"}


def golden_model(kind: type[Model], *names: str, **settings: Any) -> Model:
    model = (
        kind(feature_dims=DIMS, class_names=CLASSES, **ENCODERS, **CASCADE, **CLASSIFIER, **settings).double().eval()
    )
    model.load_stage1(published_parts(networks("teacher"), stage=1))
    load(model, published_parts(networks("student", "AE", "C", *names), stage=2))
    return model


@pytest.mark.parametrize("remembered", [False, True], ids=["teacher computed", "teacher remembered"])
def test_mmin(remembered: bool) -> None:
    batch = golden_batch()
    model = golden_model(MMIN, "AE_cycle")
    if remembered:
        model.teacher.remember([batch], len(batch))
    out = model.imagine(batch)
    close(out.embeddings, in_our_order(GOLDEN["out/h_missing_alv"]))
    close(model.teacher.absent_part(batch).flatten(1), in_our_order(GOLDEN["out/target_h_missing_alv"]))
    close(out.imagined, in_our_order(GOLDEN["out/mmin/imagined"]))
    close(out.joint, GOLDEN["out/mmin/joint"])
    close(out.outputs, GOLDEN["out/mmin/logits"])
    close(model(batch), GOLDEN["out/mmin/logits"])

    losses = model.losses(batch)
    assert list(losses) == ["cls", "img", "cycle"]
    for name, value in losses.items():
        close(value, GOLDEN[f"out/mmin/loss_{name}"])
    total = model.total_loss(losses)
    close(total, GOLDEN["out/mmin/loss"])
    total.backward()
    check_gradient_norms(model, {**PUBLISHED, "cycle": "AE_cycle"}, "out/mmin")


def test_mmin_without_cycle() -> None:
    batch = golden_batch()
    model = golden_model(MMINWithoutCycle)
    close(model(batch), GOLDEN["out/mmin/logits"])
    losses = model.losses(batch)
    assert list(losses) == ["cls", "img"]
    total = model.total_loss(losses)
    close(total, GOLDEN["out/mmin/loss_nocycle"])
    total.backward()
    check_gradient_norms(model, PUBLISHED, "out/mmin_no_cycle")


def test_shared_cascades_are_two_equal_ones_whose_gradients_add_up() -> None:
    batch = golden_batch()
    shared, apart = golden_model(MMIN, share_cascades=True), golden_model(MMIN, "AE_cycle")
    assert "cycle" not in dict(shared.named_children())
    apart.cycle.load_state_dict(shared.imagination.state_dict())
    for model in (shared, apart):
        model.total_loss(model.losses(batch)).backward()
    together = zip(
        shared.imagination.parameters(), apart.imagination.parameters(), apart.cycle.parameters(), strict=True
    )
    for both, forward, backward in together:
        assert both.grad is not None
        assert forward.grad is not None
        assert backward.grad is not None
        close(both.grad, forward.grad + backward.grad)


def test_settings_follow_the_corpus_unless_given() -> None:
    iemocap, msp = (
        MMIN(feature_dims=DIMS, class_names=CLASSES),
        MMIN(feature_dims=DIMS, class_names=CLASSES, corpus="MSP-IMPROV"),
    )
    assert (iemocap.loss_weights, iemocap.settings.learning_rate) == ({"img": 4.0, "cycle": 2.0}, 2e-4)
    assert (msp.loss_weights, msp.settings.learning_rate) == ({"img": 2.0, "cycle": 0.5}, 5e-4)
    assert not iemocap.share_cascades
    assert msp.share_cascades
    assert (iemocap.settings.constant_epochs, iemocap.settings.decay_epochs, iemocap.settings.batch_size) == (
        30,
        30,
        128,
    )
    assert MMINWithoutCycle(feature_dims=DIMS, class_names=CLASSES, corpus="MSP-IMPROV").loss_weights == {"img": 2.0}
    # A weight of 0 is a weight, not "the paper's".
    given = MMIN(
        feature_dims=DIMS,
        class_names=CLASSES,
        corpus="MSP-IMPROV",
        lambda_img=0.0,
        lambda_cycle=0.0,
        share_cascades=False,
    )
    assert given.loss_weights == {"img": 0.0, "cycle": 0.0}
    assert not given.share_cascades
    # The stage-1 model of the same corpus.
    assert (msp.stage1_module().settings.batch_size, msp.stage1_module().settings.learning_rate) == (64, 5e-4)


def test_the_second_cascade_starts_from_weights_of_its_own() -> None:
    model = MMIN(feature_dims=DIMS, class_names=CLASSES)
    for forward, backward in zip(model.imagination.parameters(), model.cycle.parameters(), strict=True):
        if forward.ndim == 2:
            assert not torch.equal(forward, backward)
            # Kaiming: variance 2 / fan in.
            assert backward.std().item() == pytest.approx((2 / forward.shape[1]) ** 0.5, rel=0.05)
        else:
            assert not backward.any()
