"""MCMulT by our definition (tests/data/papers/mcmult.npz), as MulT, and what its paper says of levels."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from baselines import MCMulT
from baselines.mcmult import CooperativeTargets, Levels, Stack, cooperate
from baselines.mult.networks import Target
from datamodules.batches.visible import under_conditions
from datamodules.conditions import CONDITIONS, MODALITIES
from datamodules.errors import InputError
from ifmmin.checkpoints.parts import load_part
from ifmmin.nn.cross_modal import CrossModalLayer, CrossModalTransformer
from ifmmin.nn.padding import frame_mask
from ifmmin.testing import check_model
from tests.baselines.test_mult import GOLDEN as MULT
from tests.baselines.test_mult import (
    PARAMETERS,
    golden_answer,
    golden_sizes,
    golden_streams,
    golden_targets,
)
from tests.batches import CLASSES, DIMS, batch_of, random_batch, random_utterances
from tests.systems import State, below, close, load_system

GOLDEN = load_system("mcmult", folder="papers")
Lengths = tuple[Tensor | None, Tensor | None]
NAMES = {
    "in_proj_": "attention.project.",
    "out_proj_": "attention.output.",
    "fc1_": "hidden.",
    "fc2_": "output.",
    "ln1_": "norm.",
    "ln2_": "norm_feedforward.",
}
SUFFIXES = {"g": "weight", "b": "bias"}


def golden_stack(modality: int) -> Stack:
    """The stack of a modality, 2 heads, with a hidden width of 8."""
    stack = Stack(4, 2, 3).double().eval()
    for place, layer in enumerate(stack.layers):
        assert isinstance(layer, CrossModalLayer)
        layer.hidden, layer.output = nn.Linear(4, 8).double(), nn.Linear(8, 4).double()
        given, state = below(GOLDEN, f"in/{modality}/{place}/"), State()
        for theirs, ours in NAMES.items():
            for suffix, value in below(given, theirs).items():
                state[ours + SUFFIXES.get(suffix, suffix)] = value
        load_part(layer, state, "layer")
        load_part(stack.key_norms[place], {"weight": given["lnk_g"], "bias": given["lnk_b"]}, "key_norm")
    stack.level.data = GOLDEN["in/level_embedding"][modality]
    return stack


@torch.no_grad()
def test_levels_of_a_pair_are_those_of_our_definition() -> None:
    stacks, lengths = (golden_stack(0), golden_stack(1)), GOLDEN["in/lengths"]
    found = cooperate(stacks, (GOLDEN["in/x0"], GOLDEN["in/x1"]), (lengths[:, 0], lengths[:, 1]))
    for m in range(2):
        true = frame_mask(lengths[:, m], found[m][0].shape[1])
        assert len(found[m]) == 4
        for level in range(1, 4):
            close(found[m][level][true], GOLDEN[f"out/z{m}_level{level}"][true])


def level_out(stack: nn.Module) -> None:
    """Norms of keys are those of queries, and levels carry no vector: what MulT has."""
    assert isinstance(stack, Stack)
    for norm, layer in zip(stack.key_norms, stack.layers, strict=True):
        assert isinstance(layer, CrossModalLayer)
        norm.load_state_dict(layer.norm.state_dict())
    nn.init.zeros_(stack.level)


def as_mult() -> CooperativeTargets:
    """MulT's targets, with the published parameters."""
    sizes, published = golden_sizes(future_mask=False), golden_targets(PARAMETERS, golden_sizes(future_mask=False))
    targets = CooperativeTargets()
    for name in MODALITIES:
        theirs = published[name]
        assert isinstance(theirs, Target)
        target = Target(name, theirs.project.in_features, sizes, Stack).double()
        missing = target.load_state_dict(theirs.state_dict(), strict=False)
        assert not missing.unexpected_keys
        assert {key.split(".")[2] for key in missing.missing_keys} == {"key_norms", "level", "alone"}
        for stack in target.sources.values():
            level_out(stack)
        targets[name] = target
    targets.levels, targets.readout = "first", "last"
    return targets.eval()


@torch.no_grad()
def test_levels_first_is_mult() -> None:
    """The whole published model, whose golden values are of one layer."""
    targets = as_mult()
    close(golden_answer(PARAMETERS, targets(golden_streams(targets))), MULT["out/logits_without_future_mask"])


def random_stacks(**options: Any) -> tuple[Stack, Stack]:
    torch.manual_seed(0)
    first, second = (Stack(8, 2, 4, **options).double().eval() for _ in range(2))
    for stack in (first, second):
        nn.init.normal_(stack.level)
    return first, second


def random_levels() -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(2, 5, 8, dtype=torch.float64), torch.randn(2, 3, 8, dtype=torch.float64)


