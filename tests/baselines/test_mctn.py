"""MCTN against step-by-step references, and its two uses through the command line."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping
from torch.nn import functional as F

from baselines.mctn import MCTN
from baselines.mctn.model import Patience
from baselines.mctn.networks import TranslationEncoder
from datamodules.batches.batch import Batch
from datamodules.batches.loading import Request, UtteranceDataset
from datamodules.batches.masks import UniformConditions
from datamodules.batches.visible import under_conditions
from datamodules.conditions import CONDITIONS, present_under
from datamodules.errors import InputError
from datamodules.synthetic import Synthetic
from ifmmin.cli.main import main
from ifmmin.nn.kernels.attention_lstm import Recurrence, attention_lstms
from tests.baselines.naive_mctn import (
    STEPS,
    naive_attention,
    naive_decoder,
    naive_encoder,
    naive_row,
    naive_translations,
)
from tests.batches import CLASSES, DIMS, batch_of, random_batch, random_present, random_utterances
from tests.datamodules.corpora import corpus_of

WIDTH = 8
SAMPLE_IEMOCAP = Path(__file__).parents[1] / "data" / "sample_iemocap"


@pytest.fixture(autouse=True)
def double_precision() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def mctn(seed: int = 0, **settings: Any) -> MCTN:
    """A small model whose biases are not zero, as they are before training."""
    torch.manual_seed(seed)
    model = MCTN(feature_dims=list(DIMS), class_names=CLASSES, **({"width": WIDTH, "hidden_dim": 6} | settings))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "bias" in name:
                parameter.normal_(std=0.3)
    return model.eval()


# Parts.


def test_encoder_sums_the_directions() -> None:
    encoder = TranslationEncoder(WIDTH, 6)
    steps = torch.randn(3, STEPS, WIDTH)
    for ours, row in zip(encoder(steps), steps, strict=True):
        torch.testing.assert_close(ours, torch.stack(naive_encoder(encoder, list(row))), rtol=1e-6, atol=1e-9)


def test_decoder_step_by_step() -> None:
    decoder = mctn().decoder
    encoded = torch.randn(4, STEPS, 6)
    for ours, row in zip(decoder(encoded), encoded, strict=True):
        torch.testing.assert_close(ours, torch.stack(naive_decoder(decoder, list(row))), rtol=1e-6, atol=1e-9)


def test_decoder_attends_by_the_softmax_of_the_scores() -> None:
    decoder, encoded = mctn().decoder, torch.randn(1, STEPS, 6)
    # All values have the gradient of the gates' inputs, times their share of the attention.
    values = torch.randn(1, STEPS, 24, requires_grad=True)
    weights = decoder.score.weight[0], decoder.query.weight, decoder.cell.weight_hh
    (states,) = attention_lstms([Recurrence(decoder.key(encoded), values, *weights)])
    states[0, 0].sum().backward()
    assert values.grad is not None
    shares = values.grad[0].norm(dim=1)
    expected = torch.tensor(naive_attention(decoder, torch.zeros(6), list(encoded[0])))
    torch.testing.assert_close(shares / shares.sum(), expected)


def test_no_row_and_half_precision_are_decoded_too() -> None:
    decoder = mctn().decoder
    nothing = torch.zeros(0, STEPS, 6, requires_grad=True)
    decoder(nothing).sum().backward()
    assert decoder(nothing).shape == nothing.shape
    assert all(not bool(parameter.grad.any()) for parameter in decoder.cell.parameters() if parameter.grad is not None)
    decoder.float()
    encoded = torch.randn(2, STEPS, 6, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = decoder(encoded)
    torch.testing.assert_close(mixed, decoder(encoded))


def test_decoder_sees_every_encoded_step() -> None:
    encoded = torch.randn(1, STEPS, 6, requires_grad=True)
    mctn().decoder(encoded)[0, -1].sum().backward()
    assert encoded.grad is not None
    assert bool((encoded.grad[0].abs().sum(dim=1) > 0).all())


# The model.


@pytest.mark.parametrize("source", ["any", "v"])
def test_losses_row_by_row(source: str) -> None:
    model = mctn(source=source)
    utterances = random_utterances(7, longest=30, seed=1)
    present = random_present(7, seed=1)
    present[6] = True  # a row without any target, as a missing rate can give
    batch = batch_of(utterances, present, padding=3)
    if source == "v":
        present[:] = present_under("v")  # the training mask plays no part
    rows = [
        naive_row(model, utterance, shown, int(label))
        for utterance, shown, label in zip(utterances, present, batch.labels, strict=True)
    ]
    losses = model.losses(batch)
    assert list(losses) == list(rows[0])
    for name, value in losses.items():
        assert value.item() == pytest.approx(sum(row[name] for row in rows) / len(rows), rel=1e-6), name
    assert losses["second"].item() > 0
    logits = model(batch_of(utterances, present))
    torch.testing.assert_close(F.cross_entropy(logits, batch.labels), losses["cls"])
    total = losses["cls"] + 0.1 * (losses["translation"] + losses["cycle"] + losses["second"])
    torch.testing.assert_close(model.total_loss(losses), total)


def test_imagined_embeddings_are_projected_translations() -> None:
    model, utterances, present = mctn(), random_utterances(7, longest=30, seed=1), random_present(7, seed=1)
    imagined, true = model.imagined_embeddings(batch_of(utterances, present))
    for row, (utterance, shown) in enumerate(zip(utterances, present, strict=True)):
        found = naive_translations(model, utterance, shown)
        assert found.keys() == set(np.flatnonzero(~shown))
        for modality, (translated, wanted) in found.items():
            torch.testing.assert_close(imagined[row, modality], translated)
            torch.testing.assert_close(true[row, modality], wanted)


def test_targets_stand_in_a_fixed_order() -> None:
    batch = batch_of(random_utterances(7), [present_under(condition) for condition in CONDITIONS])
    first, second = MCTN.targets(batch)
    chosen = {
        condition: tuple("".join(np.array(list("avt"))[row.numpy()]) for row in (one, two))
        for condition, one, two in zip(CONDITIONS, first, second, strict=True)
    }
    assert chosen == {
        "a": ("v", "t"),
        "v": ("t", "a"),
        "t": ("a", "v"),
        "av": ("t", ""),
        "at": ("v", ""),
        "vt": ("a", ""),
        "avt": ("", ""),
    }


def poisoned(batch: Batch, kept: str) -> Batch:
    """NaN in place of every frame of the modalities that ``kept`` does not name, and other lengths."""
    hidden = [letter not in kept for letter in "avt"]
    audio, visual, text = (
        torch.full_like(frames, torch.nan) if gone else frames
        for frames, gone in zip(batch.frames, hidden, strict=True)
    )
    lengths = torch.where(torch.tensor(hidden), 1, batch.lengths)
    return replace(batch, frames=(audio, visual, text), lengths=lengths)


@pytest.mark.parametrize("source", ["a", "v", "t"])
def test_fixed_source_reads_the_source_alone(source: str) -> None:
    model = mctn(source=source)
    batch = batch_of(random_utterances(5, seed=2), [present_under("avt")] * 5)
    expected = model(batch)
    assert bool(expected.isfinite().all())
    assert torch.equal(model(poisoned(batch, source)), expected)
    alone = replace(batch, present=torch.tensor([present_under(source)] * 5))
    assert torch.equal(model(poisoned(alone, source)), expected)


@pytest.mark.parametrize("condition", CONDITIONS[:-1])
def test_any_source_reads_what_is_available_alone(condition: str) -> None:
    model = mctn()
    batch = batch_of(random_utterances(5, seed=2), [present_under(condition)] * 5)
    expected = model(batch)
    assert bool(expected.isfinite().all())
    assert torch.equal(model(poisoned(batch, condition)), expected)


def test_fixed_source_answers_its_condition_only() -> None:
    model = mctn(source="t")
    assert [condition for condition in CONDITIONS if model.answers(condition)] == ["t"]
    assert all(mctn().answers(condition) for condition in CONDITIONS)
    batch = batch_of(random_utterances(3), [present_under("av"), present_under("t"), present_under("a")])
    assert model(batch).isnan().all(dim=1).tolist() == [True, False, True]


def test_unknown_source_is_refused() -> None:
    with pytest.raises(InputError, match="source 'audio': choose one of any, a, v, t"):
        mctn(source="audio")


def test_no_steps_are_refused() -> None:
    with pytest.raises(InputError, match="steps 0: it must be at least 1"):
        mctn(steps=0)


def test_prediction_does_not_depend_on_the_batch() -> None:
    model = mctn()
    utterances, present = random_utterances(6, seed=3, longest=30), random_present(6)
    together = model(batch_of(utterances, present, padding=9))
    alone = [model(batch_of([one], shown[None])) for one, shown in zip(utterances, present, strict=True)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-9, atol=1e-12)
    rows, _ = under_conditions(batch_of(utterances), CONDITIONS)
    for logits, stored, shown in zip(model(rows), rows.row, rows.present, strict=True):
        single = model(batch_of([utterances[stored]], shown[None].numpy()))
        torch.testing.assert_close(logits[None], single, rtol=1e-9, atol=1e-12)


def test_no_row_no_answer() -> None:
    """Evaluation under a condition that no utterance of a batch allows."""
    batch = random_batch(3)
    assert mctn()(replace(batch, row=batch.row[:0], present=batch.present[:0])).shape == (0, len(CLASSES))


def test_utterances_the_corpus_holds_in_part() -> None:
    """What the corpus does not hold is neither read nor a target."""
    model, utterances = mctn(), random_utterances(12, seed=4, partial=True)
    batch = batch_of(utterances)
    first, second = MCTN.targets(batch)
    assert not bool((first | second).any())
    assert bool(model(batch).isfinite().all())
    assert all(bool(value.isfinite()) for value in model.losses(batch).values())


@pytest.mark.parametrize("condition", CONDITIONS)
def test_every_parameter_gets_a_gradient_whatever_is_drawn(condition: str) -> None:
    """Several devices wait for the gradients of all parameters, every step."""
    model = mctn()
    batch = batch_of(random_utterances(3), [present_under(condition)] * 3)
    model.total_loss(model.losses(batch)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and bool(parameter.grad.isfinite().all()), name


def test_every_parameter_gets_a_gradient_that_is_not_zero() -> None:
    model = mctn()
    model.total_loss(model.losses(random_batch(6))).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and bool(parameter.grad.any()), name


def test_mixed_precision() -> None:
    model = mctn().float()
    batch = random_batch(6, dtype=torch.float32)
    expected = model.losses(batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = model.losses(batch)
        model.total_loss(losses).backward()
    for name, value in losses.items():
        torch.testing.assert_close(value, expected[name], rtol=0.02, atol=0)


def test_it_learns_to_translate() -> None:
    """Three linear views of one latent: each is read off another once the second model is trained too."""
    rng = np.random.default_rng(0)
    maps = [rng.standard_normal((4, dim)) for dim in DIMS]
    latents = rng.standard_normal((24, 1, 4)).repeat(5, axis=1)
    audio, visual, text = ([latent @ matrix for latent in latents] for matrix in maps)
    model = mctn(hidden_dim=32, width=32, steps=4)
    batch = batch_of(list(zip(audio, visual, text, strict=True)), random_present(24))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    before = {name: value.item() for name, value in model.losses(batch).items()}
    for _ in range(60):
        losses = model.losses(batch)
        optimizer.zero_grad()
        model.total_loss(losses).backward()
        optimizer.step()
    for name in ("translation", "cycle", "second"):
        assert losses[name].item() < 0.5 * before[name], name


# Training.


class Recorded(Patience):
    """Notes when it looked and how long it had waited."""

    def __init__(self, monitor: str, patience: int) -> None:
        super().__init__(monitor, patience)
        self.waits: list[tuple[int, int]] = []

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        super().on_validation_end(trainer, pl_module)
        self.waits.append((trainer.current_epoch, self.wait_count))


class Watched(MCTN):
    """A model that keeps hold of its callback and cannot get better."""

    callback: Recorded

    def configure_callbacks(self) -> list[Any]:
        self.callback = Recorded(self.monitor_key, self.patience)
        return [self.callback]


def test_steps_that_were_pooled_while_they_were_gathered_are_read_as_frames_are() -> None:
    torch.set_default_dtype(torch.float32)
    utterances = random_utterances(9, seed=5, longest=30)
    model = mctn(seed=1)
    ours, expected = (
        UtteranceDataset(
            corpus_of(utterances), torch.arange(9) % 4, ["none"] * 3, [None] * 3, UniformConditions(), steps=steps
        )[Request(np.arange(9), 0)]
        for steps in (model.needs.steps, None)
    )
    for name, value in model.losses(ours).items():
        torch.testing.assert_close(value, model.losses(expected)[name], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(model(ours), model(expected), rtol=1e-5, atol=1e-6)


@pytest.fixture
def synthetic(tmp_path: Path) -> Synthetic:
    torch.set_default_dtype(torch.float32)
    return Synthetic(root=str(tmp_path / "corpus"), utterances_per_speaker=8)


def watched(data: Synthetic) -> Watched:
    torch.manual_seed(0)
    return Watched(
        feature_dims=data.feature_dims,
        class_names=data.class_names,
        learning_rate=1e-30,
        width=WIDTH,
        hidden_dim=4,
        patience=3,
    )


def trainer(folder: Path, epochs: int, **settings: Any) -> L.Trainer:
    return L.Trainer(
        max_epochs=epochs,
        logger=False,
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        accelerator="cpu",
        **settings,
    )


def test_early_stopping_also_over_a_resume(synthetic: Synthetic, tmp_path: Path) -> None:
    straight = watched(synthetic)
    trainer(tmp_path / "straight", 20).fit(straight, datamodule=synthetic)
    assert straight.callback.waits == [(0, 0), (1, 1), (2, 2), (3, 3)]

    first, second = watched(synthetic), watched(synthetic)
    interrupted = trainer(tmp_path / "first", 2)
    interrupted.fit(first, datamodule=synthetic)
    path = tmp_path / "interrupted.ckpt"
    interrupted.save_checkpoint(path)
    resumed = trainer(tmp_path / "second", 20)
    resumed.fit(second, datamodule=synthetic, ckpt_path=path, weights_only=True)
    assert first.callback.waits + second.callback.waits == straight.callback.waits

    # What had stopped is not trained on.
    path = tmp_path / "stopped.ckpt"
    resumed.save_checkpoint(path)
    third = watched(synthetic)
    again = trainer(tmp_path / "third", 20)
    again.fit(third, datamodule=synthetic, ckpt_path=path, weights_only=True)
    assert third.callback.waits == []
    assert again.global_step == resumed.global_step


def test_the_checkpoint_of_an_epoch_knows_how_long_was_waited(synthetic: Synthetic, tmp_path: Path) -> None:
    fitted = trainer(tmp_path, 3, enable_checkpointing=True)
    fitted.fit(watched(synthetic), datamodule=synthetic)
    saved = torch.load(fitted.checkpoint_callback.best_model_path, weights_only=True)  # type: ignore[union-attr]
    states = [state for name, state in saved["callbacks"].items() if "wait_count" in state]
    assert [state["wait_count"] for state in states] == [2]


def test_early_stopping_of_the_trainer_wins(synthetic: Synthetic, tmp_path: Path) -> None:
    own = EarlyStopping("val/pooled/UA", mode="max", patience=1)
    torch.manual_seed(0)
    model = MCTN(
        feature_dims=synthetic.feature_dims,
        class_names=synthetic.class_names,
        learning_rate=1e-30,
        width=WIDTH,
        hidden_dim=4,
    )
    fitted = trainer(tmp_path, 20, callbacks=[own])
    fitted.fit(model, datamodule=synthetic)
    assert fitted.early_stopping_callbacks == [own]
    assert own.stopped_epoch == 1


# The command line.

TINY = ["--model.width", "8", "--model.hidden_dim", "4", "--trainer.max_epochs", "2", "--trainer.accelerator", "cpu"]


def conditions_of(run: Path) -> dict[str, dict[str, Any]]:
    metrics: dict[str, dict[str, Any]] = json.loads((run / "metrics.json").read_text())["metrics"]
    return metrics


def test_any_source_from_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_default_dtype(torch.float32)
    monkeypatch.chdir(tmp_path)
    data = ["--data", "IEMOCAP", "--data.root", str(SAMPLE_IEMOCAP)]
    assert main(["fit", "--model", "MCTN", *TINY, *data, "--run_dir", "run"]) == 0
    metrics = conditions_of(tmp_path / "run")
    assert all(metrics[condition]["WA"] is not None for condition in (*CONDITIONS, "mean", "pooled"))
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").is_file()


def test_fixed_source_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.set_default_dtype(torch.float32)
    monkeypatch.chdir(tmp_path)
    data = ["--data", "Synthetic", "--data.root", "corpus", "--data.utterances_per_speaker", "8"]
    assert main(["fit", "--model", "MCTN", "--model.source", "t", *TINY, *data, "--run_dir", "run"]) == 0
    metrics = conditions_of(tmp_path / "run")
    answered = {row for row, values in metrics.items() if values["WA"] is not None}
    assert answered == {"t", "pooled"}
    cells = [[cell.strip() for cell in line.split("│")[1:5]] for line in capsys.readouterr().out.splitlines()]
    table = {row[0]: row[1:] for row in cells if row}
    assert {name for name, scores in table.items() if scores == ["–"] * 3} == {
        *("{a}", "{v}", "{a,v}", "{a,t}", "{v,t}", "mean", "full {a,v,t}")
    }
    assert float(table["{t}"][0].split()[0]) >= 0

    # A fresh process is told by the checkpoint which source there was; predictions are of that condition alone.
    checkpoint = str(tmp_path / "run" / "checkpoints" / "last.ckpt")
    predict = ["predict", "--model", "MCTN", "--ckpt_path", checkpoint, *data, "--output", "p.csv", "--run_dir", "p"]
    assert main(predict) == 0
    with Path("p.csv").open(newline="") as file:
        assert {line["condition"] for line in csv.DictReader(file)} == {"t"}
