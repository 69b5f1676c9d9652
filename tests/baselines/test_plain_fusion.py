"""The plain baselines: what they are trained on, and what they share with stage 1."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from baselines.mmin import MMIN
from baselines.plain_fusion import CompleteFusion, FusionBaseline, ModalityDropout
from datamodules.conditions import COMPLETE, CONDITIONS
from ifmmin.pretraining.stage1 import FusionPretraining
from tests.batches import CLASSES, DIMS, random_batch

BASELINES = (ModalityDropout, CompleteFusion)


def made(kind: type[FusionBaseline], corpus: str = "IEMOCAP") -> FusionBaseline:
    torch.manual_seed(0)
    return kind(feature_dims=list(DIMS), class_names=CLASSES, corpus=corpus).double().eval()


@pytest.mark.parametrize("kind", BASELINES)
def test_same_networks_as_stage_1_of_mmin(kind: type[FusionBaseline]) -> None:
    model, stage1, batch = (
        made(kind),
        FusionPretraining(feature_dims=list(DIMS), class_names=CLASSES).double().eval(),
        random_batch(6),
    )
    model.load_state_dict(stage1.state_dict())
    assert torch.equal(model(batch), stage1(batch))
    assert {name for name, _ in model.subnetworks()} == {name for name, _ in stage1.subnetworks()}


def test_modality_dropout_learns_from_what_the_mask_leaves() -> None:
    model, batch = made(ModalityDropout), random_batch(8)
    losses = model.losses(batch)
    assert list(losses) == ["cls"]
    assert losses["cls"] == F.cross_entropy(model(batch), batch.label)
    rows = []
    for position in range(len(batch)):
        one = slice(position, position + 1)
        rows.append(
            F.cross_entropy(model(replace(batch, row=batch.row[one], present=batch.present[one])), batch.label[one])
        )
    torch.testing.assert_close(losses["cls"], torch.stack(rows).mean())
    assert losses["cls"] != model.losses(batch.unmasked())["cls"]


def test_complete_fusion_learns_from_complete_utterances_whatever_the_mask() -> None:
    model, batch = made(CompleteFusion), random_batch(8)
    losses = model.losses(batch)
    assert losses == model.losses(batch.unmasked())
    assert losses["cls"] == F.cross_entropy(model(batch.unmasked()), batch.labels)


def test_selection_on_validation_is_on_what_training_knows() -> None:
    assert made(ModalityDropout).monitor_key == "val/pooled/UA"
    assert made(CompleteFusion).monitor_key == f"val/{COMPLETE}/UA"
    assert all(tuple(kind.validation_conditions) == CONDITIONS for kind in BASELINES)


@pytest.mark.parametrize("kind", BASELINES)
@pytest.mark.parametrize(("corpus", "rate"), [("IEMOCAP", 2e-4), ("MSP-IMPROV", 5e-4), ("Synthetic", 2e-4)])
def test_as_many_steps_and_the_same_rate_as_mmin(kind: type[FusionBaseline], corpus: str, rate: float) -> None:
    model, mmin = made(kind, corpus), MMIN(feature_dims=list(DIMS), class_names=CLASSES, corpus=corpus)
    theirs = mmin.settings
    assert (model.settings.epochs, model.settings.batch_size) == (theirs.epochs, theirs.batch_size) == (60, 128)
    assert model.settings.learning_rate == theirs.learning_rate == rate