@torch.no_grad()
@pytest.mark.parametrize("future_mask", [False, True])
def test_levels_first_is_mult_with_several_layers_and_padding(future_mask: bool) -> None:
    stacks, x = random_stacks(future_mask=future_mask), random_levels()
    for stack in stacks:
        for name, parameter in stack.named_parameters():
            if "norm" in name:
                nn.init.normal_(parameter)
        level_out(stack)
    lengths = torch.tensor([5, 2]), torch.tensor([1, 3])
    embedded = stacks[0].embed(x[0]), stacks[1].embed(x[1])
    expected = [stacks[m](x[m], x[1 - m], lengths[m], lengths[1 - m]) for m in range(2)]
    for levels in ("first", "last", "all"):
        found = cooperate(stacks, embedded, lengths, levels)
        for m in range(2):
            true = frame_mask(lengths[m], x[m].shape[1])
            equal = torch.allclose(stacks[m].norm(found[m][-1])[true], expected[m][true], rtol=0, atol=1e-9)
            assert equal == (levels == "first")


def naive(stacks: tuple[Stack, Stack], x: tuple[Tensor, Tensor], levels: Levels) -> tuple[list[Tensor], list[Tensor]]:
    """Levels of one row without padding, each level's keys and values for themselves, and a softmax written out."""
    z = ([x[0]], [x[1]])
    for place in range(len(stacks[0].layers)):
        above = []
        for m in range(2):
            layer, norm, own = stacks[m].layers[place], stacks[m].key_norms[place], z[m][-1]
            assert isinstance(layer, CrossModalLayer)
            read = {"all": range(place + 1), "last": [place], "first": [0]}[levels]
            query = layer.attention.project(layer.norm(own))[:, : own.shape[1]]
            projected = [layer.attention.project(norm(z[1 - m][k] + stacks[1 - m].level[k])) for k in read]
            mixed = torch.zeros_like(own)
            for half in (slice(0, 4), slice(4, 8)):
                scores = torch.cat([query[:, half] @ each[:, 8:16][:, half].T for each in projected], dim=1) / 2
                weights = (scores - scores.amax(1, keepdim=True)).exp()
                weights = weights / weights.sum(1, keepdim=True)
                mixed[:, half] = weights @ torch.cat([each[:, 16:][:, half] for each in projected])
            own = own + layer.attention.output(mixed)
            above.append(own + layer.output(layer.hidden(layer.norm_feedforward(own)).clamp(min=0)))
        for m in range(2):
            z[m].append(above[m])
    return z


@torch.no_grad()
@pytest.mark.parametrize("levels", ["all", "last", "first"])
def test_levels_and_padding(levels: Levels) -> None:
    stacks, x = random_stacks(), random_levels()
    lengths = torch.tensor([5, 2]), torch.tensor([1, 3])
    found = cooperate(stacks, x, lengths, levels)
    for row in range(2):
        alone = naive(stacks, (x[0][row, : lengths[0][row]], x[1][row, : lengths[1][row]]), levels)
        for m in range(2):
            for ours, expected in zip(found[m], alone[m], strict=True):
                close(ours[row, : lengths[m][row]], expected)


@torch.no_grad()
def test_a_future_mask_hides_later_steps_on_every_level() -> None:
    """Both are equally long, so step 1 attends to the steps 0 and 1 of each level."""
    stacks, (x, _) = random_stacks(future_mask=True), random_levels()
    other = x.flip(0)
    before = cooperate(stacks, (x, other))
    after = cooperate(stacks, (x, torch.cat([other[:, :2], torch.randn_like(other[:, 2:])], dim=1)))
    for ours, theirs in zip(before[0], after[0], strict=True):
        close(ours[:, :2], theirs[:, :2])
    assert not torch.allclose(before[0][1][:, 2:], after[0][1][:, 2:])


@torch.no_grad()
@pytest.mark.parametrize(("levels", "changed"), [("all", {2, 3, 4}), ("last", {2}), ("first", set[int]())])
def test_a_layer_reads_several_lower_levels_and_no_higher_one(levels: Levels, changed: set[int]) -> None:
    """Only level 1 of the other modality is perturbed; layer l reads levels below l of it."""
    stacks, x = random_stacks(), random_levels()
    z = cooperate(stacks, x, levels=levels)
    perturbed = [torch.randn_like(each) if place == 1 else each for place, each in enumerate(z[1])]
    different = set()
    for level in range(1, 5):
        context = [stacks[1].seen(other[:level], levels) for other in (z[1], perturbed)]
        before, after = (stacks[0].climb(z[0][level - 1], each, None, level - 1) for each in context)
        close(before, z[0][level])
        if not torch.allclose(before, after):
            different.add(level)
    assert different == changed


@pytest.mark.parametrize(("levels", "both"), [("all", True), ("last", True), ("first", False)])
def test_both_stacks_of_a_pair_learn_from_the_answer_of_either(levels: Levels, both: bool) -> None:
    for m in range(2):
        stacks, x = random_stacks(), random_levels()
        cooperate(stacks, x, levels=levels)[m][-1].square().sum().backward()
        own, other = stacks[m], stacks[1 - m]
        assert all(parameter.grad is not None and parameter.grad.any() for parameter in own.layers.parameters())
        assert all((parameter.grad is not None) == both for parameter in other.layers[:3].parameters())
        # The last level of the other stack is nobody's source.
        assert all(parameter.grad is None for parameter in other.layers[3].parameters())
        grad = other.level.grad
        assert grad is not None
        assert grad.any(dim=1).tolist() == [True, both, both, both]


