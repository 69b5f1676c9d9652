"""Distillation between views, against golden values (tests/data/systems/vsd.npz) and scipy."""

from __future__ import annotations

from itertools import combinations, permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon
from scipy.special import softmax
from scipy.stats import entropy
from torch import Tensor

from baselines.plain_fusion import ModalityDropout
from datamodules.batches.batch import Batch
from datamodules.needs import DataNeeds
from ifmmin.nn.distillation import (
    cross_distillation,
    full_to_partial,
    jensen_shannon,
    mutual_learning,
    self_distillation,
    symmetric,
)
from ifmmin.tasks import Classification, Regression
from ifmmin.testing import check_model
from tests.cli.running import CHECKOUT
from tests.systems import close, load_system

GOLDEN = load_system("vsd")
NAMES = "avt"
FOLLOW = Classification(["0", "1", "2"]).distillation
KNOWN = torch.tensor([[1, 1, 1], [1, 0, 1], [0, 1, 1], [1, 1, 0], [0, 0, 1]]).bool()


def logits(kind: str) -> Tensor:
    """[5, 3, 3], of audio, visual, text."""
    return torch.stack([GOLDEN[f"out/logits_{kind}_{name}"] for name in NAMES], dim=1)


def golden_mean(keys: list[str]) -> Tensor:
    return torch.stack([GOLDEN[f"corrected/{key}"] for key in keys]).mean()


def test_corrected_losses() -> None:
    everything = torch.ones(5, 3, dtype=torch.bool)
    found = self_distillation(FOLLOW, logits("v"), logits("z"), everything)
    close(found, golden_mean([f"vsd_{name}" for name in NAMES]))
    found = cross_distillation(FOLLOW, logits("v"), logits("z"), everything)
    close(found, golden_mean([f"vcd_p_v{i}_teaches_p_z{j}" for i, j in permutations(NAMES, 2)]))
    pairs = list(combinations(NAMES, 2))
    for distance, name in ((jensen_shannon, "jensen_shannon"), (symmetric(FOLLOW), "symmetric_kl")):
        found = mutual_learning(distance, logits("z"), everything)
        close(found, golden_mean([f"vml_{name}_z{i}_z{j}" for i, j in pairs]))


@pytest.mark.parametrize("modality", range(3))
def test_corrected_losses_of_one_modality_or_pair(modality: int) -> None:
    name = NAMES[modality]
    only = torch.zeros(5, 3, dtype=torch.bool)
    only[:, modality] = True
    close(3 * self_distillation(FOLLOW, logits("v"), logits("z"), only), GOLDEN[f"corrected/vsd_{name}"])
    two = ~only
    i, j = (NAMES[m] for m in range(3) if m != modality)
    expected = GOLDEN[f"corrected/vcd_p_v{i}_teaches_p_z{j}"] + GOLDEN[f"corrected/vcd_p_v{j}_teaches_p_z{i}"]
    close(6 * cross_distillation(FOLLOW, logits("v"), logits("z"), two), expected)
    found = 3 * mutual_learning(jensen_shannon, logits("z"), two)
    close(found, GOLDEN[f"corrected/vml_jensen_shannon_z{i}_z{j}"])


def test_rows_that_lack_a_modality_are_left_out_pair_by_pair() -> None:
    v, z = (softmax(logits(kind).numpy(), axis=2) for kind in "vz")
    own, cross, mutual = [], [], []
    for i in range(3):
        rows = KNOWN[:, i].numpy()
        own.append(np.mean([entropy(v[row, i], z[row, i]) for row in np.flatnonzero(rows)]))
        for j in range(3):
            both = np.flatnonzero(rows & KNOWN[:, j].numpy())
            if i != j:
                cross.append(np.mean([entropy(v[row, i], z[row, j]) for row in both]))
            if i < j:
                mutual.append(np.mean([jensenshannon(z[row, i], z[row, j]) ** 2 for row in both]))
    observed, compressed = (logits(kind).where(KNOWN[..., None], torch.nan) for kind in "vz")
    assert float(self_distillation(FOLLOW, observed, compressed, KNOWN)) == pytest.approx(np.mean(own))
    assert float(cross_distillation(FOLLOW, observed, compressed, KNOWN)) == pytest.approx(np.mean(cross))
    assert float(mutual_learning(jensen_shannon, compressed, KNOWN)) == pytest.approx(np.mean(mutual))


