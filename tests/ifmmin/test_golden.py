"""Parity with the published implementation, which computed tests/data/reference.npz (float64)."""

from __future__ import annotations

import pytest

from ifmmin.checkpoints.published import published_parts
from ifmmin.model import IFMMIN
from ifmmin.nn.losses import central_moment_discrepancy
from ifmmin.pretraining.stage1 import FusionPretraining, InvariantPretraining
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


def test_cmd_of_each_pair() -> None:
    audio, text, visual = GOLDEN["out/pretrain_invariant/H_alv"].split(4, dim=1)
    for pair, (x, y) in {"lv": (text, visual), "la": (text, audio), "av": (audio, visual)}.items():
        close(central_moment_discrepancy(x, y), GOLDEN[f"out/pretrain_invariant/cmd_{pair}"])


def test_fusion_pretraining() -> None:
    batch = golden_batch()
    model = FusionPretraining(feature_dims=DIMS, class_names=CLASSES, **ENCODERS, **CLASSIFIER).double().eval()
    load(model, published_parts(networks("student", C="C_fusion"), stage=1))
    close(model(batch.unmasked()), GOLDEN["out/pretrain_fusion/logits"])
    close(model.total_loss(model.losses(batch)), GOLDEN["out/pretrain_fusion/loss"])


def test_invariant_pretraining() -> None:
    batch = golden_batch()
    model = InvariantPretraining(feature_dims=DIMS, class_names=CLASSES, **ENCODERS, **CLASSIFIER).double().eval()
    load(model, published_parts(networks("student", "Shared", C="C_shared"), stage=1))
    _, H = model.embed(batch.unmasked())
    close(H.flatten(1), in_our_order(GOLDEN["out/pretrain_invariant/H_alv"]))
    close(model(batch.unmasked()), GOLDEN["out/pretrain_invariant/logits"])
    losses = model.losses(batch)
    close(losses["cls"], GOLDEN["out/pretrain_invariant/loss_cls"])
    close(losses["cmd"], GOLDEN["out/pretrain_invariant/loss_cmd"])


@pytest.mark.parametrize("remembered", [False, True], ids=["teacher computed", "teacher remembered"])
def test_ifmmin(remembered: bool) -> None:
    batch = golden_batch()
    model = IFMMIN(feature_dims=DIMS, class_names=CLASSES, **ENCODERS, **CASCADE, **CLASSIFIER).double().eval()
    model.load_stage1(published_parts(networks("teacher", "Shared"), stage=1))
    load(model, published_parts(networks("student", "Shared", "IFIM", "C"), stage=2))
    if remembered:
        model.teacher.remember([batch], len(batch))

    close(model.encoders(batch).flatten(1), in_our_order(GOLDEN["out/h_missing_alv"]))
    close(model.teacher.absent_part(batch).flatten(1), in_our_order(GOLDEN["out/target_h_missing_alv"]))
    H_target = model.teacher_invariance(model.teacher.targets(batch)).flatten(1)
    close(H_target, in_our_order(GOLDEN["out/H_target_alv"]))
    out = model.imagine(batch)
    close(out.invariant, in_our_order(GOLDEN["out/H_pred_alv"]))
    close(out.imagined, in_our_order(GOLDEN["out/ifmmin/imagined"]))
    close(out.joint, GOLDEN["out/ifmmin/joint"])
    close(out.outputs, GOLDEN["out/ifmmin/logits"])

    losses = model.losses(batch)
    for name in ("cls", "img", "inv"):
        close(losses[name], GOLDEN[f"out/ifmmin/loss_{name}"])
    total = model.total_loss(losses)
    close(total, GOLDEN["out/ifmmin/loss"])
    total.backward()
    published = {**ENCODER_NETWORKS, "invariance": "Shared", "imagination": "IFIM", "classifier": "C"}
    check_gradient_norms(model, published, "out/ifmmin")
