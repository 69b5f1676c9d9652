"""EffMulti and InterMulti against their formulas row by row, and their representations after training."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from baselines.hierarchical_fusion import NAMES, EffMulti, FullRepresentation, HierarchicalFusion, InterMulti
from datamodules.batches.visible import under_conditions
from datamodules.conditions import CONDITIONS
from ifmmin.nn.fusion import PolynomialPooling
from ifmmin.tasks import Regression
from ifmmin.testing import check_model
from tests.batches import CLASSES, DIMS, batch_of, learnable_utterances, random_batch, random_present
from tests.ifmmin.nn.test_subspaces import naive_orthogonality
from tests.systems import close

SMALL: dict[str, Any] = {"embedding_dim": 6, "text_channels": 4}
MODELS: list[type[HierarchicalFusion]] = [EffMulti, InterMulti]


def made(owner: type[HierarchicalFusion], **options: Any) -> HierarchicalFusion:
    torch.manual_seed(0)
    given: dict[str, Any] = {"feature_dims": list(DIMS), "class_names": CLASSES}
    model = owner(**(given | SMALL | options)).double().eval()
    model.full.absent.data.normal_()  # zeros would hide which modality it stands for
    return model


def gated(model: EffMulti, F_: Tensor, S: Tensor, P: dict[int, Tensor]) -> tuple[Tensor, Tensor]:
    """Outputs [O] and gate [5] of one row, from the formulas; P_m of what is present."""
    W, b = model.modality_level.weight, model.modality_level.bias
    x = {0: F_, 1: S} | {2 + m: (W @ torch.cat([P_m, S]) + b).tanh() for m, P_m in P.items()}
    scores = {k: np.tanh(float(model.gate[k](x_k))) for k, x_k in x.items()}
    total = sum(np.exp(score) for score in scores.values())
    gate = torch.full((5,), torch.nan).double()
    for k, score in scores.items():
        gate[k] = np.exp(score) / total
    return model.output(sum((gate[k] * x_k for k, x_k in x.items()), torch.zeros(len(S)).double())), gate


def pooled(pool: PolynomialPooling, *parts: Tensor) -> Tensor:
    """The polynomial of [1; parts], by its full tensor."""
    f = torch.cat([torch.ones(1).double(), *parts])
    tensor = torch.einsum("or,roi,roj->oij", pool.weights, *pool.factors)
    return torch.einsum("oij,i,j->o", tensor, f, f) + pool.bias


def multiplied(model: InterMulti, F_: Tensor, S: Tensor, P: dict[int, Tensor]) -> Tensor:
    """Outputs [O] of one row, from the formulas; P_m of what is present."""
    audio, visual, text = (P.get(m, torch.zeros(6).double()) for m in range(3))
    c = pooled(model.pool_shared, pooled(model.pool_audio, text, audio), pooled(model.pool_visual, text, visual), S)
    outputs: Tensor = model.output(torch.cat([c, F_, text]))
    return outputs


@pytest.mark.parametrize("owner", MODELS)
@torch.no_grad()
def test_an_answer_row_by_row(owner: type[HierarchicalFusion]) -> None:
    """Every condition of an utterance, from its own frames; the gate too."""
    model, stored = made(owner), random_batch(3, seed=4, padding=2)
    batch, _ = under_conditions(stored, CONDITIONS)
    outputs, values = model(batch), [*model.row_values(batch).values()]
    for row, (utterance, present) in enumerate(zip(batch.row.tolist(), batch.present, strict=True)):
        h = [*model.full.absent]
        for m, encoder in enumerate(model.encoders.encoders()):
            if present[m]:
                h[m] = encoder(stored.frames[m][utterance, None, : stored.lengths[utterance, m]])[0]
        there = present.nonzero()[:, 0].tolist()
        full = (model.full.linear.weight @ torch.cat(h) + model.full.linear.bias).clamp(min=0)
        shared = sum((model.shared(h[m]) for m in there), torch.zeros(6).double()) / len(there)
        specific = {m: [*model.private.values()][m](h[m]) for m in there}
        if isinstance(model, InterMulti):
            close(outputs[row], multiplied(model, full, shared, specific))
            continue
        assert isinstance(model, EffMulti)
        expected, gate = gated(model, full, shared, specific)
        close(outputs[row], expected)
        torch.testing.assert_close(torch.stack(values, dim=1)[row], gate, equal_nan=True)


@torch.no_grad()
def test_the_gate_sums_to_1() -> None:
    values = made(EffMulti).row_values(under_conditions(random_batch(3), CONDITIONS)[0])
    assert [*values] == [f"gate_{name}" for name in NAMES]
    close(torch.stack([*values.values()]).nansum(dim=0), torch.ones(21).double())


def test_effmulti_fuses_with_far_fewer_parameters() -> None:
    counts = []
    for owner in (EffMulti, InterMulti):
        model = owner(feature_dims=list(DIMS), class_names=CLASSES)
        both = ("encoders", "private", "reconstruct", "shared", "full")
        counts.append(sum(each.numel() for name, each in model.named_parameters() if name.split(".")[0] not in both))
    assert counts[0] < 0.6 * counts[1]


@torch.no_grad()
def test_what_is_absent_has_its_own_vector_in_the_full_representation() -> None:
    torch.manual_seed(0)
    part, h = FullRepresentation(3).double(), torch.randn(1, 3, 3).double()
    part.absent.copy_(torch.randn(3, 3))
    present = torch.tensor([[True, False, True]])
    replaced = torch.stack([h[0, 0], part.absent[1], h[0, 2]])[None]
    close(part(h.where(present[..., None], torch.nan), present), part(replaced, torch.ones_like(present)))


def naive_cmd(x: np.ndarray[Any, np.dtype[np.float64]], y: np.ndarray[Any, np.dtype[np.float64]]) -> float:
    terms = [np.linalg.norm(x.mean(0) - y.mean(0))]
    for k in range(2, 6):
        moments = [((sample - sample.mean(0)) ** k).mean(0) for sample in (x, y)]
        terms.append(np.linalg.norm(moments[0] - moments[1]))
    return float(sum(terms))


@pytest.mark.parametrize("owner", MODELS)
@torch.no_grad()
def test_losses_are_of_rows_and_of_whole_utterances(owner: type[HierarchicalFusion]) -> None:
    model, batch = made(owner), random_batch(12)
    losses, whole = model.losses(batch), batch.unmasked()
    close(losses["cls"], F.cross_entropy(model(batch), batch.labels))
    close(losses["complete"], F.cross_entropy(model(whole), batch.labels))
    h, p, s = (part.numpy() for part in model.split(whole))
    diff = sum(naive_orthogonality(p[:, m], s[:, m]) for m in range(3))
    diff += sum(naive_orthogonality(p[:, m], p[:, n]) for m, n in combinations(range(3), 2))
    assert float(losses["diff"]) == pytest.approx(diff)
    assert float(losses["sim"]) == pytest.approx(
        np.mean([naive_cmd(s[:, m], s[:, n]) for m, n in combinations(range(3), 2)])
    )
    errors = []
    for m, layer in enumerate(model.reconstruct.values()):
        errors.append((layer(torch.from_numpy(p[:, m] + s[:, m])).numpy() - h[:, m]) ** 2)
    assert float(losses["recon"]) == pytest.approx(np.mean(errors))
    weighed = losses["cls"] + losses["complete"] + 0.5 * losses["sim"] + 0.3 * losses["diff"] + losses["recon"]
    close(model.total_loss(losses), weighed)


@pytest.mark.parametrize("owner", MODELS)
def test_no_gradient_is_all_zero(owner: type[HierarchicalFusion]) -> None:
    model = made(owner)
    model.total_loss(model.losses(random_batch(12))).backward()
    zero = [name for name, each in model.named_parameters() if each.grad is None or float(each.grad.abs().max()) < 1e-9]
    assert not zero


WIDTHS = (12, 14, 60)


@pytest.fixture(scope="module", params=MODELS)
def trained(request: pytest.FixtureRequest) -> tuple[HierarchicalFusion, dict[str, Tensor], dict[str, Tensor]]:
    """A trained model, and its losses before and after, of the same utterances without dropout."""
    torch.manual_seed(0)
    model = request.param(feature_dims=list(WIDTHS), class_names=CLASSES, embedding_dim=64, text_channels=32)
    batch = batch_of(learnable_utterances(128, 1, WIDTHS), random_present(128), dtype=torch.float32)
    with torch.no_grad():
        before = model.eval().losses(batch)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(100):
        optimizer.zero_grad()
        model.train().total_loss(model.losses(batch)).backward()
        optimizer.step()
    with torch.no_grad():
        return model, before, model.eval().losses(batch)


Trained = tuple[HierarchicalFusion, dict[str, Tensor], dict[str, Tensor]]


def test_training_makes_shared_ones_alike_and_specific_ones_apart(trained: Trained) -> None:
    _, before, after = trained
    for term in ("sim", "diff", "recon", "cls"):
        assert float(after[term]) < 0.8 * float(before[term]), term


@torch.no_grad()
def test_specific_representations_tell_the_class_without_what_is_shared(trained: Trained) -> None:
    model, *_ = trained
    batch = batch_of(learnable_utterances(200, 2, WIDTHS), dtype=torch.float32)
    found = model.represent(model.split(batch), batch.present)
    alone = found._replace(shared=torch.zeros_like(found.shared), full=torch.zeros_like(found.full))
    right = model.fuse(alone, batch.present).argmax(dim=1) == batch.label
    assert float(right.double().mean()) > 0.4  # of four classes; five standard errors above chance


@pytest.mark.parametrize("owner", MODELS)
def test_the_contract_with_other_options(owner: type[HierarchicalFusion]) -> None:
    without: dict[str, Any] = {f"lambda_{name}": 0.0 for name in ("sim", "diff", "recon", "complete")}
    check_model(owner, **SMALL, **without)
    check_model(owner, **SMALL, class_names=[], task=Regression().spec())


@pytest.mark.parametrize("owner", MODELS)
def test_equal_embeddings_of_one_class_leave_gradients_finite(owner: type[HierarchicalFusion]) -> None:
    model, one = made(owner), random_batch(1)
    same = under_conditions(one, ["avt"] * 4)[0]
    for batch in (one, same):
        model.zero_grad()
        model.total_loss(model.losses(batch)).backward()
        assert all(each.grad is not None and bool(each.grad.isfinite().all()) for each in model.parameters())