def test_teachers_have_weights() -> None:
    everything, weights = torch.ones(5, 3, dtype=torch.bool), [0.2, 3.0, 1.1]
    found = cross_distillation(FOLLOW, logits("v"), logits("z"), everything, torch.tensor(weights).double())
    share = dict(zip(NAMES, weights, strict=True))
    terms = {(i, j): float(GOLDEN[f"corrected/vcd_p_v{i}_teaches_p_z{j}"]) for i, j in permutations(NAMES, 2)}
    expected = sum(share[i] * term for (i, _), term in terms.items()) / (2 * sum(weights))
    assert float(found) == pytest.approx(expected)


def test_full_to_partial_is_the_divergence_of_the_condition_from_the_complete_answer() -> None:
    partial, complete = GOLDEN["out/logits_z_a"], GOLDEN["out/logits_v_a"]
    close(full_to_partial(FOLLOW, partial, complete), GOLDEN["corrected/vsd_a"])
    rows = torch.tensor([True, False, True, False, False])
    p, q = (softmax(each.numpy(), axis=1) for each in (complete, partial))
    expected = np.mean([entropy(p[row], q[row]) for row in (0, 2)])
    assert float(full_to_partial(FOLLOW, partial, complete, rows)) == pytest.approx(expected)
    values = Regression().distillation
    assert float(full_to_partial(values, torch.tensor([[1.0], [4.0]]), torch.tensor([[0.0], [2.0]]))) == 1.5


def moved(value: Tensor, *inputs: Tensor) -> list[bool]:
    """Which of the inputs get a gradient that is not zero."""
    gradients = torch.autograd.grad(value, inputs, allow_unused=True)
    return [gradient is not None and bool(gradient.any()) for gradient in gradients]


def test_no_gradient_reaches_a_teacher_and_both_sides_of_mutual_learning_have_one() -> None:
    observed, compressed = logits("v").requires_grad_(), logits("z").requires_grad_()
    for loss in (self_distillation, cross_distillation):
        assert moved(loss(FOLLOW, observed, compressed, KNOWN), observed, compressed) == [False, True]
    assert moved(full_to_partial(FOLLOW, compressed[:, 0], observed[:, 0]), observed, compressed) == [False, True]
    paired = KNOWN & (KNOWN.sum(dim=1, keepdim=True) > 1)
    for distance in (jensen_shannon, symmetric(FOLLOW)):
        (gradient,) = torch.autograd.grad(mutual_learning(distance, compressed, KNOWN), compressed)
        assert torch.equal(gradient.abs().sum(dim=2) > 0, paired)


def test_of_no_row_each_is_zero_with_a_gradient() -> None:
    observed, compressed = logits("v"), logits("z").requires_grad_()
    nobody = torch.zeros(5, 3, dtype=torch.bool)
    found = [
        self_distillation(FOLLOW, observed, compressed, nobody),
        cross_distillation(FOLLOW, observed, compressed, nobody),
        mutual_learning(jensen_shannon, compressed, nobody),
        full_to_partial(FOLLOW, compressed[:, 0], observed[:, 0], nobody[:, 0]),
    ]
    for value in found:
        assert float(value.detach()) == 0
        (gradient,) = torch.autograd.grad(value, compressed)
        assert not bool(gradient.any())


def test_the_example_of_the_guide_is_a_model() -> None:
    guide = Path(CHECKOUT / "docs" / "add_a_model.md").read_text(encoding="utf-8")
    example = guide.split("## Distillation as a further loss")[1].split("```python\n")[1].split("```")[0]
    known: dict[str, Any] = {
        "ModalityDropout": ModalityDropout,
        "DataNeeds": DataNeeds,
        "Batch": Batch,
        "Tensor": Tensor,
    }
    exec(f"from __future__ import annotations\n{example}", known)
    check_model(known["FollowedDropout"], embedding_dim=8, text_channels=8, hidden_dims=[8])
