"""Our models compute what a plain writing of the published loop computes, and faster."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.published.forms import PLAIN_FORMS, plain_tensors
from benchmarks.published.loop import PlainLoop, UtteranceItems, collate
from benchmarks.published.models import Utterance
from benchmarks.speed import throughput
from benchmarks.speed.epochs import start
from benchmarks.speed.random_corpus import RandomCorpus
from datamodules.batches.batch import Batch
from datamodules.batches.loading import Request
from datamodules.conditions import CONDITION_TABLE, CONDITIONS
from ifmmin.base import MissingModalityModule
from ifmmin.checkpoints.compatibility import model_arguments
from ifmmin.pretraining.stage2 import PretrainedModule
from tests.batches import DIMS, batch_of, random_present

MODELS = {model.__name__: model for model in PLAIN_FORMS}
ABSENT_FRAMES = (40, 50, 22)
"""The published code reads an absent modality at its own length: only at this one do both agree."""


@pytest.fixture(scope="module")
def corpus() -> RandomCorpus:
    data = RandomCorpus(utterances=40)
    data.setup("fit")
    return data


@pytest.fixture(scope="module")
def batch() -> Batch:
    """Random utterances of fixed lengths, under each of the six missing conditions."""
    rng = np.random.default_rng(0)
    audio, visual, text = (rng.standard_normal((13, T, D)) for T, D in zip(ABSENT_FRAMES, DIMS, strict=True))
    return batch_of(list(zip(audio, visual, text, strict=True)), random_present(13))


def both(name: str, corpus: RandomCorpus) -> tuple[MissingModalityModule, PlainLoop]:
    """A model in both forms, in float64 and without dropout; a teacher that is not the student."""
    torch.manual_seed(0)
    model = start(MODELS[name](**model_arguments(corpus) | {"feature_dims": list(DIMS)}, clip_norm=1e-3))
    if isinstance(model, PretrainedModule):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.02 * torch.randn_like(parameter))
    model.double().eval()
    loop = PlainLoop(model, corpus, torch.device("cpu"))
    loop.model.eval()
    return model, loop


def plain_batch(batch: Batch, present: Tensor) -> Utterance:
    return Utterance(batch.frames, present.double(), batch.labels)


def assert_same(ours: Tensor, plain: Tensor) -> None:
    """Within 1e-9 of the largest value."""
    assert ours.shape == plain.shape
    assert (ours - plain).abs().max() <= 1e-9 * plain.abs().max()


@pytest.mark.parametrize("name", MODELS)
def test_losses_and_gradients_are_those_of_the_published_loop(name: str, corpus: RandomCorpus, batch: Batch) -> None:
    model, loop = both(name, corpus)
    losses = model.losses(batch)
    model.total_loss(losses).backward()
    plain_losses = loop.backward(plain_batch(batch, batch.present))
    assert losses.keys() == plain_losses.keys()
    for term, value in losses.items():
        assert_same(value, plain_losses[term])

    def same_gradients() -> None:
        trained = {key: value.grad for key, value in model.named_parameters() if value.grad is not None}
        plain = {key: value.grad for key, value in loop.model.named_parameters() if value.grad is not None}
        assert len(trained) == len([1 for value in model.parameters() if value.requires_grad])
        ours = plain_tensors(trained)
        assert ours.keys() == plain.keys()
        for key, gradient in plain.items():
            assert gradient.any(), key
            assert_same(ours[key], gradient)

    same_gradients()
    before = [value.grad.clone() for value in model.parameters() if value.grad is not None]
    model.configure_gradient_clipping(torch.optim.Adam(model.parameters()))
    loop.clip()
    after = [value.grad for value in model.parameters() if value.grad is not None]
    assert not any(torch.equal(old, new) for old, new in zip(before, after, strict=True))
    same_gradients()


@pytest.mark.parametrize("name", MODELS)
def test_one_encoding_answers_what_seven_passes_do(name: str, corpus: RandomCorpus, batch: Batch) -> None:
    model, loop = both(name, corpus)
    with torch.no_grad():
        # Stage 1 of the published loop knows complete utterances only.
        conditions = CONDITIONS if isinstance(model, PretrainedModule) else loop.model.val_conditions
        logits, row, condition = model.evaluate(batch, conditions)
        for position in map(CONDITIONS.index, conditions):
            present = CONDITION_TABLE[position].expand(len(batch), 3)
            mine = condition == position
            assert row[mine].tolist() == list(range(len(batch)))
            assert_same(logits[mine], loop.model(plain_batch(batch, present)))


def test_the_loop_reads_the_frames_that_our_loader_does(corpus: RandomCorpus) -> None:
    items = UtteranceItems(corpus, "val", CONDITIONS)
    plain = collate([items[position] for position in range(len(items))])
    ours = corpus.val_dataloader().dataset[Request(corpus.indices("val"), 0)]
    for mine, theirs in zip(ours.frames, plain.frames, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-6)
    assert ours.labels.tolist() == plain.label.tolist()


def test_conditions_are_drawn_for_each_utterance_and_each_time(corpus: RandomCorpus) -> None:
    items = UtteranceItems(corpus, "train", ("a", "vt"))
    drawn = {tuple(items[position].present.tolist()) for position in (0, 1) for _ in range(40)}
    assert drawn == {(1, 0, 0), (0, 1, 1)}


@pytest.mark.parametrize(("share", "batches", "seen"), [(1.0, 4, 1.0), (0.5, 2, 20 / 32)])
def test_a_share_of_an_epoch(share: float, batches: int, seen: float, corpus: RandomCorpus) -> None:
    torch.manual_seed(0)
    model = start(MODELS["MMIN"](**model_arguments(corpus), batch_size=10))
    loop = PlainLoop(model, corpus, torch.device("cpu"))
    before = [value.clone() for value in loop.model.parameters()]
    assert loop.train(share) == seen
    changed = [not torch.equal(old, new) for old, new in zip(before, loop.model.parameters(), strict=True)]
    assert changed == [value.requires_grad for value in loop.model.parameters()]
    assert loop.optimizer.state[loop.optimizer.param_groups[0]["params"][0]]["step"] == batches
    assert loop.validate() == 1.0


def test_throughput_compares_both_sides(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table, plot = tmp_path / "table.csv", tmp_path / "plot.png"
    models = ["InvariantPretraining"]
    options = ["--models", *models, "--utterances", "40", "--repeats", "1", "--quick"]
    throughput.main([*options, "--csv", str(table), "--plot", str(plot)])
    printed = capsys.readouterr().out
    with table.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["model"] for row in rows] == models
    for row in rows:
        assert row["model"] in printed
        plain, ours = (sum(float(row[f"{side}_{part}"]) for part in ("train", "val")) for side in ("plain", "ours"))
        assert float(row["ratio"]) == pytest.approx(plain / ours)
        assert math.isnan(float(row["ours_peak"])) or float(row["ours_peak"]) > 50
    assert plot.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("wrong", [["--repeats", "0"], ["--utterances", "9"], ["--utterances", "many"]])
def test_throughput_refuses_numbers_that_measure_nothing(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        throughput.main(wrong)
    assert error.value.code == 2
    assert "give a whole number of at least" in capsys.readouterr().err


def test_throughput_knows_its_models(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        throughput.main(["--models", "MNIM"])
    assert error.value.code == 2
    assert "MMIN" in capsys.readouterr().err
