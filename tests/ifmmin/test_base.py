from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import lightning as L
import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score, recall_score
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from datamodules.base import EmotionDataModule
from datamodules.batches.batch import Batch
from datamodules.batches.loading import LengthBatches
from datamodules.conditions import CONDITIONS, MISSING_CONDITIONS, present_under
from datamodules.errors import InputError
from datamodules.iemocap import IEMOCAP
from datamodules.synthetic import Synthetic
from ifmmin.checkpoints.parts import split_parts
from ifmmin.cli.collecting import AnswerCollector
from ifmmin.model import IFMMIN
from ifmmin.optimization import constant_then_linear
from tests.batches import CLASSES, DIMS, batch_of, random_batch, random_utterances
from tests.datamodules.corpora import load_ids, take_out, write_corpus
from tests.ifmmin.models import Small


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("iemocap")
    write_corpus(root)
    return root


@pytest.fixture(autouse=True)
def without_advice() -> Iterator[None]:
    """Lightning's tips about workers and logging say nothing about these tests."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def small(**options: Any) -> Small:
    torch.manual_seed(0)
    return Small(feature_dims=list(DIMS), class_names=CLASSES, **options)


def trainer(**options: Any) -> L.Trainer:
    quiet: dict[str, Any] = {
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "limit_val_batches": 0,
        "max_epochs": -1,
    }
    return L.Trainer(**(quiet | options))


class Rates(L.Callback):
    """The learning rate of the last step of every epoch."""

    def __init__(self) -> None:
        self.by_epoch: dict[int, float] = {}

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, step: int) -> None:
        self.by_epoch[trainer.current_epoch] = trainer.optimizers[0].param_groups[0]["lr"]


# Corpora with gaps.


@pytest.mark.parametrize(("lost", "selecting", "refused"), [("v", "avt", True), ("v", "pooled", False)])
def test_validation_must_be_able_to_select_an_epoch(
    tmp_path: Path, lost: str, selecting: str, refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_corpus(tmp_path)
    take_out(tmp_path, IEMOCAP.layout, dict.fromkeys(load_ids(tmp_path, 1, "val"), lost))
    monkeypatch.setattr(Small, "monitored_row", selecting)
    model = small(constant_epochs=1, decay_epochs=0)
    data = IEMOCAP(str(tmp_path), incomplete="keep", eval_batch_size=2)
    if refused:
        with pytest.raises(InputError, match="Small selects its best epoch under avt, but no validation utterance has"):
            trainer().fit(model, data)
        return
    fitting = trainer(limit_val_batches=1.0)
    fitting.fit(model, data)
    assert float(fitting.callback_metrics["val/loss"]) > 0
    evaluated = model.task.number(cast(Tensor, model.evaluated)).tolist()
    count = len(load_ids(tmp_path, 1, "val"))
    assert evaluated == [count, 0, count, 0, count, 0, 0]


def test_a_batch_without_any_row_of_a_condition_leaves_the_loss_a_number(tmp_path: Path) -> None:
    write_corpus(tmp_path)
    gaps = dict.fromkeys(load_ids(tmp_path, 1, "val")[1:], "v")
    take_out(tmp_path, IEMOCAP.layout, gaps)
    model = small(constant_epochs=1, decay_epochs=0)
    model.validation_conditions = ("avt",)  # type: ignore[misc]
    model.monitored_row = "avt"  # type: ignore[misc]
    fitting = trainer(limit_val_batches=1.0)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*nan.*")
        fitting.fit(model, IEMOCAP(str(tmp_path), incomplete="keep", eval_batch_size=1))
    assert float(fitting.callback_metrics["val/loss"]) > 0


# Schedule.


@pytest.mark.parametrize(
    ("constant", "decay", "factors"),
    [
        (2, 3, [1, 1, 3 / 4, 2 / 4, 1 / 4, 0, 0]),
        (1, 1, [1, 1 / 2, 0]),
        (0, 3, [3 / 4, 2 / 4, 1 / 4, 0]),
        (3, 0, [1, 1, 1, 0, 0]),
        (20, 20, [1] * 20 + [k / 21 for k in range(20, 0, -1)] + [0]),
    ],
)
def test_schedule(constant: int, decay: int, factors: list[float]) -> None:
    factor = constant_then_linear(constant, decay)
    assert [factor(epoch) for epoch in range(len(factors))] == pytest.approx(factors)


def fitted_rates(model: Small, data: EmotionDataModule, **options: Any) -> list[float]:
    rates = Rates()
    trainer(callbacks=[rates], **options).fit(model, datamodule=data)
    return list(rates.by_epoch.values())


def test_the_papers_epochs_hold_on_their_corpora(corpus: Path) -> None:
    data = IEMOCAP(str(corpus))
    rates = fitted_rates(small(constant_epochs=2, decay_epochs=3, learning_rate=0.1), data)
    assert rates == pytest.approx([0.1, 0.1, 0.075, 0.05, 0.025])


def test_the_papers_steps_hold_on_a_small_corpus() -> None:
    data = Synthetic(utterances_per_speaker=6)
    model = Small(
        feature_dims=data.feature_dims,
        class_names=CLASSES,
        batch_size=1500,
        constant_epochs=1,
        decay_epochs=2,
        learning_rate=7.0,
    )
    # One step an epoch where the papers had 4500 // 1500 = 3: three times the epochs.
    assert fitted_rates(model, data) == pytest.approx([7, 7, 7, 6, 5, 4, 3, 2, 1])


def test_steps_are_rounded_up_to_whole_epochs() -> None:
    data = Synthetic(utterances_per_speaker=6, batch_size=24)
    model = Small(
        feature_dims=data.feature_dims,
        class_names=CLASSES,
        batch_size=1500,
        constant_epochs=1,
        decay_epochs=1,
        learning_rate=3.0,
    )
    # Two steps an epoch for the papers' three: 1.5 epochs each, so two.
    assert fitted_rates(model, data) == pytest.approx([3, 3, 2, 1])


def test_the_trainer_may_stop_earlier_but_not_later_than_the_schedule(corpus: Path) -> None:
    options: dict[str, Any] = {"constant_epochs": 2, "decay_epochs": 2}
    assert len(fitted_rates(small(**options), IEMOCAP(str(corpus)), max_epochs=3)) == 3
    assert len(fitted_rates(small(**options), IEMOCAP(str(corpus)), max_epochs=9)) == 4


# Losses.


class Seen(L.Callback):
    """What each step lost and on how many utterances, and what is known at the end of each epoch."""

    def __init__(self) -> None:
        self.steps: list[list[tuple[float, int]]] = []
        self.means: list[float] = []

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.steps.append([])

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, step: int
    ) -> None:
        self.steps[-1].append((float(outputs["loss"]), len(batch)))

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.means.append(float(trainer.callback_metrics.get("train/loss", torch.nan)))


@pytest.mark.parametrize("steps", [-1, 5])
def test_the_logged_loss_is_the_mean_over_the_utterances_of_the_epoch(corpus: Path, steps: int) -> None:
    """Known to every callback at the end of the epoch; of an epoch that is cut short, to those that come later."""
    data, seen = IEMOCAP(str(corpus), batch_size=13), Seen()
    fit = trainer(callbacks=[seen], max_epochs=2, max_steps=steps)
    fit.fit(small(), datamodule=data)
    expected = [sum(loss * size for loss, size in epoch) / sum(size for _, size in epoch) for epoch in seen.steps]
    assert len({size for epoch in seen.steps for _, size in epoch}) > 1
    assert len(expected) == 2 and (steps < 0 or len(seen.steps[1]) < len(seen.steps[0]))
    whole = len(expected) if steps < 0 else 1
    assert seen.means[:whole] == pytest.approx(expected[:whole])
    assert float(fit.callback_metrics["train/loss"]) == pytest.approx(expected[-1])


# Optimiser and clipping.


def test_the_optimiser_is_adam_with_l2(corpus: Path) -> None:
    """Two steps of the whole machinery against Adam's equations (Kingma and Ba, algorithm 1)."""
    decay, rate, beta1, beta2 = 0.3, 0.01, 0.6, 0.999
    options: dict[str, Any] = {"constant_epochs": 2, "decay_epochs": 0, "clip_norm": 1e9}
    model = small(weight_decay=decay, learning_rate=rate, beta1=beta1, **options).double()
    reference = small(**options).double()
    data = IEMOCAP(str(corpus), seed=2)
    fit = trainer()
    fit.fit(model, datamodule=data)
    state = [(p, torch.zeros_like(p), torch.zeros_like(p)) for p in reference.parameters()]
    loader = data.train_dataloader()
    for step in (1, 2):
        assert isinstance(loader.sampler, LengthBatches)
        loader.sampler.set_epoch(step - 1)
        (batch,) = loader
        gradients = torch.autograd.grad(reference.losses(batch)["cls"], [p for p, _, _ in state])
        for (p, m, v), gradient in zip(state, gradients, strict=True):
            g = gradient + decay * p.detach()
            m.mul_(beta1).add_((1 - beta1) * g)
            v.mul_(beta2).add_((1 - beta2) * g * g)
            update = rate * (m / (1 - beta1**step)) / ((v / (1 - beta2**step)).sqrt() + 1e-8)
            p.data -= update
    for ours, theirs in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)
    assert fit.global_step == 2


