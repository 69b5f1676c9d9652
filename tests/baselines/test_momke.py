"""MoMKE's parity with its published code (tests/data/systems/momke.npz, float64), and its own parts.

A published sequence is a dialogue, its steps are utterances; here a sequence is an utterance, its steps are pooled
frames. Each dialogue is read as one utterance of as many steps as it has.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.momke import ExpertLayer, ExpertPretraining, MoMKE
from datamodules.batches.batch import Batch
from datamodules.conditions import CONDITIONS
from datamodules.errors import InputError
from ifmmin.checkpoints.parts import load_part, split_parts
from ifmmin.testing import check_model
from tests.batches import CLASSES, DIMS, batch_of, random_batch, random_utterances
from tests.systems import State, below, close, load_system

GOLDEN = load_system("momke")
PUBLISHED = below(GOLDEN, "param/")
SHORT = {"audio": "a", "visual": "v", "text": "t"}
ORDER = [0, 2, 1]
"""Audio, visual, text in the published order, which is audio, text, visual."""
STEPS = GOLDEN["in/steps_mask"].sum(dim=1).int().tolist()
dialogues = pytest.mark.parametrize("dialogue", range(3))


def golden_batch(dialogue: int) -> Batch:
    """One dialogue as an utterance of its true steps."""
    steps = STEPS[dialogue]
    audio, visual, text = (GOLDEN[f"in/{name}"][:steps, dialogue][None] for name in SHORT)
    return Batch(
        frames=(audio, visual, text),
        lengths=torch.full((1, 3), steps),
        index=torch.arange(1),
        labels=torch.zeros(1, dtype=torch.int64),
        utterances=["0"],
        row=torch.arange(1),
        present=GOLDEN["in/present_audio_text_visual"][dialogue, ORDER].bool()[None],
    )


def options(dialogue: int) -> dict[str, Any]:
    return {
        "feature_dims": [5, 4, 7],
        "class_names": CLASSES,
        "steps": STEPS[dialogue],
        "dim": int(GOLDEN["const/width"]),
        "heads": int(GOLDEN["const/heads"]),
        "layers": int(GOLDEN["const/depth"]),
    }


def perceptron(name: str) -> State:
    state = below(PUBLISHED, f"{name}.")
    return {f"{ours}.{kind}": state[f"{fc}.{kind}"] for ours, fc in ((0, "fc1"), (2, "fc2")) for kind in KINDS}


KINDS = ("weight", "bias")


def stage1_parts() -> dict[str, State]:
    """Projections, experts and heads of the published code under our names."""
    parts: dict[str, State] = {"projections": {}, "experts": {}, "heads": {}}
    for name, short in SHORT.items():
        for kind in KINDS:
            parts["projections"][f"{name}.{kind}"] = PUBLISHED[f"{short}_in_proj.0.{kind}"]
            parts["heads"][f"{name}.{kind}"] = PUBLISHED[f"nlp_head_{short}.{kind}"]
        for layer in range(int(GOLDEN["const/depth"])):
            network = f"block.blocks.{layer}.Transformer_{short}"
            found = {f"mlp.{key}": value for key, value in perceptron(f"{network}.mlp").items()}
            for letter, ours in (("q", "query"), ("k", "key"), ("v", "value")):
                found |= {f"{ours}.{kind}": PUBLISHED[f"{network}.{letter}.{kind}"] for kind in KINDS}
            parts["experts"] |= {f"{name}.{layer}.{key}": value for key, value in found.items()}
    return parts


def in_our_order(published: Tensor, dim: int = 0) -> Tensor:
    """[a; t; v] as [a; v; t]."""
    audio, text, visual = published.chunk(3, dim=dim)
    return torch.cat([audio, visual, text], dim=dim)


def stage2(dialogue: int) -> MoMKE:
    model = MoMKE(**options(dialogue)).double().eval()
    model.load_stage1(stage1_parts())
    for name, short in SHORT.items():
        state = perceptron(f"router_{short}")
        state |= {f"2.{kind}": in_our_order(state[f"2.{kind}"]) for kind in KINDS}
        load_part(model.routers[name], state, name)
    weight, bias = (PUBLISHED[f"proj1.{kind}"] for kind in KINDS)
    load_part(model.joint, {"weight": in_our_order(in_our_order(weight), 1), "bias": in_our_order(bias)}, "joint")
    head = {"weight": in_our_order(PUBLISHED["nlp_head.weight"], 1), "bias": PUBLISHED["nlp_head.bias"]}
    load_part(model.head, head, "head")
    return model


@dialogues
@torch.no_grad()
def test_stage1_logits(dialogue: int) -> None:
    model, steps = ExpertPretraining(**options(dialogue)).double().eval(), STEPS[dialogue]
    for name, state in stage1_parts().items():
        load_part(getattr(model, name), state, name)
    batch = golden_batch(dialogue).unmasked()
    alone = model.answers_alone(batch)
    for m, name in enumerate(SHORT):
        logits = model.heads[name](model.experts[name](model.tokens(batch, m)))[0]
        published = GOLDEN[f"stage1/out/logits_{name}"][dialogue, :steps]
        close(logits, published)
        close(alone[0, m], published.mean(dim=0))
    close(model(batch)[0], alone[0].mean(dim=0))


def test_losses_of_the_published_logits() -> None:
    """There a cross entropy over the steps of dialogues."""
    true = GOLDEN["in/steps_mask"].bool()
    task, labels = ExpertPretraining(**options(0)).task, GOLDEN["in/labels"][true]
    for name in SHORT:
        close(task.loss(GOLDEN[f"stage1/out/logits_{name}"][true], labels), GOLDEN[f"stage1/loss/{name}"])
    close(task.loss(GOLDEN["stage2/out/logits"][true], labels), GOLDEN["stage2/loss/cross_entropy"])


@dialogues
@torch.no_grad()
def test_stage2_forward(dialogue: int) -> None:
    model, batch, steps = stage2(dialogue), golden_batch(dialogue), STEPS[dialogue]
    routing = GOLDEN["stage2/out/routing_audio_text_visual"]
    for m in range(3):
        if bool(batch.present[0, m]):
            weights = model.route(model.tokens(batch, m), m)[0]
            close(weights, routing[ORDER[m], dialogue, :steps][:, ORDER])
    if bool(batch.present[0, 0]):
        tokens = model.tokens(batch, 0)
        known = torch.cat([expert(tokens)[0] for expert in model.experts.values()], dim=1)
        close(known, in_our_order(GOLDEN["stage2/out/experts_on_audio"][dialogue, :steps], 1))
    u = model.mix(model.embed(batch))
    close(u[0], in_our_order(GOLDEN["stage2/out/hidden"][dialogue, :steps], 1))
    logits = GOLDEN["stage2/out/logits"][dialogue, :steps]
    close(model.head(u)[0], logits)
    close(model(batch)[0], logits.mean(dim=0))
    close(model.losses(batch)["cls"], F.cross_entropy(logits.mean(dim=0)[None], batch.label))


def test_stage2_starts_from_the_projections_and_experts_of_stage1() -> None:
    torch.manual_seed(0)
    model = MoMKE(feature_dims=list(DIMS), class_names=CLASSES, dim=8, layers=2, steps=3)
    stage1 = model.stage1_module()
    assert isinstance(stage1, ExpertPretraining)
    assert (stage1.steps, stage1.dim) == (3, 8)
    model.load_stage1(split_parts(stage1.state_dict()))
    for name in ("projections", "experts"):
        ours, theirs = (dict(getattr(each, name).named_parameters()) for each in (model, stage1))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.parametrize("norm_first", [False, True])
def test_an_expert_layer_head_by_head(norm_first: bool) -> None:
    torch.manual_seed(0)
    layer, x = ExpertLayer(6, 2, norm_first).double(), torch.randn(4, 3, 6).double()
    assert isinstance(layer.norm, nn.LayerNorm) == norm_first
    for sequence, found in zip(x, layer(x), strict=True):
        read = F.layer_norm(sequence, (6,)) if norm_first else sequence
        query, key, value = layer.query(read), layer.key(read), layer.value(read)
        heads = []
        for columns in (slice(0, 3), slice(3, 6)):
            scores = query[:, columns] @ key[:, columns].T / 3**0.5
            heads.append(scores.softmax(dim=1) @ value[:, columns])
        y = torch.cat(heads, dim=1)
        first, last = layer.mlp[0], layer.mlp[2]
        assert isinstance(first, nn.Linear) and isinstance(last, nn.Linear)
        mapped = F.gelu(y @ first.weight.T + first.bias) @ last.weight.T + last.bias
        torch.testing.assert_close(found, sequence + y + mapped)


def test_stage1_losses_are_over_the_utterances_that_have_the_modality() -> None:
    torch.manual_seed(0)
    model = ExpertPretraining(feature_dims=list(DIMS), class_names=CLASSES, dim=8).double().eval()
    batch = batch_of(random_utterances(16, partial=True))
    losses = model.losses(batch)
    for m, name in enumerate(SHORT):
        terms = []
        for row in range(16):
            if batch.available[row, m]:
                steps = batch.frames[m][row, : batch.lengths[row, m]]
                pooled = F.adaptive_avg_pool1d(steps.T[None], model.steps)[0].T
                known = model.experts[name](model.projections[name](pooled)[None])[0].mean(dim=0)
                terms.append(F.cross_entropy(model.heads[name](known), batch.labels[row]))
        torch.testing.assert_close(losses[name], torch.stack(terms).mean())


def test_a_specialist_trains_and_answers_under_its_condition_alone() -> None:
    torch.manual_seed(0)
    small: dict[str, Any] = {"feature_dims": list(DIMS), "class_names": CLASSES, "dim": 8}
    specialist, general = MoMKE(**small, condition="at").double().eval(), MoMKE(**small).double().eval()
    general.load_state_dict(specialist.state_dict())
    assert [condition for condition in CONDITIONS if specialist.answers(condition)] == ["at"]
    assert all(map(general.answers, CONDITIONS))
    assert specialist.needs.hidden_frames and not general.needs.hidden_frames
    batch = batch_of(random_utterances(16, partial=True))
    both = batch.available[:, 0] & batch.available[:, 2]
    rows = both.nonzero()[:, 0]
    shown = replace(batch, row=rows, present=torch.tensor([True, False, True]).expand(len(rows), 3))
    expected = F.cross_entropy(general(shown), batch.labels[rows])
    torch.testing.assert_close(specialist.losses(batch)["cls"], expected)


@pytest.mark.parametrize("other", [{"condition": "at"}, {"condition": "v"}, {"norm_first": True}], ids=str)
def test_the_contract_with_other_options(other: dict[str, Any]) -> None:
    check_model(MoMKE, dim=8, layers=2, **other)


def test_heads_divide_the_width() -> None:
    with pytest.raises(InputError, match="heads 3"):
        MoMKE(feature_dims=list(DIMS), class_names=CLASSES, heads=3)


def test_what_is_absent_is_zero_for_the_head() -> None:
    torch.manual_seed(0)
    model, batch = MoMKE(feature_dims=list(DIMS), class_names=CLASSES, dim=8).eval(), random_batch(12)
    shown = model.double().modality_embeddings(batch).abs().sum(dim=2) > 0
    assert torch.equal(shown, batch.present)
