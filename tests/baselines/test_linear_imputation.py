"""LinearImputation against NumPy, scikit-learn and the known Bayes limit."""

from __future__ import annotations

from functools import reduce
from itertools import product
from pathlib import Path
from typing import Any, cast

import lightning as L
import numpy as np
import numpy.typing as npt
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.linear_model import LinearRegression
from torch.utils.data import DataLoader, Dataset

from baselines.linear_imputation.model import LinearImputation
from baselines.linear_imputation.regression import Moments, Regression, Sums
from datamodules.batches.batch import Batch
from datamodules.conditions import CONDITION_TABLE, CONDITIONS, present_under
from datamodules.errors import InputError
from datamodules.privileged import Privileged
from tests.batches import CLASSES, DIMS, FloatArray, batch_of, random_present, random_utterances

PARTS = 3


def correlated(rows: int, seed: int = 0) -> tuple[FloatArray, FloatArray]:
    """Predictors [N, 6] of unequal spread, and targets [N, 2] that depend on some of them."""
    random = np.random.default_rng(seed)
    x = random.standard_normal((rows, 6)) @ random.standard_normal((6, 6)) + 5
    return x, x @ random.standard_normal((6, 2)) + random.standard_normal((rows, 2))


def closed_form(x: FloatArray, y: FloatArray, components: list[int], shrinkages: list[float]) -> FloatArray:
    moments = Moments(1, x.shape[1] + y.shape[1])
    moments.add(torch.from_numpy(np.hstack([x, y])), torch.zeros(len(x), dtype=torch.long))
    count, _, scatter = moments.without(None)
    inputs, targets = slice(0, x.shape[1]), slice(x.shape[1], None)
    fitted = Regression(count, scatter[inputs, inputs], components, shrinkages)
    return fitted.fit(scatter[inputs, targets], scatter.diagonal()[targets].sum()).numpy()


@pytest.mark.parametrize("components", [1, 3, 6])
def test_regression_is_that_of_scikit_learn_on_principal_components(components: int) -> None:
    x, y = correlated(40)
    pca = PCA(components).fit(x)
    expected = pca.components_.T @ LinearRegression().fit(pca.transform(x), y).coef_.T
    np.testing.assert_allclose(closed_form(x, y, [components], [0.0]), expected, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(closed_form(x, y, [components], [1.0]), expected / 2, rtol=1e-6, atol=1e-9)


def test_the_choice_has_the_least_generalised_cross_validation_error() -> None:
    x, y = correlated(30, seed=1)
    target = y - y.mean(axis=0)
    errors = {}
    for components, shrinkage in product([1, 2, 4, 6], [0.0, 0.5, 2.0]):
        scores = PCA(components).fit_transform(x)
        hat = scores @ np.linalg.pinv(scores) / (1 + shrinkage)
        degrees = 1 + np.trace(hat)
        errors[components, shrinkage] = ((target - hat @ target) ** 2).sum() / (1 - degrees / len(x)) ** 2
    components, shrinkage = min(errors, key=lambda key: errors[key])
    chosen = closed_form(x, y, [1, 2, 4, 6], [0.0, 0.5, 2.0])
    np.testing.assert_allclose(chosen, closed_form(x, y, [components], [shrinkage]), rtol=1e-9)
    assert len(set(errors.values())) == len(errors)


def test_moments_leave_a_part_out() -> None:
    random = np.random.default_rng(0)
    rows, part = random.standard_normal((50, 4)) + 1e5, random.integers(0, 3, 50)
    moments = Moments(3, 4)
    for start in range(0, 50, 20):
        moments.add(torch.from_numpy(rows[start : start + 20]), torch.from_numpy(part[start : start + 20]))
    for left_out in (None, 0, 1, 2):
        kept = rows if left_out is None else rows[part != left_out]
        count, mean, scatter = moments.without(left_out)
        assert count == len(kept)
        np.testing.assert_allclose(mean.numpy(), kept.mean(axis=0))
        np.testing.assert_allclose(scatter.numpy(), np.cov(kept.T) * (len(kept) - 1), rtol=1e-6, atol=1e-7)


def stored(size: int = 60, lost: npt.NDArray[np.bool_] | None = None) -> Batch:
    utterances = random_utterances(size, seed=4)
    for position, gone in enumerate([] if lost is None else lost):
        parts = zip(utterances[position], gone, DIMS, strict=True)
        audio, visual, text = (np.zeros((0, dim)) if missing else frames for frames, missing, dim in parts)
        utterances[position] = (audio, visual, text)
    return batch_of(utterances, random_present(size), dtype=torch.float32)


def trained(batches: list[Batch], **options: Any) -> LinearImputation:
    torch.manual_seed(0)
    model = LinearImputation(feature_dims=list(DIMS), class_names=CLASSES, parts=PARTS, **options)
    trainer = L.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False
    )
    trainer.fit(model, DataLoader(cast(Dataset[Any], batches), batch_size=None))
    return model