def test_clipping_is_per_sub_network() -> None:
    model = small(clip_norm=0.25)
    assert [name for name, _ in model.subnetworks()] == ["readers.a", "readers.v", "readers.t", "offset"]
    (100 * model.losses(random_batch(12, dtype=torch.float32))["cls"]).backward()
    # One part stays below the limit and is left as it is.
    for parameter in model.offset.parameters():
        assert parameter.grad is not None
        parameter.grad *= 0.1 / parameter.grad.norm()
    before = gradients(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model.configure_gradient_clipping(optimizer, 1e9)
    assert all(torch.equal(g, b) for n, part in gradients(model).items() for g, b in zip(part, before[n], strict=True))
    model.configure_gradient_clipping(optimizer)
    for name, part in gradients(model).items():
        norm = float(torch.cat([g.flatten() for g in before[name]]).norm())
        scale = min(1.0, 0.25 / norm)
        assert (scale < 1) == (name != "offset")
        for ours, theirs in zip(part, before[name], strict=True):
            torch.testing.assert_close(ours, theirs * scale, rtol=1e-4, atol=1e-7)
    model.configure_gradient_clipping(optimizer, 0.125)
    for part in gradients(model).values():
        assert float(torch.cat([g.flatten() for g in part]).norm()) <= 0.1251


def test_what_is_clipped_is_looked_up_anew_in_every_fit(corpus: Path) -> None:
    model = small(clip_norm=0.25)
    model.offset.requires_grad_(False)
    trainer(max_steps=1).fit(model, datamodule=IEMOCAP(str(corpus)))
    model.offset.requires_grad_(True)
    trainer(max_steps=1).fit(model, datamodule=IEMOCAP(str(corpus)))
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    model.configure_gradient_clipping(torch.optim.SGD(model.parameters(), lr=0.1))
    assert max(float(p.grad.norm()) for p in model.offset.parameters() if p.grad is not None) <= 0.2501


def gradients(model: Small) -> dict[str, list[Tensor]]:
    """Copies of the gradients of each part, by the names of the parameters."""
    found: dict[str, list[Tensor]] = {"readers.a": [], "readers.v": [], "readers.t": [], "offset": []}
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        found[name.rpartition(".")[0]].append(parameter.grad.clone())
    return found


def test_ifmmin_is_clipped_like_the_published_networks() -> None:
    model = IFMMIN(feature_dims=list(DIMS), class_names=CLASSES)
    names = [name for name, _ in model.subnetworks()]
    assert sorted(names) == sorted(
        ["encoders.audio", "encoders.visual", "encoders.text", "invariance", "imagination", "classifier"]
    )


def test_terms_are_weighted() -> None:
    model = small()
    model.loss_weights = {"img": 4.0, "inv": 0.0}
    terms = {"cls": torch.tensor(1.0), "img": torch.tensor(10.0), "inv": torch.tensor(100.0)}
    assert float(model.total_loss(terms)) == 41


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_the_training(corpus: Path, poison: float) -> None:
    model = small(poison=poison, constant_epochs=3)
    with pytest.raises(InputError, match=r"Small: the training loss is (nan|inf) in epoch 1, batch 1 \(utter") as error:
        trainer().fit(model, datamodule=IEMOCAP(str(corpus)))
    assert "\n" not in str(error.value)


class Breaking(Small):
    """Its weights are NaN after the first epoch's last step, though every loss was finite."""

    def on_validation_epoch_start(self) -> None:
        with torch.no_grad():
            self.offset.weight.fill_(torch.nan)


def test_weights_that_are_not_finite_are_never_the_best_epoch(corpus: Path, tmp_path: Path) -> None:
    data = IEMOCAP(str(corpus))
    model = Breaking(feature_dims=data.feature_dims, class_names=data.class_names, constant_epochs=3)
    kept = L.pytorch.callbacks.ModelCheckpoint(tmp_path / "kept", monitor=model.monitor_key, mode="max")
    fit = trainer(callbacks=[kept], enable_checkpointing=True, limit_val_batches=1.0)
    with pytest.raises(InputError, match="Breaking: the val loss is nan after epoch 1; lower"):
        fit.fit(model, datamodule=data)
    assert not (tmp_path / "kept").exists()


# Evaluation.


@torch.no_grad()
def test_metrics_of_each_condition_against_separate_predictions(corpus: Path) -> None:
    model = small()
    data = IEMOCAP(str(corpus), eval_batch_size=2)
    (logged,) = trainer(limit_val_batches=1.0).validate(model, datamodule=data, verbose=False)
    assert len(data.indices("val")) > 2  # several batches, so that something is really summed up
    labels: list[int] = []
    predictions: dict[str, list[int]] = {condition: [] for condition in CONDITIONS}
    losses = []
    for batch in data.in_order("val"):
        labels += batch.labels.tolist()
        for condition in CONDITIONS:
            present = torch.tensor(present_under(condition)).expand(len(batch), -1)
            logits = model(replace(batch, present=present))
            losses += torch.nn.functional.cross_entropy(logits, batch.labels, reduction="none").tolist()
            predictions[condition] += logits.argmax(dim=1).tolist()
    classes = sorted(set(labels))
    for condition, predicted in predictions.items():
        recall = recall_score(labels, predicted, labels=classes, average="macro", zero_division=0)
        assert logged[f"val/{condition}/WA"] == pytest.approx(accuracy_score(labels, predicted))
        assert logged[f"val/{condition}/UA"] == pytest.approx(recall)
        assert logged[f"val/{condition}/F1"] == pytest.approx(f1_score(labels, predicted, average="macro"))
    pooled = [value for condition in MISSING_CONDITIONS for value in predictions[condition]]
    assert logged["val/pooled/WA"] == pytest.approx(accuracy_score(labels * 6, pooled))
    recall = recall_score(labels * 6, pooled, labels=classes, average="macro", zero_division=0)
    assert logged[model.monitor_key] == pytest.approx(recall)
    assert logged["val/loss"] == pytest.approx(np.mean(losses), rel=1e-5)


def test_one_run_of_the_model_answers_all_conditions(corpus: Path) -> None:
    model = small()
    rows: list[int] = []
    model.register_forward_hook(lambda module, inputs, logits: rows.append(len(logits)))
    data = IEMOCAP(str(corpus))
    trainer(limit_val_batches=1.0).validate(model, datamodule=data, verbose=False)
    assert rows == [7 * len(data.indices("val"))]


def test_conditions_of_the_corpus_are_those_evaluated(corpus: Path) -> None:
    model = small()
    data = IEMOCAP(str(corpus), conditions=["t", "avt"])
    (logged,) = trainer(limit_test_batches=1.0).test(model, datamodule=data, verbose=False)
    assert {key.split("/")[1] for key in logged if key.count("/") == 2} == {"t", "avt", "pooled"}


def test_prediction_of_utterances_that_lack_a_modality() -> None:
    model = small().double()
    stored = batch_of(random_utterances(9, seed=1, partial=True))
    loader: DataLoader[Any] = DataLoader(cast(Dataset[Any], [stored]), batch_size=None)
    (answers,) = trainer().predict(model, loader) or []
    assert isinstance(answers, dict)
    expected = [
        (stored_row, position)
        for stored_row in range(9)
        for position, condition in enumerate(CONDITIONS)
        if all(bool(stored.lengths[stored_row, "avt".index(m)]) for m in condition)
    ]
    assert list(zip(answers["index"].tolist(), answers["condition"].tolist(), strict=True)) == expected
    assert torch.equal(answers["label"], stored.labels[answers["index"]])
    logits, _, _ = model.evaluate(stored, CONDITIONS)
    exponentials = logits.detach().exp()
    expected_probability = exponentials / exponentials.sum(dim=1, keepdim=True)
    torch.testing.assert_close(answers["answer"], expected_probability.float())


class Counting(Small):
    """Says of each row how many modalities it has, and counts how often it is asked."""

    asked = 0

    def row_values(self, batch: Batch) -> dict[str, Tensor]:
        self.asked += 1
        return {"shown": batch.present.sum(dim=1), "position": batch.index[batch.row]}


@pytest.mark.parametrize("run", ["test", "validate", "predict"])
def test_further_values_of_each_row_are_collected_beside_its_answer(corpus: Path, run: str) -> None:
    model, data = Counting(feature_dims=list(DIMS), class_names=CLASSES), IEMOCAP(str(corpus))
    collector = AnswerCollector()
    getattr(trainer(limit_val_batches=1.0, callbacks=[collector]), run)(model, datamodule=data)
    found = collector.predictions
    assert found is not None
    assert [*found.values] == ["shown", "position"]
    shown = [len(CONDITIONS[condition]) for condition in np.asarray(found.conditions)]
    assert np.asarray(found.values["shown"]).tolist() == shown
    positions = np.asarray(found.values["position"]).astype(int)
    assert [data.corpus.utterances[position] for position in positions] == list(found.utterances)


def test_further_values_are_not_asked_for_while_fitting(corpus: Path) -> None:
    model = Counting(feature_dims=list(DIMS), class_names=CLASSES)
    trainer(max_epochs=1, limit_val_batches=1.0).fit(model, datamodule=IEMOCAP(str(corpus)))
    assert model.asked == 0


def test_a_batch_without_rows_has_no_further_values() -> None:
    model, stored = Counting(feature_dims=list(DIMS), class_names=CLASSES).double(), random_batch(3)
    silent = replace(stored, lengths=stored.lengths * torch.tensor([0, 1, 1]), present=stored.present & False)
    loader: DataLoader[Any] = DataLoader(cast(Dataset[Any], [silent]), batch_size=None)
    model.answers = lambda condition: condition == "a"  # type: ignore[method-assign]
    (answers,) = trainer().predict(model, loader) or []
    assert isinstance(answers, dict) and len(answers["index"]) == 0 and model.asked == 0


# Checkpoints and repetition.


def test_same_seed_same_model_and_a_resumed_run_equals_an_uninterrupted_one(corpus: Path, tmp_path: Path) -> None:
    def run(max_epochs: int, ckpt_path: Path | None = None, seed: int = 1) -> tuple[IFMMIN, L.Trainer]:
        torch.manual_seed(0)
        model = IFMMIN(
            feature_dims=list(DIMS),
            class_names=CLASSES,
            embedding_dim=8,
            block_dims=[6, 4],
            constant_epochs=2,
            decay_epochs=2,
        )
        model.load_stage1(stage1)
        fit = trainer(max_epochs=max_epochs)
        data = IEMOCAP(str(corpus), batch_size=16, seed=seed)
        fit.fit(model, datamodule=data, ckpt_path=ckpt_path, weights_only=True)
        return model, fit

    torch.manual_seed(9)
    fresh = IFMMIN(feature_dims=list(DIMS), class_names=CLASSES, embedding_dim=8, block_dims=[6, 4])
    stage1 = split_parts(fresh.stage1_module().state_dict())

    whole, _ = run(4)
    again, _ = run(4)
    half, interrupted = run(2)
    interrupted.save_checkpoint(tmp_path / "half.ckpt")
    resumed, _ = run(4, tmp_path / "half.ckpt")
    other, _ = run(4, seed=2)
    assert same(whole, again)
    assert same(whole, resumed)
    assert not same(whole, half)
    assert not same(whole, other)
    record = torch.load(tmp_path / "half.ckpt", weights_only=True)
    assert record["ifmmin"]["model"] == "IFMMIN"
    assert record["ifmmin"]["data"]["fold"] == 1
    json.dumps(record["hyper_parameters"])


def same(one: IFMMIN, other: IFMMIN) -> bool:
    states = one.state_dict(), other.state_dict()
    return all(torch.equal(value, states[1][key]) for key, value in states[0].items())
