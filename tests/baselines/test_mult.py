"""MulT's parity with its published code (tests/data/systems/mult.npz, float64), and absent modalities."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from baselines import MulT
from baselines.mult.networks import Sizes, Streams, Target, Targets
from datamodules.batches.visible import under_conditions
from datamodules.conditions import CONDITIONS, MODALITIES
from datamodules.errors import InputError
from ifmmin.checkpoints.parts import load_part
from ifmmin.nn.cross_modal import CrossModalTransformer
from ifmmin.nn.heads import ResidualHead
from ifmmin.testing import check_model
from tests.batches import CLASSES, DIMS, random_batch
from tests.systems import State, below, close, load_system

GOLDEN = load_system("mult")
PARAMETERS = below(GOLDEN, "param/")
LETTER = {"text": "l", "audio": "a", "visual": "v"}
NAMES = {
    "self_attn.in_proj_": "attention.project.",
    "self_attn.out_proj.": "attention.output.",
    "fc1.": "hidden.",
    "fc2.": "output.",
    "layer_norms.0.": "norm.",
    "layer_norms.1.": "norm_feedforward.",
    "layer_norm.": "norm.",
}


def transformer_state(parameters: State, name: str) -> State:
    state = {}
    for key, value in below(parameters, f"{name}.").items():
        for theirs, ours in NAMES.items():
            key = key.replace(theirs, ours)
        state[key] = value
    return state


def golden_targets(parameters: State, sizes: Sizes) -> Targets:
    """A target of each modality with the published parameters."""
    targets = Targets()
    for name in MODALITIES:
        letter = LETTER[name]
        weight = parameters[f"proj_{letter}.weight"][:, :, 0]
        target = Target(name, weight.shape[1], sizes).double().eval()
        load_part(target.project, {"weight": weight}, name)
        for source, transformer in target.sources.items():
            load_part(transformer, transformer_state(parameters, f"trans_{letter}_with_{LETTER[source]}"), source)
        load_part(target.memory, transformer_state(parameters, f"trans_{letter}_mem"), name)
        targets[name] = target
    return targets


def golden_answer(parameters: State, z: Tensor) -> Tensor:
    """Logits of z [B, 3, 2d]; the published order is text, audio, visual."""
    width = z.shape[1] * z.shape[2]
    head = ResidualHead(width, dropout=0.0).double()
    linears = {"proj1.": "hidden.", "proj2.": "back."}
    state = {ours + key: part for theirs, ours in linears.items() for key, part in below(parameters, theirs).items()}
    load_part(head, state, "head")
    read = head(z[:, [2, 0, 1]].flatten(1))
    return F.linear(read, parameters["out_layer.weight"], parameters["out_layer.bias"])


def golden_sizes(future_mask: bool) -> Sizes:
    names = {"dim": "width", "heads": "heads", "layers": "crossmodal_layers", "memory_layers": "memory_layers"}
    const = {ours: int(GOLDEN[f"const/{theirs}"]) for ours, theirs in names.items()}
    return Sizes(**const, future_mask=future_mask)


def golden_streams(targets: Targets) -> Streams:
    x = [targets.of(m).project(GOLDEN[f"in/{name}"]) for m, name in enumerate(MODALITIES)]
    return Streams(x, None, torch.ones(2, 3, dtype=torch.bool), torch.arange(2))


@torch.no_grad()
def test_crossmodal_and_memory_transformers() -> None:
    targets = golden_targets(PARAMETERS, golden_sizes(future_mask=True))
    x = dict(zip(MODALITIES, golden_streams(targets).x, strict=True))
    text = targets.of(2)
    parts = []
    for source in ("audio", "visual"):
        parts.append(text.sources[source](x["text"], x[source]))
        close(parts[-1], GOLDEN[f"out/text_from_{source}"].transpose(0, 1))
    close(text.memory(torch.cat(parts, dim=2)), GOLDEN["out/text_memory"].transpose(0, 1))


@torch.no_grad()
@pytest.mark.parametrize("future_mask", [True, False])
def test_the_whole_model(future_mask: bool) -> None:
    targets = golden_targets(PARAMETERS, golden_sizes(future_mask))
    z = targets.eval()(golden_streams(targets))
    if future_mask:
        close(z[:, [2, 0, 1]].flatten(1), GOLDEN["out/last_hs"])
        close(F.cross_entropy(golden_answer(PARAMETERS, z), GOLDEN["in/labels"]), GOLDEN["loss/cross_entropy"])
    close(golden_answer(PARAMETERS, z), GOLDEN["out/logits" if future_mask else "out/logits_without_future_mask"])


def made(**options: Any) -> MulT:
    torch.manual_seed(0)
    small: dict[str, Any] = {"steps": 4, "dim": 8, "heads": 2, "layers": 2, "memory_layers": 2}
    return MulT(feature_dims=list(DIMS), class_names=CLASSES, **(small | options)).double().eval()


def of_one_row(model: MulT, frames: list[Tensor | None]) -> Tensor:
    """Outputs [O] of the frames [T, D] of one utterance, None where absent."""
    z, targets = [], [model.targets.of(m) for m in range(3)]
    x = [
        None if part is None else part[None] @ target.project.weight.T
        for part, target in zip(frames, targets, strict=True)
    ]
    for own, target in zip(x, targets, strict=True):
        if own is None:
            z.append(target.absent[None])
            continue
        sources = ((x[MODALITIES.index(name)], transformer) for name, transformer in target.sources.items())
        parts = [own if other is None else transformer(own, other) for other, transformer in sources]
        z.append(target.memory(torch.cat(parts, dim=2))[:, -1])
    outputs: Tensor = model.answer(torch.stack(z, dim=1))[0]
    return outputs


@torch.no_grad()
@pytest.mark.parametrize("future_mask", [False, True])
def test_an_absent_source_leaves_the_target_and_an_absent_target_is_learnt(future_mask: bool) -> None:
    model = made(steps=None, future_mask=future_mask)
    batch, condition = under_conditions(random_batch(3), CONDITIONS)
    found = model(batch)
    assert len(condition) == 21
    for row, utterance in enumerate(batch.row.tolist()):
        frames = [
            batch.frames[m][utterance, : batch.lengths[utterance, m]] if batch.present[row, m] else None
            for m in range(3)
        ]
        torch.testing.assert_close(found[row], of_one_row(model, frames))


def test_the_loss_is_that_of_the_masked_rows() -> None:
    model, batch = made(steps=None), random_batch(6)
    outputs = model(batch)
    expected = torch.stack([-outputs[row].log_softmax(0)[label] for row, label in enumerate(batch.labels)]).mean()
    torch.testing.assert_close(model.losses(batch), {"cls": expected})
    assert not model.needs.hidden_frames


@torch.no_grad()
def test_seven_conditions_of_an_utterance_run_each_transformer_as_seldom_as_possible() -> None:
    model, rows = made(steps=None), dict[str, int]()
    for name, part in model.named_modules():
        if isinstance(part, CrossModalTransformer):
            part.register_forward_pre_hook(lambda _, given, name=name: rows.update({name: len(given[0])}))
    model(under_conditions(random_batch(5), CONDITIONS)[0])
    assert len(rows) == 9
    assert {name: count for name, count in rows.items() if name.endswith("memory")} == {
        f"targets.{name}.memory": 4 * 5 for name in MODALITIES
    }
    assert {count for name, count in rows.items() if not name.endswith("memory")} == {5}


@pytest.mark.parametrize("options", [{"steps": None}, {"steps": None, "future_mask": True}, {"steps": 3}], ids=str)
def test_the_contract_with_other_options(options: dict[str, Any]) -> None:
    check_model(MulT, dim=8, heads=2, layers=1, memory_layers=1, **options)


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(InputError, match="heads 3"):
        made(heads=3)
