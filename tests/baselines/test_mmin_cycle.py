"""What MMIN's cycle teaches under each initialisation of the cascades: the facts that its card states."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from baselines.mmin import MMIN, MMINWithoutCycle
from datamodules import Synthetic
from datamodules.batches.batch import Batch
from ifmmin.checkpoints import load_model
from ifmmin.checkpoints.parts import split_parts
from ifmmin.nn.initialisation import CascadeInit
from ifmmin.optimization import clip_gradients
from ifmmin.testing.trial import subset
from tests.batches import CLASSES, batch_of, learnable_utterances, random_present
from tests.cli.running import best, fit

SMALL: dict[str, Any] = {"embedding_dim": 32, "text_channels": 32, "hidden_dims": [32, 32], "block_dims": [64, 32, 16]}


def outside(model: MMIN, batch: Batch) -> tuple[float, float]:
    """L_cycle, and the norm of its gradient on everything but the second cascade."""
    loss = model.losses(batch)["cycle"]
    others = [parameter for name, part in model.subnetworks() if name != "cycle" for parameter in part.parameters()]
    gradients = torch.autograd.grad(loss, others, allow_unused=True)
    squares = [gradient.square().sum() for gradient in gradients if gradient is not None]
    return float(loss.detach()), float(torch.stack(squares).sum().sqrt())


@cache
def trained(cascade_init: CascadeInit, seed: int) -> list[tuple[float, float]]:
    """:func:`outside` before and after 80 steps on small utterances."""
    torch.manual_seed(seed)
    model = MMIN(feature_dims=[12, 14, 10], class_names=CLASSES, cascade_init=cascade_init, **SMALL)
    model.load_stage1(split_parts(model.stage1_module().state_dict()))
    data = batch_of(learnable_utterances(256, 1), random_present(256), dtype=torch.float32)
    model.teacher.remember([data], len(data))
    found = [outside(model.eval(), data)]
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=2e-3, betas=(model.settings.beta1, 0.999))
    model.train()
    for _ in range(80):
        batch = subset(data, torch.randperm(256)[:64])
        optimizer.zero_grad()
        model.total_loss(model.losses(batch)).backward()
        clip_gradients([part for _, part in model.subnetworks()], model.settings.clip_norm)
        optimizer.step()
    return [*found, outside(model.eval(), data)]


def test_the_published_initialisation_kills_the_cycle() -> None:
    runs = [trained("published", seed) for seed in (0, 1)]
    assert all(before[0] > 1e5 for before, _ in runs)
    assert 0.0 in [gradient for _, (_, gradient) in runs]  # exactly: every ReLU of the second cascade's head is off


def test_the_scaled_initialisation_keeps_it_alive() -> None:
    before, after = trained("scaled", 0)
    assert before[0] < 10
    assert after[1] > 0.01


@pytest.mark.slow
def test_the_same_on_the_built_in_corpus(tmp_path: Path) -> None:
    common = ["--model.embedding_dim", "32", "--model.text_channels", "32", "--test", "false"]
    stage1 = fit(tmp_path / "stage1", *common, model="FusionPretraining", epochs=20)
    found = {}
    for cascade_init in ("published", "scaled"):
        options = ["--model.cascade_init", cascade_init, "--model.pretrained", str(best(stage1))]
        run = fit(tmp_path / cascade_init, *common, *options, model="MMIN", epochs=30)
        model, _ = load_model(run / "checkpoints" / "last.ckpt")
        assert isinstance(model, MMIN)
        data = Synthetic(fold=1)
        data.setup("fit")
        found[cascade_init] = outside(model.eval(), next(iter(data.train_dataloader())))[1]
    assert found["published"] == 0.0
    assert found["scaled"] > 0.001


@pytest.mark.parametrize("share", [True, False])
def test_both_cascades_are_scaled(share: bool) -> None:
    model = MMIN(feature_dims=[5, 6, 7], class_names=CLASSES, cascade_init="scaled", share_cascades=share, **SMALL)
    cascades = [model.imagination] if share else [model.imagination, model.cycle]
    for cascade in cascades:
        for block in cascade.autoencoders():
            assert not block.decoder[-1].get_parameter("weight").any()
        head = cascade.head[-1].get_parameter("weight")
        assert head.std().item() == pytest.approx(head.shape[1] ** -0.5, rel=0.05)


def test_the_option_draws_no_number() -> None:
    """What is not a cascade starts from the same weights under both."""
    for kind in (MMIN, MMINWithoutCycle):
        states = []
        for cascade_init in ("published", "scaled"):
            torch.manual_seed(0)
            states.append(kind(feature_dims=[5, 6, 7], class_names=CLASSES, cascade_init=cascade_init).state_dict())
        for name, value in states[0].items():
            if not name.startswith(("imagination.", "cycle.")):
                assert torch.equal(states[1][name], value), name
