"""VariationalDistillation's parity with its published code (tests/data/systems/vsd.npz, float64), and its own parts.

The published losses have a defect; tests/ifmmin/nn/test_distillation.py compares the corrected ones.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import softmax
from scipy.stats import entropy
from torch import nn
from torch.nn import functional as F

from baselines.variational_distillation import VariationalDistillation, bottleneck, code_head
from ifmmin.checkpoints.parts import load_part
from ifmmin.tasks import Regression
from ifmmin.testing import check_model
from tests.batches import CLASSES, DIMS, random_batch
from tests.systems import below, close, load_system

GOLDEN = load_system("vsd")
SMALL: dict[str, Any] = {
    "embedding_dim": 8,
    "bottleneck_dims": [7, 6],
    "code_dim": 6,
    "head_dim": 5,
    "hidden_dims": [8],
    "text_channels": 4,
}


@pytest.mark.parametrize("name", ["a", "v", "t"])
@torch.no_grad()
def test_bottleneck_and_heads(name: str) -> None:
    state, v = below(GOLDEN, f"param_bottleneck_{name}/"), GOLDEN[f"in/v_{name}"]
    compress, tell = bottleneck([8, 7, 6, 6]).double().eval(), code_head(6, 3, 3, 0.5).double().eval()
    load_part(compress, below(state, "bottleneck.model."), name)
    load_part(tell, below(state, "classifier."), name)
    observe = nn.Linear(8, 3).double()
    load_part(observe, below(GOLDEN, f"param_observation_{name}/"), name)
    close(compress(v), GOLDEN[f"out/z_{name}"])
    close(tell(compress(v)), GOLDEN[f"out/logits_z_{name}"])
    close(observe(v), GOLDEN[f"out/logits_v_{name}"])
    for kind in "vz":
        loss = F.cross_entropy(GOLDEN[f"out/logits_{kind}_{name}"], GOLDEN["in/labels"])
        close(loss, GOLDEN[f"loss/cross_entropy_{kind}_{name}"])


def made(**options: Any) -> VariationalDistillation:
    torch.manual_seed(0)
    model = VariationalDistillation(feature_dims=list(DIMS), class_names=CLASSES, **(SMALL | options)).double()
    for name, values in model.named_buffers():
        if name.endswith("running_mean"):  # not that of a fresh network
            values.normal_()
    return model.eval()


@torch.no_grad()
def test_losses_row_by_row() -> None:
    model, batch = made(), random_batch(7)
    losses, read = model.losses(batch), model.read(batch.unmasked())
    labels = batch.labels.tolist()

    def errors(outputs: torch.Tensor) -> float:
        shares = softmax(outputs.numpy(), axis=1)
        return float(np.mean([-np.log(share[label]) for share, label in zip(shares, labels, strict=True)]))

    partial, complete = model(batch), model(batch.unmasked())
    assert float(losses["cls"]) == pytest.approx(errors(partial))
    assert float(losses["complete"]) == pytest.approx(errors(complete))
    alone = [errors(outputs[:, m]) for outputs in (read.observed, read.compressed) for m in range(3)]
    assert float(losses["alone"]) == pytest.approx(sum(alone) / 3)
    p, q = (softmax(outputs.numpy(), axis=1) for outputs in (complete, partial))
    assert float(losses["partial"]) == pytest.approx(np.mean([entropy(*pair) for pair in zip(p, q, strict=True)]))


def test_weights_of_zero_leave_a_divergence_out() -> None:
    names = ("vsd", "vcd", "vml", "partial")
    model, batch = made(**{f"lambda_{name}": 0.0 for name in names}), random_batch(4)
    losses = model.losses(batch)
    torch.testing.assert_close(model.total_loss(losses), losses["cls"] + losses["complete"] + losses["alone"])


def test_values_have_absolute_differences_for_divergences() -> None:
    torch.manual_seed(0)
    model = VariationalDistillation(feature_dims=list(DIMS), task=Regression().spec(), **SMALL).double().eval()
    batch = random_batch(5)
    losses, read = model.losses(batch), model.read(batch.unmasked())
    pairs = [(read.compressed[:, i, 0] - read.compressed[:, j, 0]).abs().mean() for i, j in ((0, 1), (0, 2), (1, 2))]
    torch.testing.assert_close(losses["vml"], torch.stack(pairs).mean())
    torch.testing.assert_close(losses["partial"], (model(batch) - model(batch.unmasked())).abs().mean())


def test_an_absent_modality_is_zeros_to_the_classifier() -> None:
    model, batch = made(), random_batch(6)
    codes = model.read(batch.unmasked()).codes
    for row in range(6):
        shown = torch.cat([codes[row, m] * batch.present[row, m] for m in range(3)])
        torch.testing.assert_close(model(batch)[row], model.classifier(shown[None])[0])


@pytest.mark.parametrize("size", [1, 2])
def test_a_small_batch_trains(size: int) -> None:
    model = made().train()
    total = model.total_loss(model.losses(random_batch(size)))
    total.backward()
    assert total.isfinite()


def test_the_contract_with_the_other_distance() -> None:
    check_model(VariationalDistillation, mutual="symmetric", **SMALL)
    check_model(VariationalDistillation, task=Regression().spec(), class_names=[], **SMALL)
