"""The emotion-shift component: reference values, what reaches an answer, and what it may wrap."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from baselines.emotion_shift import EmotionShift
from baselines.emotion_shift.networks import Chains, EmotionCell, ShiftHead
from datamodules.batches.batch import Batch
from datamodules.batches.visible import under_conditions
from datamodules.conditions import CONDITIONS, MISSING_CONDITIONS
from datamodules.errors import InputError
from ifmmin.cli.main import main
from ifmmin.finished import FinishedRun, read_run
from ifmmin.testing.trial import subset
from tests.batches import CLASSES, DIMS, random_batch
from tests.cli.running import SMALL, fit
from tests.ifmmin.models import build_narrow
from tests.systems import close, load_system


def model(**options: Any) -> EmotionShift:
    """A small one, its wrapped model untrained."""
    made = build_narrow("EmotionShift", **options)
    assert isinstance(made, EmotionShift)
    return made


def talk(size: int = 8, seed: int = 0) -> Batch:
    """Turns of two chains, alternating."""
    position = torch.arange(size)
    return replace(random_batch(size, seed=seed), turn=torch.stack([position % 2, position // 2, position // 2], dim=1))


def test_shift_and_state_are_those_of_the_reference() -> None:
    golden = load_system("emotion_shift", "papers")
    head, cell = ShiftHead(3).double(), EmotionCell(3, 2).double()
    head.compare.load_state_dict({"weight": golden["in/siamese_weight"], "bias": golden["in/siamese_bias"]})
    cell.enter.load_state_dict({"weight": golden["in/input_weight"], "bias": golden["in/input_bias"]})
    cell.keep.load_state_dict({"weight": golden["in/hidden_weight"], "bias": golden["in/hidden_bias"]})
    with torch.no_grad():
        shift = head(golden["in/utterance"][None]).softmax(dim=2)[..., 0]
        close(shift[0], golden["out/shift_probability"])
        party = golden["in/party_state"][None]
        close(cell(party, shift)[0], golden["out/emotion_state"])
        # P(shift) = 0, as the published backward direction has it, holds the state where it started.
        close(cell(party, torch.zeros_like(shift))[0], golden["out/emotion_state_backward_as_published"])
        # P(shift) = 1 forgets it: a state is that of its turn alone.
        ones = torch.ones(8, 1, dtype=torch.float64)
        close(cell(party, torch.ones_like(shift))[0], cell(party[0][:, None], ones)[:, 0])


def test_shift_targets_are_those_of_the_reference() -> None:
    golden = load_system("emotion_shift", "papers")
    position, label, speaker = torch.zeros(8, dtype=torch.int64), golden["in/label"], golden["in/speaker"]
    for row in range(8):
        position[row] = (speaker[:row] == speaker[row]).sum()
    batch = replace(random_batch(8), labels=label, turn=torch.stack([speaker, position, position], dim=1))
    wrapped = model()
    assert wrapped.negative.tolist() == golden["in/negative_class"].tolist()
    assert torch.equal(wrapped.shift_targets(batch, Chains.of(batch)), golden["out/shift_from_same_speaker"])


def test_a_regression_shifts_by_sign_and_unknown_labels_are_no_target() -> None:
    wrapped = model(class_names=[], task={"name": "regression", "low": -3.0, "high": 3.0})
    values = torch.tensor([1.0, -1.0, 2.0, torch.nan, -2.0])
    turn = torch.stack([torch.zeros(5, dtype=torch.int64), torch.arange(5), torch.arange(5)], dim=1)
    batch = replace(random_batch(5), labels=values, turn=turn)
    assert wrapped.shift_targets(batch, Chains.of(batch)).tolist() == [-1, 1, 1, -1, -1]


@torch.no_grad()
def test_chains_put_rows_in_order_as_a_loop_does() -> None:
    rows, condition = under_conditions(talk(10), ["a", "vt", "avt"])
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
    rows = replace(rows, row=rows.row[order], present=rows.present[order], reading=condition[order])
    assert rows.turn is not None
    chains, turn = Chains.of(rows), rows.turn[rows.row]
    assert (chains.count, chains.longest) == (6, 5)
    assert torch.equal(chains.step, turn[:, 1])
    keys = list(zip(turn[:, 0].tolist(), condition[order].tolist(), strict=True))
    assert len(set(zip(keys, chains.chain.tolist(), strict=True))) == 6
    values = torch.randn(len(rows), 3)
    assert torch.equal(chains.spread(chains.gather(values)), values)


def test_a_turn_that_is_read_twice_in_one_reading_is_refused() -> None:
    rows = replace(under_conditions(talk(), ["a", "v"])[0], reading=None)
    with pytest.raises(RuntimeError, match=r"batch\.reading"):
        Chains.of(rows)


@torch.no_grad()
def test_earlier_turns_reach_an_answer_and_later_ones_and_other_chains_do_not() -> None:
    wrapped, batch = model(), talk()
    outputs = wrapped(batch)
    first = subset(batch, torch.arange(6))  # without the last turn of either chain
    close(wrapped(first), outputs[:6])
    own = torch.arange(0, 8, 2)
    close(wrapped(subset(batch, own)), outputs[own])
    without_start = wrapped(subset(batch, own[1:]))
    assert (without_start - outputs[own[1:]]).abs().min() > 1e-6
    order = torch.randperm(8)
    close(wrapped(subset(batch, order)), outputs[order])


@torch.no_grad()
def test_each_condition_is_a_reading_of_its_own() -> None:
    wrapped, batch = model(), talk()
    outputs, row, condition = wrapped.evaluate(batch, CONDITIONS)
    for place, name in enumerate(CONDITIONS):
        alone, alone_row, _ = wrapped.evaluate(batch, [name])
        mine = condition == place
        assert torch.equal(row[mine], alone_row)
        close(outputs[mine], alone)


@torch.no_grad()
def test_a_turn_that_lacks_a_modality_is_left_out_of_the_chain_under_its_conditions() -> None:
    wrapped, batch = model(), talk()
    lengths = batch.lengths.clone()
    lengths[2, 0] = 0  # the second turn of the first chain has no audio
    gap = replace(batch, lengths=lengths)
    kept = torch.tensor([0, 1, 3, 4, 5, 6, 7])
    outputs, row, _ = wrapped.evaluate(gap, ["a"])
    assert torch.equal(row, kept)
    close(outputs, wrapped.evaluate(subset(batch, kept), ["a"])[0])


def test_labels_are_targets_and_never_inputs() -> None:
    wrapped, batch = model(), talk()
    other = replace(batch, labels=torch.tensor([0, 0, 0, 0, 3, 1, 0, 1]))
    with torch.no_grad():
        assert torch.equal(wrapped(batch), wrapped(other))
    assert not torch.equal(wrapped.losses(batch)["shift"], wrapped.losses(other)["shift"])


def test_every_parameter_of_the_component_learns_and_none_of_the_wrapped_model() -> None:
    wrapped, batch = model().train(), talk()
    assert not wrapped.around.training
    wrapped.total_loss(wrapped.losses(batch)).backward()
    for name, parameter in wrapped.named_parameters():
        if name.startswith("around."):
            assert parameter.grad is None
        else:
            assert parameter.grad is not None and bool(parameter.grad.any()), name


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Nothing", "is not known"),
        ("EmotionShift", "cannot be wrapped in itself"),
        ("FusionPretraining", "a stage 1"),
        ("baselines.plain_fusion.ModalityDropout", "not a class path"),
    ],
)
def test_what_cannot_be_wrapped_is_refused_in_one_line(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as refused:
        EmotionShift(feature_dims=list(DIMS), class_names=CLASSES, around=name)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["MMIN", "MCTN", "TFN"])
@torch.no_grad()
def test_it_wraps_models_of_every_kind(name: str) -> None:
    wrapped = EmotionShift(feature_dims=list(DIMS), class_names=CLASSES, around=name).double().eval()
    assert wrapped.remarks == [f"around {name}", "reads earlier turns"]
    batch = talk()
    if (steps := wrapped.needs.steps) is not None:
        batch = replace(batch, frames=_pooled(batch, steps), lengths=torch.full_like(batch.lengths, steps))
    assert wrapped(batch).isfinite().all()


def _pooled(batch: Batch, steps: int) -> tuple[Tensor, Tensor, Tensor]:
    from datamodules.batches.pooling import pool_steps

    audio, visual, text = (pool_steps(frames, batch.lengths[:, m], steps) for m, frames in enumerate(batch.frames))
    return audio, visual, text


@pytest.mark.parametrize("name", ["bored", "bored.twice"])
def test_no_class_of_the_negative_group_can_be_unknown(name: str) -> None:
    with pytest.raises(InputError, match=f"negative: '{name}' is not known.*sad\\.$"):
        model(negative=[name])


@pytest.fixture(scope="module")
def remembering(tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    """A run on labels with a memory, as long as its recipe says."""
    folder = tmp_path_factory.mktemp("runs") / "stay"
    assert main(["fit", "--model", "EmotionShift", "--data.stay", "0.85", "--run_dir", str(folder)]) == 0
    return read_run(folder)


def test_a_run_that_is_loaded_again_reads_turns(tmp_path: Path) -> None:
    fit(tmp_path, *SMALL, "--data.stay", "0.85", model="EmotionShift")
    _, data = read_run(tmp_path).load()
    assert all(batch.turn is not None for batch in data.in_order("test"))


def mean_of_six(run: FinishedRun) -> float:
    """WA, in [0, 1]."""
    value = run.results.scores()["mean"]["WA"]
    assert value is not None
    return value


@pytest.mark.slow
def test_with_a_memory_in_labels_it_is_between_the_rule_of_one_turn_and_the_filter(remembering: FinishedRun) -> None:
    _, data = remembering.load()
    alone, filtered = (data.bayes_accuracy("test", memory=memory) for memory in (False, True))
    assert alone is not None and filtered is not None
    limits = [sum(limit[name] for name in MISSING_CONDITIONS) / 6 for limit in (alone, filtered)]
    assert limits[0] < mean_of_six(remembering) < limits[1]
    # A table shows the limit of what the model reads.
    table = json.loads((remembering.folder / "metrics.json").read_text())["metrics"]
    assert table["mean"]["bayes_WA"] == pytest.approx(limits[1])


@pytest.mark.slow
@torch.no_grad()
def test_shuffled_chains_lose_the_gain(remembering: FinishedRun) -> None:
    wrapped, data = remembering.load()
    accuracy = {}
    for shuffled in (False, True):
        right: list[Tensor] = []
        for batch in data.in_order("test"):
            assert batch.turn is not None
            order = torch.randperm(len(batch.turn), generator=torch.Generator().manual_seed(0))
            read = replace(batch, turn=batch.turn[order]) if shuffled else batch
            outputs, row, _ = wrapped.evaluate(read, MISSING_CONDITIONS)
            right.append(outputs.argmax(dim=1) == batch.labels[row])
        accuracy[shuffled] = torch.cat(right).float().mean().item()
    alone = data.bayes_accuracy("test")
    assert alone is not None
    assert accuracy[False] == pytest.approx(mean_of_six(remembering), abs=1e-6)
    assert accuracy[True] < sum(alone[name] for name in MISSING_CONDITIONS) / 6 < accuracy[False]