def made(**options: Any) -> MCMulT:
    torch.manual_seed(0)
    small: dict[str, Any] = {"steps": None, "dim": 8, "heads": 2, "layers": 3, "memory_layers": 2}
    return MCMulT(feature_dims=list(DIMS), class_names=CLASSES, **(small | options)).double().eval()


def of_one_row(model: MCMulT, frames: list[Tensor | None]) -> Tensor:
    """Outputs [O] of the frames [T, D] of one utterance, None where absent."""
    targets, z = model.targets, []
    x = [None if part is None else targets.of(m).project(part)[None] for m, part in enumerate(frames)]
    for m, own in enumerate(x):
        if own is None:
            z.append(targets.of(m).absent[None])
            continue
        halves = []
        for n in (n for n in (2, 0, 1) if n != m):
            other, pair = x[n], (targets.stack(m, n), targets.stack(n, m))
            if other is None:
                halves.append(own + pair[0].alone)
            else:
                top = cooperate(pair, (pair[0].embed(own), pair[1].embed(other)), levels=targets.levels)[0][-1]
                halves.append(pair[0].norm(top))
        steps = targets.of(m).memory(torch.cat(halves, dim=2))
        z.append(steps.mean(dim=1) if targets.readout == "mean" else steps[:, -1])
    outputs: Tensor = model.answer(torch.stack(z, dim=1))[0]
    return outputs


@torch.no_grad()
@pytest.mark.parametrize("options", [{}, {"levels": "last", "readout": "last"}, {"levels": "first"}], ids=str)
def test_the_model_row_by_row_under_every_condition(options: dict[str, Any]) -> None:
    model = made(**options)
    batch, condition = under_conditions(random_batch(3), CONDITIONS)
    found = model(batch)
    assert len(condition) == 21
    for row, utterance in enumerate(batch.row.tolist()):
        frames = [
            batch.frames[m][utterance, : batch.lengths[utterance, m]] if batch.present[row, m] else None
            for m in range(3)
        ]
        close(found[row], of_one_row(model, frames))


@torch.no_grad()
def test_seven_conditions_of_an_utterance_run_a_pair_once() -> None:
    model, rows = made(), dict[str, int]()
    for name, part in model.named_modules():
        if isinstance(part, CrossModalLayer):
            part.attention.register_forward_pre_hook(lambda _, given, name=name: rows.update({name: len(given[0])}))
    model(under_conditions(random_batch(5), CONDITIONS)[0])
    assert len(rows) == 6 * 3 + 3 * 2
    assert {count for name, count in rows.items() if "memory" in name} == {4 * 5}
    assert {count for name, count in rows.items() if "memory" not in name} == {5}


def test_every_projection_of_every_attention_learns() -> None:
    model, batch = made(levels="all").train(), random_batch(24)
    model.total_loss(model.losses(batch)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        # A bias of the keys moves all scores of a query alike.
        parts = parameter.grad.chunk(3)[:: 2 if name.endswith("bias") else 1] if "attention.project" in name else None
        assert all(part.any() for part in parts or [parameter.grad]), name


@pytest.mark.parametrize("rows", [1, 3])
def test_without_a_pair_everything_has_a_finite_gradient(rows: int) -> None:
    model, batch = made().train(), batch_of(random_utterances(rows), torch.eye(3, dtype=torch.bool)[:rows])
    model.total_loss(model.losses(batch)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_the_loss_is_that_of_the_masked_rows() -> None:
    model, batch = made(), random_batch(6)
    outputs = model(batch)
    expected = torch.stack([-outputs[row].log_softmax(0)[label] for row, label in enumerate(batch.labels)]).mean()
    torch.testing.assert_close(model.losses(batch), {"cls": expected})
    assert not model.needs.hidden_frames


@pytest.mark.parametrize(
    "options",
    [{"steps": None}, {"steps": None, "future_mask": True, "levels": "last"}, {"levels": "first", "readout": "last"}],
    ids=str,
)
def test_the_contract_with_other_options(options: dict[str, Any]) -> None:
    check_model(MCMulT, dim=8, heads=2, layers=2, memory_layers=1, **options)


def test_heads_must_divide_the_width_and_levels_have_names() -> None:
    with pytest.raises(InputError, match="heads 3"):
        made(heads=3)
    with pytest.raises(InputError, match="levels 'second'"):
        made(levels="second")


def test_stacks_start_as_transformers_do() -> None:
    """Same weights under one seed, so that ``levels first`` starts as MulT does."""
    torch.manual_seed(0)
    stack = Stack(8, 2, 2)
    torch.manual_seed(0)
    plain = CrossModalTransformer(8, 2, 2)
    for name, parameter in plain.state_dict().items():
        assert torch.equal(stack.state_dict()[name], parameter)