def means_of(batch: Batch) -> list[npt.NDArray[np.float64]]:
    return [
        (frames.double().sum(dim=1) / batch.lengths[:, m, None].clamp(min=1)).numpy()
        for m, frames in enumerate(batch.frames)
    ]


def naive_answers(
    x: list[FloatArray],
    labels: npt.NDArray[np.int64],
    new: list[FloatArray],
    shown: tuple[bool, ...],
    has: npt.NDArray[np.bool_] | None = None,
) -> FloatArray:
    """Least squares on mean frames, all components, no shrinkage, each on the rows that have what it needs: [N, 3, O].

    Args:
        x: per modality, of the training rows.
        labels: of the training rows.
        new: per modality, of the rows to answer.
        shown: what is read of them.
        has: bool [rows, 3], what the training rows have; None: everything.
    """
    y = np.eye(len(CLASSES))[labels]
    has = np.ones((len(y), 3), dtype=bool) if has is None else has
    present = [k for k in range(3) if shown[k]]
    found = []
    for m in range(3):
        read = new[m]
        if not shown[m]:
            both = has[:, [*present, m]].all(axis=1)
            imputing = LinearRegression().fit(np.hstack([x[k][both] for k in present]), x[m][both])
            read = imputing.predict(np.hstack([new[k] for k in present]))
        found.append(LinearRegression().fit(x[m][has[:, m]], y[has[:, m]]).predict(read))
    return np.stack(found, axis=1)


@pytest.mark.parametrize("gaps", ["none", "seven faces", "half of all", "no two together"])
def test_answers_are_two_steps_of_least_squares(gaps: str) -> None:
    size = 240
    lost = np.zeros((size, 3), dtype=bool)
    if gaps == "seven faces":
        lost[:7, 1] = True
    elif gaps != "none":
        patterns = [CONDITIONS.index(name) for name in (CONDITIONS[:6] if gaps == "half of all" else "avt")]
        chosen = np.arange(0, size, 2 if gaps == "half of all" else 1)
        lost[chosen] = ~CONDITION_TABLE.numpy()[np.resize(patterns, len(chosen))]
    batch = stored(size, lost)
    model = trained([batch], components=[100], shrinkages=[0.0])
    x, labels = means_of(batch), batch.labels.numpy()
    for condition in CONDITIONS:
        shown = present_under(condition)
        able = ~(lost & shown).any(axis=1)
        if not able.any():
            continue
        rows = Batch(**{**vars(batch), "present": torch.tensor(shown).expand(len(batch), -1)})
        found = model.modality_embeddings(rows).detach().numpy()
        if gaps == "no two together":  # nothing tells how to impute: the mean is
            for m in range(3):
                if not shown[m]:
                    mean = np.eye(4)[labels][~lost[:, m]].mean(axis=0)
                    np.testing.assert_allclose(found[able, m], np.tile(mean, (able.sum(), 1)), rtol=1e-3, atol=1e-4)
            continue
        expected = naive_answers(x, labels, x, shown, ~lost)
        np.testing.assert_allclose(found[able], expected[able], rtol=1e-3, atol=1e-4, err_msg=condition)
        outputs = (model.mixture.weights[CONDITIONS.index(condition)][:, None].detach().numpy() * found).sum(axis=1)
        outputs = outputs + model.mixture.offset[CONDITIONS.index(condition)].detach().numpy()
        np.testing.assert_allclose(model(rows).detach().numpy(), outputs, rtol=1e-5, atol=1e-6)


