"""DistilledImputation against a NumPy loop over rows, its teacher, and its ablations."""

from __future__ import annotations

import io
from typing import Any, cast

import lightning as L
import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy.special import log_softmax, softmax
from torch import nn
from torch.utils.data import DataLoader, Dataset

from baselines.distilled_imputation import DistilledImputation
from datamodules.batches.batch import Batch
from datamodules.errors import InputError
from ifmmin.checkpoints.parts import split_parts
from tests.batches import CLASSES, DIMS, batch_of, random_batch, random_present, random_utterances

Array = npt.NDArray[np.float64]


def made(seed: int = 0, **options: Any) -> DistilledImputation:
    """A small model with a stage 1, and a mean and standard deviation that are not 0 and 1."""
    torch.manual_seed(seed)
    settings = {"embedding_dim": 4, "text_channels": 5, "hidden_dims": [8, 6], **options}
    model = DistilledImputation(feature_dims=list(DIMS), class_names=CLASSES, **settings)
    model.load_stage1(split_parts(model.stage1_module().state_dict()))
    model.mean.normal_()
    model.std.uniform_(0.5, 2.0)
    return model.double().eval()


def layers(network: nn.Module, x: Array) -> Array:
    """Linear layers with ReLU between them, in NumPy."""
    linear = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
    for position, layer in enumerate(linear):
        x = layer.weight.detach().numpy() @ x + layer.bias.detach().numpy()
        if position < len(linear) - 1:
            x = np.maximum(x, 0)
    return x


def naive(model: DistilledImputation, batch: Batch) -> tuple[Array, Array]:
    """h' [B, 3, E] and outputs [B, O], row by row."""
    embeddings = model.encoders(batch).detach().numpy()
    mean, std = model.mean.numpy(), model.std.numpy()
    imputed, outputs = [], []
    for h, present in zip(embeddings, batch.present.numpy(), strict=True):
        seen = [h[m] if present[m] else np.zeros_like(h[m]) for m in range(3)]
        z = layers(model.imputation, np.concatenate([*seen, present.astype(float)]))
        guess = mean + std * z.reshape(3, -1)
        read = [h[m] if present[m] else guess[m] for m in range(3)]
        imputed.append(guess)
        outputs.append(layers(model.classifier, np.concatenate(read)))
    return np.stack(imputed), np.stack(outputs)


def test_forward_is_the_formula_row_by_row() -> None:
    model, batch = made(), random_batch(12)
    imputed, outputs = naive(model, batch)
    found = model.impute(batch)
    np.testing.assert_allclose(found.imputed.detach().numpy(), imputed, rtol=1e-9)
    np.testing.assert_allclose(found.outputs.detach().numpy(), outputs, rtol=1e-9)
    np.testing.assert_allclose(model(batch).detach().numpy(), outputs, rtol=1e-9)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("partial", [False, True], ids=["complete corpus", "corpus with gaps"])
def test_losses_are_the_formula(temperature: float, partial: bool) -> None:
    model = made(temperature=temperature, alpha=0.3, lambda_img=0.7)
    utterances = random_utterances(24, partial=partial)
    batch = batch_of(utterances, random_present(24))
    imputed, outputs = naive(model, batch)
    whole = batch.unmasked()
    true = model.teacher.encoders(whole).detach().numpy()
    teacher = np.stack([layers(model.teacher_classifier, row.ravel()) for row in true])
    student, answer = log_softmax(outputs / temperature, axis=1), softmax(teacher / temperature, axis=1)
    kl = (answer * (np.log(answer) - student)).sum(axis=1).mean()
    errors = [
        (((imputed[row, m] - true[row, m]) / model.std[m].numpy()) ** 2).mean()
        for row in range(24)
        for m in range(3)
        if len(utterances[row][m]) and not batch.present[row, m]
    ]
    expected = {
        "cls": -log_softmax(outputs, axis=1)[np.arange(24), batch.label.numpy()].mean(),
        "distill": temperature**2 * kl,
        "img": np.mean(errors),
    }
    losses = model.losses(batch)
    for name, value in expected.items():
        np.testing.assert_allclose(losses[name].item(), value, rtol=1e-9, err_msg=name)
    weighted = 0.7 * expected["cls"] + 0.3 * expected["distill"] + 0.7 * expected["img"]
    np.testing.assert_allclose(model.total_loss(losses).item(), weighted, rtol=1e-9)


def test_nothing_absent_leaves_nothing_to_impute() -> None:
    assert made().losses(random_batch(6).unmasked())["img"] == 0


@pytest.mark.parametrize(("alpha", "unused"), [(0.0, "distill"), (1.0, "cls")])
def test_alpha_at_its_ends_is_an_ablation(alpha: float, unused: str) -> None:
    model, batch = made(alpha=alpha), random_batch(6)
    losses = model.losses(batch)
    kept = sum(value for name, value in losses.items() if name != unused)
    torch.testing.assert_close(model.total_loss(losses), torch.as_tensor(kept))


def test_without_lambda_the_imputation_learns_by_the_answer_alone() -> None:
    model, batch = made(lambda_img=0.0), random_batch(12)
    model.total_loss(model.losses(batch)).backward()
    found = [parameter.grad.clone() for parameter in model.imputation.parameters() if parameter.grad is not None]
    model.zero_grad()
    losses = model.losses(batch)
    (0.5 * losses["cls"] + 0.5 * losses["distill"]).backward()
    expected = [parameter.grad for parameter in model.imputation.parameters()]
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_teacher_is_frozen_saved_and_without_dropout() -> None:
    model, batch = made(), random_batch(6)
    model.train()
    assert not model.teacher_classifier.training
    model.total_loss(model.losses(batch)).backward()
    assert all(parameter.grad is None for parameter in model.teacher_classifier.parameters())
    assert {name.split(".")[0] for name, _ in model.subnetworks()} == {"encoders", "imputation", "classifier"}
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    buffer.seek(0)
    other = made(seed=1)
    other.load_state_dict(torch.load(buffer, weights_only=True))
    assert torch.equal(other.eval()(batch), model.eval()(batch))
    assert torch.equal(other.mean, model.mean)


def test_training_measures_mean_and_standard_deviation_of_the_teacher() -> None:
    utterances = random_utterances(20, seed=3)
    batches = [
        batch_of(utterances[start : start + 5], random_present(5), dtype=torch.float32) for start in (0, 5, 10, 15)
    ]
    model = made().float()
    dead = model.teacher.encoders["text"].output
    assert isinstance(dead, nn.Linear)
    with torch.no_grad():
        dead.bias[2] = -1e3  # a ReLU that never fires
    trainer = L.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False
    )
    model.train()
    trainer.fit(model, DataLoader(cast(Dataset[Any], batches), batch_size=None))
    whole = torch.cat([model.teacher.encoders(batch.unmasked()) for batch in batches]).numpy().astype(np.float64)
    expected = whole.std(axis=0)
    assert expected[2, 2] == 0
    expected[2, 2] = 1
    np.testing.assert_allclose(model.mean.numpy(), whole.mean(axis=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(model.std.numpy(), expected, rtol=1e-4, atol=1e-6)


def test_stage_1_of_other_widths_teaches_and_a_foreign_one_is_refused() -> None:
    model = made(pretraining={"hidden_dims": [3]})
    assert model.teacher_classifier.output.in_features == 3
    with pytest.raises(InputError, match="classifier does not fit"):
        made().load_stage1(split_parts(model.stage1_module().state_dict()))
