"""The generator of values: its best answers and best MAE against numerical integration, Monte Carlo and regression."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import norm
from sklearn.linear_model import RidgeCV
from sklearn.metrics import mean_absolute_error

from datamodules.conditions import CONDITIONS, present_under
from datamodules.errors import InputError
from datamodules.linear_gaussian.observation import Sequences
from datamodules.linear_gaussian.sentiment import END, SentimentGenerator, expected_error
from datamodules.linear_gaussian.views import View
from datamodules.synthetic_sentiment import SyntheticSentiment

FloatArray = npt.NDArray[np.float64]
Drawn = tuple[npt.NDArray[np.float32], tuple[Sequences, Sequences, Sequences]]

SMALL = SentimentGenerator(
    seed=3,
    spread=2.2,
    gain_swing=0.4,
    gain_decay=0.3,
    views=(
        View(8, (1.0, 0.5, 0.8, 0.7), 0.9, 0.6, 3.0, 0.4, 2, 4, distractors=3, distractor_std=2.0),
        View(5, (0.6, 1.1, 0.4, 1.0), 1.2, 0.9, 2.0, 0.4, 1, 3, 1, 0.8, rms=0.25, split_signs=True),
        View(4, (0.9, 0.7, 1.3, 0.5), 0.5, 1.5, 2.0, 0.0, 2, 3, rms=0.5, outliers=1),
    ),
)


def answers(source: SentimentGenerator, frames: tuple[Sequences, ...]) -> FloatArray:
    return source.best_answers([part.values for part in frames], [part.offsets for part in frames])


@pytest.fixture(scope="module")
def drawn() -> Drawn:
    return SMALL.draw(30_000, np.random.default_rng(5))


def linear(source: SentimentGenerator, m: int, written: FloatArray) -> FloatArray:
    """The linear features behind written ones."""
    if source.views[m].split_signs:
        dim = source.views[m].dim
        written = written[:, :dim] - written[:, dim:]
    return written / source.features[m].scale


@pytest.mark.parametrize("condition", CONDITIONS)
def test_the_answer_is_the_mean_of_the_stacked_gaussian_clipped(condition: str) -> None:
    values, frames = SMALL.draw(5, np.random.default_rng(1))
    assert values.shape == (5,)
    weights = np.array([1, 1, 1, 0]) / np.sqrt(3)
    for i in range(5):
        maps, noises, stacked = [], [], []
        for m in np.flatnonzero(present_under(condition)).tolist():
            view, part = SMALL.views[m], frames[m]
            own = linear(SMALL, m, part.values[part.offsets[i] : part.offsets[i + 1]])
            length = len(own)
            gain = [(1 + 0.4 * np.sin(np.pi * (t + 0.5) / length)) * (view.median_length / length) ** 0.3
                    for t in range(length)]  # fmt: skip
            mixed = np.concatenate([g * SMALL.mixing[m] for g in gain])
            distracted = view.distractor_std * np.tile(SMALL.distraction[m], (length, 1))
            maps.append(mixed @ np.diag(view.loadings))
            noises.append(view.nuisance**2 * mixed @ mixed.T + distracted @ distracted.T)
            noises[-1] += view.noise**2 * np.eye(len(mixed))
            stacked.append(own.ravel())
        seen = np.concatenate(maps)
        covariance = 2.2**2 * seen @ seen.T
        at = 0
        for noise in noises:
            covariance[at : at + len(noise), at : at + len(noise)] += noise
            at += len(noise)
        expected = 2.2**2 * weights @ seen.T @ np.linalg.solve(covariance, np.concatenate(stacked))
        found = answers(SMALL, frames)[CONDITIONS.index(condition), i]
        assert found == pytest.approx(np.clip(expected, -3, 3), abs=1e-9)


@pytest.mark.parametrize("middle", [-4.0, -2.5, 0.0, 0.7, 3.0, 3.5])
@pytest.mark.parametrize("deviation", [0.1, 0.8, 2.5])
def test_the_expected_error_is_the_integral(middle: float, deviation: float) -> None:
    at = middle + deviation * np.linspace(-9, 9, 200_001)
    density = norm.pdf(at, middle, deviation)
    error = np.abs(np.clip(at, -3, 3) - np.clip(middle, -3, 3))
    found = expected_error(np.array([[middle]]), np.array([[deviation]]))
    assert found.item() == pytest.approx((density * error).sum() / density.sum(), abs=1e-6)


@pytest.mark.parametrize("source", [SMALL, SentimentGenerator()], ids=["small", "built-in"])
def test_the_best_mae_is_that_of_many_utterances(source: SentimentGenerator, drawn: Drawn) -> None:
    values, frames = drawn if source is SMALL else source.draw(20_000, np.random.default_rng(7))
    for condition, own in zip(CONDITIONS, answers(source, frames), strict=True):
        error = np.abs(own - values)
        assert abs(source.best_mae(condition) - error.mean()) < 3.5 * error.std() / np.sqrt(len(error))


def test_no_regression_is_better_and_one_that_sees_everything_is_hardly_worse(drawn: Drawn) -> None:
    values, frames = drawn
    known, tested = slice(None, 24_000), slice(24_000, None)
    best = answers(SMALL, frames)
    for condition, own in zip(CONDITIONS, best, strict=True):
        columns = []
        for m in np.flatnonzero(present_under(condition)).tolist():
            lengths = np.diff(frames[m].offsets)
            summed = np.add.reduceat(linear(SMALL, m, frames[m].values), frames[m].offsets[:-1])
            # Lengths change the weights: a regression of its own for each, in effect.
            columns += [summed * (lengths == length)[:, None] for length in np.unique(lengths)]
        inputs = np.concatenate(columns, axis=1)
        guess = np.clip(RidgeCV().fit(inputs[known], values[known]).predict(inputs[tested]), -3, 3)
        mae, limit = (mean_absolute_error(values[tested], found) for found in (guess, own[tested]))
        assert limit - 0.004 < mae < limit + 0.06


def test_more_modalities_never_hurt_and_the_seed_does_not_matter() -> None:
    limits = {condition: SMALL.best_mae(condition) for condition in CONDITIONS}
    for fewer in CONDITIONS:
        for more in CONDITIONS:
            if set(fewer) < set(more):
                assert limits[more] < limits[fewer] - 0.01
    assert replace(SMALL, seed=8).best_mae("at") == limits["at"]


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(InputError, match="spread 0; it must be positive"):
        replace(SMALL, spread=0)
    with pytest.raises(InputError, match="condition 'ta': choose one of a, v"):
        SMALL.best_mae("ta")
    audio, visual, text = (replace(view, loadings=(1.0, 1.0)) for view in SMALL.views)
    with pytest.raises(InputError, match="at least 3"):
        replace(SMALL, views=(audio, visual, text))


def test_the_corpus_as_it_is_read(tmp_path: Path) -> None:
    data = SyntheticSentiment(str(tmp_path), utterances_per_speaker=40)
    data.setup("fit")
    assert data.task == {"name": "regression", "low": -3.0, "high": 3.0}
    assert np.load(data.root / "target/1/tst_label.npy").dtype == np.float32
    assert [len(data.indices(split)) for split in ("train", "val", "test")] == [320, 40, 40]
    labels = data.labels.numpy()[data.indices("train")]
    assert np.abs(labels).max() == END and abs(labels.mean()) < 0.3 and 1.2 < labels.std() < 1.6
    rule, limits = data.bayes_answers("train"), data.bayes_limit("train")
    for condition, own in zip(CONDITIONS, rule, strict=True):
        assert limits[condition] == pytest.approx(mean_absolute_error(labels, own))
        error = np.abs(own - labels)
        assert abs(limits[condition] - data.source.best_mae(condition)) < 3.5 * error.std() / np.sqrt(len(error))
    assert data.bayes_limit("test", memory=True) == data.bayes_limit("test")
    assert data.bayes_accuracy("test") is None