def test_training_answers_are_of_regressions_that_do_not_know_the_utterance() -> None:
    batch = stored()
    model = trained([batch], components=[100], shrinkages=[0.0])
    x, labels, part = means_of(batch), batch.labels.numpy(), np.arange(len(batch)) % PARTS
    rows = batch.unmasked()
    found = model.modality_embeddings(rows, model._part(rows)).detach().numpy()
    for number in range(PARTS):
        other, own = part != number, part == number
        expected = naive_answers([each[other] for each in x], labels[other], [each[own] for each in x], (True,) * 3)
        np.testing.assert_allclose(found[own], expected, rtol=1e-3, atol=1e-4)


def test_a_modality_that_no_utterance_has_is_answered_by_the_mean() -> None:
    lost = np.zeros((60, 3), dtype=bool)
    lost[:, 1] = True
    batch = stored(60, lost)
    model = trained([batch], components=[100], shrinkages=[0.0])
    found = model.modality_embeddings(batch.unmasked())[:, 1].detach().numpy()
    expected = np.eye(4)[batch.labels.numpy()].mean(axis=0)
    np.testing.assert_allclose(found, np.tile(expected, (60, 1)), rtol=1e-4, atol=1e-5)
    assert model.maps.isfinite().all()


@pytest.mark.parametrize("pieces", [2, 5])
def test_sums_of_pieces_are_the_sums_of_all(pieces: int) -> None:
    random = np.random.default_rng(1)
    rows = random.standard_normal((50, 4)) + 100
    found = []
    for piece in np.array_split(rows, pieces):
        moments = Moments(1, 4)
        moments.add(torch.from_numpy(piece), torch.zeros(len(piece), dtype=torch.long))
        found.append(moments.without(None))
    number, mean, scatter = reduce(Sums.with_more, found).of(torch.tensor([2, 0]))
    assert number == 50
    np.testing.assert_allclose(mean.numpy(), rows[:, [2, 0]].mean(axis=0))
    np.testing.assert_allclose(scatter.numpy(), np.cov(rows[:, [2, 0]].T) * 49)


def test_features_too_large_for_a_square_are_refused() -> None:
    batch = stored(size=6)
    large = Batch(**{**vars(batch), "frames": tuple(frames.double() * 1e200 for frames in batch.frames)})
    with pytest.raises(InputError, match="too large to be squared"):
        model = LinearImputation(feature_dims=list(DIMS), class_names=CLASSES).double()
        trainer = L.Trainer(max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False)
        trainer.fit(model, DataLoader(cast(Dataset[Any], [large]), batch_size=None))


def test_it_comes_near_the_bayes_limit_where_there_is_much_to_imagine(tmp_path: Path) -> None:
    data = Privileged(root=str(tmp_path))
    torch.manual_seed(0)
    model = LinearImputation(feature_dims=data.feature_dims, class_names=data.class_names)
    trainer = L.Trainer(
        max_epochs=100,
        limit_val_batches=0,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
    )
    trainer.fit(model, datamodule=data)
    trainer.test(model, datamodule=data, verbose=False)
    assert model.evaluated is not None
    scores, limit = model.task.summarise(model.evaluated), data.bayes_accuracy("test")
    reached = {condition: scores[condition]["WA"] or 0.0 for condition in CONDITIONS}
    assert all(limit[condition] - 0.06 < reached[condition] <= limit[condition] + 0.01 for condition in CONDITIONS), (
        reached,
        limit,
    )
