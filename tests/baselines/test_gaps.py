"""Losses on a corpus with gaps, row by row: what an utterance lacks is no target, and takes no part in a mean."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from baselines.distilled_imputation import DistilledImputation
from baselines.mctn import MCTN
from baselines.mmin import MMIN
from baselines.plain_fusion import CompleteFusion
from datamodules.batches.batch import Batch
from datamodules.conditions import CONDITION_TABLE
from ifmmin.model import IFMMIN
from ifmmin.pretraining.stage1 import InvariantPretraining
from ifmmin.pretraining.stage2 import PretrainedModule
from tests.baselines.naive_mctn import naive_row
from tests.batches import CLASSES, DIMS, Utterance, batch_of, random_utterances
from tests.ifmmin.models import build
from tests.ifmmin.nn.test_losses import naive_with_gaps

SIZE = 14
BoolArray = npt.NDArray[np.bool_]


def gapped(seed: int = 0, size: int = SIZE) -> tuple[list[Utterance], BoolArray, BoolArray]:
    """Utterances, what they have, and what a mask shows of it; every pattern of both occurs."""
    rng = np.random.default_rng(seed)
    has = CONDITION_TABLE.numpy()[(np.arange(size) + 3) % 7]
    present = has & (rng.random((size, 3)) < 0.6)
    nothing = np.flatnonzero(~present.any(axis=1))
    present[nothing, has[nothing].argmax(axis=1)] = True
    return random_utterances(size, seed=seed), has, present


def cut(utterances: list[Utterance], has: BoolArray) -> list[Utterance]:
    cut = []
    for utterance, there in zip(utterances, has, strict=True):
        audio, visual, text = (frames if seen else frames[:0] for frames, seen in zip(utterance, there, strict=True))
        cut.append((audio, visual, text))
    return cut


def batch_with_gaps(seed: int = 0) -> tuple[Batch, list[Utterance], BoolArray, BoolArray]:
    utterances, has, present = gapped(seed)
    return batch_of(cut(utterances, has), present), utterances, has, present


def embedded(model: PretrainedModule, utterance: Utterance, modality: int) -> Tensor:
    """The teacher's embedding of one modality of one utterance."""
    encoder = list(model.teacher.encoders.encoders())[modality]
    return cast(Tensor, encoder(torch.from_numpy(utterance[modality])[None]))[0]


@torch.no_grad()
@pytest.mark.parametrize("remembered", [False, True])
@pytest.mark.parametrize("name", ["IFMMIN", "MMIN", "MMINWithoutCycle"])
def test_imagination_is_compared_with_what_there_is(name: str, remembered: bool) -> None:
    model = cast(Any, build(name))
    batch, utterances, has, present = batch_with_gaps()
    if remembered:
        model.teacher.remember([batch], SIZE)
    out, absent = model.imagine(batch), model.teacher.encoders.absent()
    img, inv = [], []
    for row in range(SIZE):
        for m in np.flatnonzero(has[row]).tolist():
            true = embedded(model, utterances[row], m)
            wanted = absent[m] if present[row, m] else true
            img.append(float((out.imagined.view(SIZE, 3, -1)[row, m] - wanted).square().mean()))
            if name == "IFMMIN":
                H = model.teacher_invariance(true)
                inv.append(float((out.invariant.view(SIZE, 3, -1)[row, m] - H).square().mean()))
    losses = model.losses(batch)
    assert float(losses["img"]) == pytest.approx(np.mean(img), rel=1e-9)
    assert float(losses["cls"]) == pytest.approx(float(F.cross_entropy(out.outputs, batch.labels)), rel=1e-12)
    if name == "IFMMIN":
        assert float(losses["inv"]) == pytest.approx(np.mean(inv), rel=1e-9)
    if name == "MMIN":
        assert isinstance(model, MMIN)
        back = model.imagine_back(out.imagined)
        assert float(losses["cycle"]) == pytest.approx(float((back - out.embeddings).square().mean()), rel=1e-9)


