"""What must hold for every model, whoever wrote it: the models are those that the command line finds."""

from __future__ import annotations

import io
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules.batches.batch import Batch
from datamodules.conditions import CONDITIONS, per_modality, present_under
from ifmmin.base import MissingModalityModule
from ifmmin.pretraining.stage2 import PretrainedModule
from ifmmin.testing import check_model
from tests.batches import DIMS, Utterance, batch_of, holding, random_batch, random_utterances
from tests.ifmmin.models import MODELS, build, build_narrow, narrow

every_model = pytest.mark.parametrize("name", sorted(MODELS))

model = cache(build_narrow)
"""Models are not changed by prediction, so those tests share them; narrow ones, for there are many."""


def answered(name: str, size: int, seed: int) -> npt.NDArray[np.bool_]:
    """Bool [size, 3]: conditions that the model answers, at random."""
    known = [position for position, condition in enumerate(CONDITIONS) if model(name).answers(condition)]
    return np.array([present_under(CONDITIONS[c]) for c in np.random.default_rng(seed).choice(known, size)])


def close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@every_model
@settings(max_examples=6)
@given(seed=st.integers(0, 10_000), size=st.integers(2, 6), longest=st.integers(1, 30), padding=st.integers(0, 5))
@torch.no_grad()
def test_a_prediction_ignores_the_rest_of_the_batch_and_padding(
    name: str, seed: int, size: int, longest: int, padding: int
) -> None:
    utterances, present = random_utterances(size, seed=seed), answered(name, size, seed)
    together = model(name)(batch_of(utterances, present))
    assert together.shape == (size, model(name).task.outputs)
    assert together.isfinite().all()
    others = random_utterances(3, seed=seed + 1, longest=longest)
    for row in range(size):
        alone = model(name)(batch_of([utterances[row]], present[row : row + 1]))
        close(alone[0], together[row])
    company = batch_of([*others, *utterances[::-1]], np.concatenate([answered(name, 3, 0), present[::-1]]), padding)
    close(model(name)(company)[3:].flip(0), together)


@every_model
@settings(max_examples=6)
@given(seed=st.integers(0, 10_000), size=st.integers(1, 6))
@torch.no_grad()
def test_a_prediction_ignores_content_and_length_of_what_is_absent(name: str, seed: int, size: int) -> None:
    utterances, present = random_utterances(size, seed=seed), answered(name, size, seed)
    lengths = np.random.default_rng(seed).integers(1, 30, (size, 3))
    changed: list[Utterance] = []
    for utterance, shown, hidden in zip(utterances, present, lengths, strict=True):
        parts = zip(utterance, shown, hidden, DIMS, strict=True)
        audio, visual, text = (frames if seen else np.full((T, D), np.nan) for frames, seen, T, D in parts)
        changed.append((audio, visual, text))
    assert torch.equal(model(name)(batch_of(changed, present)), model(name)(batch_of(utterances, present)))


@every_model
@torch.no_grad()
def test_a_prediction_reads_frames_as_they_are_shown_and_never_whole_ones(name: str) -> None:
    utterances, present = random_utterances(6, seed=4), answered(name, 6, 4)
    batch = batch_of(utterances, present)
    whole = per_modality(torch.full_like(frames, torch.nan) for frames in batch.frames)
    assert torch.equal(model(name)(replace(batch, frames=whole, shown=batch.frames)), model(name)(batch))


@every_model
@torch.no_grad()
def test_a_prediction_reads_what_is_present(name: str) -> None:
    one, other = random_utterances(2, seed=2)
    for condition in filter(model(name).answers, CONDITIONS):
        present = np.array([present_under(condition)])
        assert not torch.allclose(model(name)(batch_of([one], present)), model(name)(batch_of([other], present)))


@every_model
@torch.no_grad()
def test_evaluate_answers_each_condition_as_if_it_were_the_only_one(name: str) -> None:
    stored = batch_of(random_utterances(12, seed=3, partial=True))
    conditions = [condition for condition in CONDITIONS if model(name).answers(condition)]
    logits, row, condition = model(name).evaluate(stored, conditions)
    count = 0
    for wanted in conditions:
        shown = torch.tensor(present_under(wanted))
        able = (stored.available | ~shown).all(dim=1).nonzero()[:, 0]
        separately = model(name)(replace(stored, row=able, present=shown.expand(len(able), -1)))
        mine = condition == CONDITIONS.index(wanted)
        assert row[mine].tolist() == able.tolist()
        close(logits[mine], separately)
        count += len(able)
    assert len(logits) == count > len(stored)


def training_batch(name: str) -> Batch:
    """Eight utterances, each under a condition of its own."""
    return replace(random_batch(8, seed=5), present=torch.from_numpy(answered(name, 8, 5)))


@every_model
def test_the_contract(name: str) -> None:
    """Padding, company, order, what is absent, finite gradients for every parameter under every mask, plain options."""
    check_model(MODELS[name], **narrow(name))


@pytest.mark.slow
@every_model
def test_the_contract_at_default_sizes(name: str) -> None:
    check_model(MODELS[name])


