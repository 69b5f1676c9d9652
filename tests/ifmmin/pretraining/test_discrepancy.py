"""What stage 1 does to H under each form of its discrepancy: the facts that its card states."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from datamodules import Synthetic
from ifmmin.checkpoints import load_model
from ifmmin.nn.losses import Discrepancy
from ifmmin.optimization import clip_gradients
from ifmmin.pretraining.stage1 import InvariantPretraining
from ifmmin.testing.trial import subset
from tests.batches import CLASSES, batch_of, learnable_utterances
from tests.cli.running import best, fit

DIMS = [12, 14, 10]
SMALL: dict[str, Any] = {"embedding_dim": 32, "text_channels": 32, "hidden_dims": [32, 32]}


class Embedded(NamedTuple):
    """h and H [n, 3, E] and the labels [n] of utterances."""

    h: Tensor
    H: Tensor
    labels: Tensor


def shrinkage(found: Embedded) -> float:
    """Spread of H over utterances relative to that of h."""
    return float(found.H.std(dim=0).mean() / found.h.std(dim=0).mean())


def told(features: Tensor, labels: Tensor, new: Tensor, new_labels: Tensor) -> float:
    """Share of held-out rows that logistic regression on standardised features gets right."""
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)).fit(features.numpy(), labels.numpy())
    return float(probe.score(new.numpy(), new_labels.numpy()))


def modality_told(train: Embedded, test: Embedded) -> float:
    """How often H of one modality gives away which."""
    rows = [(found.H.flatten(0, 1), torch.arange(3).repeat(len(found.H))) for found in (train, test)]
    return told(*rows[0], *rows[1])


@cache
def trained(form: Discrepancy) -> tuple[Embedded, Embedded]:
    """Embeddings of training and held-out utterances after 150 steps of stage 1."""
    torch.manual_seed(0)
    model = InvariantPretraining(feature_dims=DIMS, class_names=CLASSES, discrepancy=form, **SMALL).train()
    data, new = (batch_of(learnable_utterances(400, seed), dtype=torch.float32) for seed in (1, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(150):
        batch = subset(data, torch.randperm(400)[:64])
        optimizer.zero_grad()
        model.total_loss(model.losses(batch)).backward()
        clip_gradients([part for _, part in model.subnetworks()], model.settings.clip_norm)
        optimizer.step()
    model.eval()
    with torch.no_grad():
        return Embedded(*model.embed(data), data.targets), Embedded(*model.embed(new), new.targets)


def test_the_published_form_shrinks_h_and_the_bounded_one_does_not() -> None:
    published, bounded = (shrinkage(trained(form)[1]) for form in ("published", "bounded"))
    assert published < 0.05
    assert bounded > 0.2
    assert published < shrinkage(trained("none")[1])


def test_what_shrinks_is_scale_and_not_content() -> None:
    train, test = trained("published")
    assert modality_told(train, test) > 0.7  # chance: 1/3
    from_h, from_H = (
        told(getattr(train, name).flatten(1), train.labels, getattr(test, name).flatten(1), test.labels)
        for name in ("h", "H")
    )
    assert from_H > from_h - 0.05 > 0.6  # chance: 1/4


def test_the_bounded_form_hides_the_modality_better() -> None:
    published, bounded = (modality_told(*trained(form)) for form in ("published", "bounded"))
    assert bounded < published - 0.1


@pytest.mark.slow
def test_the_same_on_the_built_in_corpus(tmp_path: Path) -> None:
    found = {}
    for form in ("published", "bounded"):
        sizes = ["--model.embedding_dim", "32", "--model.text_channels", "32", "--test", "false"]
        run = fit(tmp_path / form, *sizes, "--model.discrepancy", form, model="InvariantPretraining", epochs=1000)
        model, _ = load_model(best(run))
        assert isinstance(model, InvariantPretraining)
        found[form] = [_embedded(model.eval(), split) for split in ("train", "val")]
    assert shrinkage(found["published"][1]) < 0.2 < shrinkage(found["bounded"][1])
    assert modality_told(*found["bounded"]) < modality_told(*found["published"])


@torch.no_grad()
def _embedded(model: InvariantPretraining, split: str) -> Embedded:
    data = Synthetic(fold=1)
    data.setup("fit")
    parts = [Embedded(*model.embed(batch.unmasked()), batch.targets) for batch in data.in_order(split)]
    h, H, labels = (torch.cat(each) for each in zip(*parts, strict=True))
    return Embedded(h, H, labels)


def test_none_leaves_the_term_out() -> None:
    batch = batch_of(learnable_utterances(8, 1), dtype=torch.float32)
    terms = {}
    for form in ("published", "bounded", "zellinger", "none"):
        torch.manual_seed(0)
        model = InvariantPretraining(feature_dims=DIMS, class_names=CLASSES, discrepancy=form, **SMALL).eval()
        terms[form] = {name: float(value.detach()) for name, value in model.losses(batch).items()}
    assert set(terms["none"]) == {"cls"}
    assert all(set(terms[form]) == {"cls", "cmd"} for form in terms if form != "none")
    assert len({terms[form]["cls"] for form in terms}) == 1
    assert len(np.unique([terms[form]["cmd"] for form in terms if form != "none"])) == 3