@torch.no_grad()
@pytest.mark.parametrize("discrepancy", ["published", "bounded", "zellinger"])
def test_stage_1_trains_on_every_utterance_with_what_it_has(discrepancy: str) -> None:
    model = cast(InvariantPretraining, build("InvariantPretraining", discrepancy=discrepancy))
    batch, _, has, _ = batch_with_gaps(1)
    losses = model.losses(batch)
    H, known = model.invariant_features(replace(batch, present=torch.from_numpy(has))), torch.from_numpy(has)
    assert float(losses["cmd"]) == pytest.approx(naive_with_gaps(H, known, cast(Any, discrepancy), 5), rel=1e-9)
    logits = model(replace(batch, present=known))
    assert float(losses["cls"]) == pytest.approx(float(F.cross_entropy(logits, batch.labels)), rel=1e-12)


@torch.no_grad()
def test_complete_fusion_trains_on_complete_utterances() -> None:
    model = cast(CompleteFusion, build("CompleteFusion"))
    batch, utterances, has, _ = batch_with_gaps()
    whole = np.flatnonzero(has.all(axis=1))
    alone = [float(F.cross_entropy(model(batch_of([utterances[row]])), batch.labels[row : row + 1])) for row in whole]
    assert len(alone) == 2
    assert float(model.losses(batch)["cls"]) == pytest.approx(np.mean(alone), rel=1e-9)


@torch.no_grad()
def test_distilled_imputation_follows_a_teacher_of_what_there_is() -> None:
    model = cast(DistilledImputation, build("DistilledImputation"))
    batch, utterances, has, present = batch_with_gaps(2)
    model.std.copy_(torch.rand_like(model.std) + 0.5)
    out, absent = model.impute(batch), model.teacher.encoders.absent()
    img, answers = [], []
    for row in range(SIZE):
        true = [embedded(model, utterances[row], m) if has[row, m] else absent[m] for m in range(3)]
        answers.append(model.teacher_classifier(torch.cat(true)))
        for m in np.flatnonzero(has[row] & ~present[row]):
            img.append(float(((out.imputed[row, m] - true[m]) / model.std[m]).square().mean()))
    losses = model.losses(batch)
    assert float(losses["img"]) == pytest.approx(np.mean(img), rel=1e-9)
    expected = model.task.distillation(out.outputs, torch.stack(answers), model.temperature)
    assert float(losses["distill"]) == pytest.approx(float(expected), rel=1e-9)


@pytest.fixture
def double_precision() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@torch.no_grad()
@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("source", ["any", "a"])
def test_mctn_translates_to_what_there_is(source: Literal["any", "a"]) -> None:
    torch.manual_seed(0)
    model = MCTN(feature_dims=list(DIMS), class_names=CLASSES, width=8, hidden_dim=6, source=source).eval()
    batch, utterances, has, present = batch_with_gaps(3)
    if source == "a":
        present = has & [True, False, False]
    expected: dict[str, list[float]] = {"cls": [], "translation": [], "cycle": [], "second": []}
    for row in range(SIZE):
        if not present[row].any():  # the one source that is read is lost
            continue
        losses = naive_row(model, utterances[row], present[row], int(batch.labels[row]))
        expected["cls"].append(losses["cls"])
        start = int(np.flatnonzero(present[row])[0])
        targets = [m for m in ((start + 1) % 3, (start + 2) % 3) if not present[row, m]]
        if not targets or has[row, targets[0]]:
            expected["translation"].append(losses["translation"])
            expected["cycle"].append(losses["cycle"])
        if len(targets) < 2 or has[row, targets[1]]:
            expected["second"].append(losses["second"])
    found = model.losses(batch)
    for name, values in expected.items():
        assert float(found[name]) == pytest.approx(np.mean(values), rel=1e-6), name
    assert 0 < len(expected["second"]) < SIZE
    assert 0 < len(expected["translation"]) < SIZE


@pytest.mark.parametrize("kind", [IFMMIN, MMIN, CompleteFusion, DistilledImputation])
def test_a_batch_without_a_complete_utterance_trains(kind: type) -> None:
    model = build(kind.__name__).train()
    utterances, _, _ = gapped(size=8)
    has = np.tile([[True, False, False], [False, True, True]], (4, 1))
    batch = batch_of(cut(utterances, has), has)
    total = model.total_loss(model.losses(batch))
    total.backward()
    assert total.isfinite()
    assert (float(total.detach()) == 0) == (kind is CompleteFusion)