OTHER_OPTIONS: list[tuple[str, dict[str, Any]]] = [
    ("InvariantPretraining", {"discrepancy": "bounded"}),
    ("InvariantPretraining", {"discrepancy": "zellinger"}),
    ("InvariantPretraining", {"discrepancy": "none"}),
    *(
        (name, {"invariance_layers": layers, "invariance_activation": activation, "invariance_dropout": dropout})
        for name in ("InvariantPretraining", "IFMMIN")
        for layers, activation, dropout in (
            (4, "sigmoid", 0.5),  # V0200
            (1, "leaky_relu", 0.5),  # V0500
            (1, "leaky_relu", 0.0),  # V0501 to V0503
            (2, "leaky_relu", 0.5),  # V0600
        )
    ),
    ("IFMMIN", {"pretraining": {"discrepancy": "bounded", "invariance_dropout": 0.3}, "invariance_dropout": 0.5}),
    ("IFMMIN", {"cascaded_input": False}),
    ("IFMMIN", {"cascade_form": "accumulated"}),
    ("IFMMIN", {"cascade_form": "accumulated", "cascaded_input": False, "cascade_init": "scaled"}),
    *((name, {"cascade_init": "scaled"}) for name in ("IFMMIN", "MMIN", "MMINWithoutCycle")),
    ("MMIN", {"cascade_init": "scaled", "share_cascades": True}),
]
"""Named options that are not a model's default."""


@pytest.mark.parametrize(("name", "options"), OTHER_OPTIONS, ids=lambda value: str(value).strip("{}"))
def test_the_contract_with_other_options(name: str, options: dict[str, Any]) -> None:
    options = narrow(name) | options
    check_model(MODELS[name], **options)
    trained, batch = build(name, **options), training_batch(name)
    parameters = [parameter for parameter in trained.parameters() if parameter.requires_grad]
    history = [fitted_loss(trained, batch)]
    optimizer = torch.optim.Adam(parameters, lr=1e-4)
    for _ in range(4):
        optimizer.zero_grad()
        fitted = trained.total_loss(trained.losses(batch))
        fitted.backward()
        optimizer.step()
    history.append(fitted_loss(trained, batch))
    assert history[1] < history[0]
    again = build(name, seed=1, **options)
    again.load_state_dict(trained.state_dict())
    assert fitted_loss(again, batch) == history[1]


@torch.no_grad()
def fitted_loss(made: MissingModalityModule, batch: Batch) -> float:
    return float(made.total_loss(made.losses(batch)))


@every_model
def test_the_losses_reach_every_part(name: str) -> None:
    trained = build_narrow(name).train()
    trained.total_loss(trained.losses(training_batch(name))).backward()
    for part_name, part in trained.subnetworks():
        assert any(bool(p.grad.any()) for p in part.parameters() if p.grad is not None), part_name


@every_model
def test_training_reads_what_the_model_says_it_reads(name: str) -> None:
    """Whole utterances are loaded for those models only that cannot do without."""
    trained, batch = build_narrow(name).train(), training_batch(name)
    if isinstance(trained, PretrainedModule):
        trained.teacher.remember([batch], len(batch))
    expected = losses_of(trained, name)
    given = holding(batch, batch.present)
    if trained.needs.hidden_frames:
        with pytest.raises(RuntimeError, match="hidden_frames"):
            trained.losses(given)
    else:
        assert losses_of(trained, name, given) == expected


@every_model
def test_every_trained_parameter_belongs_to_one_clipped_part(name: str) -> None:
    inside = [parameter for _, part in model(name).subnetworks() for parameter in part.parameters()]
    trained = {id(parameter) for parameter in model(name).parameters() if parameter.requires_grad}
    assert {id(parameter) for parameter in inside if parameter.requires_grad} == trained
    assert len({id(parameter) for parameter in inside}) == len(inside)


@every_model
def test_a_few_steps_lower_the_loss_without_any_trainer(name: str) -> None:
    trained, batch = build_narrow(name), training_batch(name)  # in eval mode: dropout would blur the comparison
    optimizer = torch.optim.Adam([p for p in trained.parameters() if p.requires_grad], lr=1e-3)
    history = []
    for _ in range(4):
        torch.manual_seed(0)
        loss = trained.total_loss(trained.losses(batch))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(float(loss.detach()))
    assert history[-1] < history[0]


@every_model
@torch.no_grad()
def test_state_dict_round_trip_is_bit_equal(name: str) -> None:
    file = io.BytesIO()
    torch.save(model(name).state_dict(), file)
    file.seek(0)
    other = build_narrow(name, seed=1)
    batch = batch_of(random_utterances(6, seed=7), answered(name, 6, 7))
    assert not torch.equal(other(batch), model(name)(batch))
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(other(batch), model(name)(batch))
    again, before = (losses_of(made, name) for made in (other, model(name)))
    assert again == before  # the losses too are complete in a checkpoint, teacher included


@torch.no_grad()
def losses_of(made: MissingModalityModule, name: str, batch: Batch | None = None) -> dict[str, float]:
    """Of a training batch, with always the same dropout."""
    torch.manual_seed(0)
    return {term: float(value) for term, value in made.losses(batch or training_batch(name)).items()}


@every_model
def test_another_corpus_another_size(name: str) -> None:
    """Widths and the number of classes follow the data; none is hard-coded."""
    made = MODELS[name](feature_dims=[3, 9, 4], class_names=["no", "yes"]).eval()
    batch = random_batch(4, dims=(3, 9, 4), dtype=torch.float32)
    present = torch.from_numpy(answered(name, 4, 0))
    assert made(replace(batch, present=present)).shape == (4, 2)
