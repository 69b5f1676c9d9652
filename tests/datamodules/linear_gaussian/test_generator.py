from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from scipy.linalg import block_diag
from scipy.stats import multivariate_normal
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from datamodules.conditions import CONDITIONS, present_under
from datamodules.errors import InputError
from datamodules.linear_gaussian import generator as linear_gaussian
from datamodules.linear_gaussian.generator import CLASS_COUNTS, LinearGaussianCorpus, Sample
from datamodules.linear_gaussian.views import View

FloatArray = npt.NDArray[np.float64]

# What is published for IEMOCAP (WA, %).
TARGETS = {"a": 58, "v": 54, "t": 69, "av": 67, "at": 76, "vt": 75}

SMALL = LinearGaussianCorpus(
    seed=3,
    overlap=0.7,
    gain_swing=0.4,
    gain_decay=0.3,
    views=(
        View(8, (1.0, 0.5, 0.8, 0.7), 0.9, 0.6, 3.0, 0.4, 2, 4, distractors=3, distractor_std=2.0),
        View(5, (0.6, 1.1, 0.4, 1.0), 1.2, 0.9, 2.0, 0.4, 1, 3, 1, 0.8, rms=0.25, split_signs=True),
        View(4, (0.9, 0.7, 1.3, 0.5), 0.5, 1.5, 2.0, 0.4, 1, 3, rms=0.5, outliers=1),
    ),
)


def joint_gaussian(
    corpus: LinearGaussianCorpus, label: int, lengths: tuple[int, ...], used: tuple[int, ...]
) -> tuple[FloatArray, FloatArray]:
    """Mean and covariance of all linear features of the modalities ``used``, stacked, given the class: no shortcut."""
    maps, noises = [], []
    for m in used:
        view, T = corpus.views[m], lengths[m]
        gain = [
            (1 + corpus.gain_swing * np.sin(np.pi * (t + 0.5) / T)) * (view.median_length / T) ** corpus.gain_decay
            for t in range(T)
        ]
        mixed = np.concatenate([g * corpus.mixing[m] for g in gain])
        maps.append(mixed @ np.diag(view.loadings))
        distracted = view.distractor_std * np.tile(corpus.distraction[m], (T, 1))
        noises.append(
            view.nuisance**2 * mixed @ mixed.T + distracted @ distracted.T + view.noise**2 * np.eye(len(mixed))
        )
    seen = np.concatenate(maps)
    return seen @ corpus.class_means[label], corpus.overlap**2 * seen @ seen.T + block_diag(*noises)


def linear(corpus: LinearGaussianCorpus, m: int, written: FloatArray) -> FloatArray:
    """The linear features [F, D] behind written ones."""
    if m == 1:
        positive, negative = written[:, : corpus.views[1].dim], written[:, corpus.views[1].dim :]
        assert written.min() >= 0 and not (positive * negative).any()
        written = positive - negative
    return written / corpus.features[m].scale


def utterance(sample: Sample, i: int) -> list[FloatArray]:
    return [f.values[f.offsets[i] : f.offsets[i + 1]] for f in sample.frames]


def log_posterior_of(corpus: LinearGaussianCorpus, sample: Sample) -> FloatArray:
    return corpus.log_posterior_batch([f.values for f in sample.frames], [f.offsets for f in sample.frames])


@pytest.fixture(scope="module")
def corpus() -> LinearGaussianCorpus:
    return LinearGaussianCorpus()


@pytest.fixture(scope="module")
def drawn(corpus: LinearGaussianCorpus) -> Sample:
    return corpus.sample(20_000, np.random.default_rng(11))


@pytest.fixture(scope="module")
def posterior(corpus: LinearGaussianCorpus, drawn: Sample) -> FloatArray:
    return log_posterior_of(corpus, drawn)


@pytest.fixture(scope="module")
def bayes(corpus: LinearGaussianCorpus) -> dict[str, float]:
    return {condition: 100 * corpus.bayes_accuracy(condition, count=200_000, seed=5) for condition in CONDITIONS}


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("means", ["built-in", "uneven"])
def test_posterior_equals_brute_force(condition: str, means: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if means == "uneven":
        # The built-in means are corners of a cube: with them the posterior's quadratic term is the same for all.
        monkeypatch.setattr(linear_gaussian, "_EMOTIONS", np.random.default_rng(0).standard_normal((4, 3)))
    small = replace(SMALL)
    sample = small.sample(6, np.random.default_rng(1))
    together = log_posterior_of(small, sample)[CONDITIONS.index(condition)]
    used = tuple(m for m in range(3) if present_under(condition)[m])
    for i in range(6):
        frames = utterance(sample, i)
        lengths = tuple(len(f) for f in frames)
        stacked = np.concatenate([linear(small, m, frames[m]).ravel() for m in used])
        joint = np.array(
            [
                np.log(CLASS_COUNTS[y] / 5531)
                + multivariate_normal.logpdf(stacked, *joint_gaussian(small, y, lengths, used))
                for y in range(4)
            ]
        )
        expected = joint - np.logaddexp.reduce(joint)
        alone = small.log_posterior([frames[m] if m in used else None for m in range(3)])
        np.testing.assert_allclose(alone, expected, atol=1e-8)
        np.testing.assert_allclose(together[i], expected, atol=1e-8)


def test_frames_follow_the_model() -> None:
    lengths = (3, 2, 2)
    views = tuple(replace(v, shortest=T, longest=T, median_length=T) for v, T in zip(SMALL.views, lengths, strict=True))
    fixed = replace(SMALL, views=(views[0], views[1], views[2]))
    sample = fixed.sample(40_000, np.random.default_rng(2))
    frames = [linear(fixed, m, f.values) for m, f in enumerate(sample.frames)]
    stacked = np.concatenate([f.reshape(40_000, -1) for f in frames], axis=1)
    np.testing.assert_allclose(np.bincount(sample.labels) / 40_000, np.array(CLASS_COUNTS) / 5531, atol=0.012)
    for label in range(4):
        mean, covariance = joint_gaussian(fixed, label, lengths, (0, 1, 2))
        own = stacked[sample.labels == label] - mean
        white = np.linalg.solve(np.linalg.cholesky(covariance), own.T)
        tolerance = 5 / np.sqrt(white.shape[1])
        np.testing.assert_allclose(white.mean(axis=1), 0, atol=tolerance)
        np.testing.assert_allclose(np.cov(white), np.eye(len(white)), atol=1.5 * tolerance)


def test_signal_and_distractor_directions_are_orthonormal() -> None:
    for signal, distractor, view in zip(SMALL.mixing, SMALL.distraction, SMALL.views, strict=True):
        columns = np.hstack([signal, distractor])
        assert columns.shape == (view.dim, 4 + view.distractors)
        np.testing.assert_allclose(columns.T @ columns, np.eye(columns.shape[1]), atol=1e-12)


def test_distractors_leave_the_posterior_as_it_is() -> None:
    sample = SMALL.sample(20, np.random.default_rng(4))
    moved = list(sample.frames)
    for m in (0, 1):
        frames = sample.frames[m]
        shift = 5 * np.random.default_rng(m).standard_normal(SMALL.views[m].distractors) @ SMALL.distraction[m].T
        moved[m] = replace(frames, values=SMALL.features[m].write(linear(SMALL, m, frames.values) + shift))
        assert np.abs(moved[m].values - frames.values).max() > 0.1
    audio, visual, text = moved
    after = log_posterior_of(SMALL, replace(sample, frames=(audio, visual, text)))
    np.testing.assert_allclose(after, log_posterior_of(SMALL, sample), atol=1e-10)


def test_no_gain_without_swing_and_decay() -> None:
    assert set(replace(SMALL, gain_swing=0.0, gain_decay=0.0).gains(0, np.array([2, 5, 3]))) == {1.0}


def test_nothing_available_gives_the_prior() -> None:
    prior = np.log(np.array(CLASS_COUNTS) / 5531)
    np.testing.assert_allclose(SMALL.log_posterior([None, None, None]), prior, atol=1e-12)
    empty = [np.zeros((0, view.width)) for view in SMALL.views]
    np.testing.assert_allclose(SMALL.log_posterior(empty), prior, atol=1e-12)


def test_posterior_is_calibrated(posterior: FloatArray, drawn: Sample, bayes: dict[str, float]) -> None:
    for c, condition in enumerate(CONDITIONS):
        hit = posterior[c].argmax(axis=1) == drawn.labels
        confidence = np.exp(posterior[c].max(axis=1))
        error = np.sqrt(np.mean(confidence * (1 - confidence)) / len(hit))
        assert abs(hit.mean() - confidence.mean()) < 4 * error
        # And at every level of confidence, not only on the whole.
        level = np.digitize(confidence, [0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
        for part in np.unique(level):
            inside = level == part
            error = np.sqrt(np.mean(confidence[inside] * (1 - confidence[inside])) / inside.sum())
            assert abs(hit[inside].mean() - confidence[inside].mean()) < 4.5 * error
        # The Monte-Carlo on sufficient statistics tells the same as the rule on frames.
        assert abs(100 * hit.mean() - bayes[condition]) < 4 * 50 / np.sqrt(20_000)


@pytest.mark.parametrize("condition", sorted(TARGETS))
def test_bayes_accuracy_is_near_the_published(bayes: dict[str, float], condition: str) -> None:
    assert abs(bayes[condition] - TARGETS[condition]) < 1.0


def test_more_modalities_never_hurt(bayes: dict[str, float]) -> None:
    for fewer, more in itertools.permutations(CONDITIONS, 2):
        if set(fewer) < set(more):
            assert bayes[more] > bayes[fewer] + 1


def test_bayes_accuracy_does_not_depend_on_the_seed(bayes: dict[str, float]) -> None:
    assert abs(100 * LinearGaussianCorpus(seed=8).bayes_accuracy("at", seed=6) - bayes["at"]) < 0.6


def test_a_linear_model_learns_it(corpus: LinearGaussianCorpus, drawn: Sample, posterior: FloatArray) -> None:
    means = []
    for m, frames in enumerate(drawn.frames):
        lengths = np.diff(frames.offsets)
        gain = corpus.gains(m, lengths)[:, None]
        starts = frames.offsets[:-1]
        values = np.split(frames.values, 2, axis=1) if m == 1 else [frames.values]
        features = values[0] - values[1] if m == 1 else values[0]  # what a linear layer computes
        means.append(np.add.reduceat(gain * features, starts) / np.add.reduceat(gain**2, starts))
    trained, held_out = slice(0, 3200), slice(3200, None)
    for c, condition in enumerate(CONDITIONS):
        x = np.concatenate([means[m] for m in range(3) if present_under(condition)[m]], axis=1)
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=300))
        model.fit(x[trained], drawn.labels[trained])
        learned = model.score(x[held_out], drawn.labels[held_out])
        best = np.mean(posterior[c, held_out].argmax(axis=1) == drawn.labels[held_out])
        assert best - 0.015 < learned < best + 0.005


def test_absent_content_does_not_matter(corpus: LinearGaussianCorpus, drawn: Sample) -> None:
    count = 50
    values = [f.values[: f.offsets[count]].copy() for f in drawn.frames]
    offsets = [f.offsets[: count + 1] for f in drawn.frames]
    before = corpus.log_posterior_batch(values, offsets)
    values[1] = np.full((3 * count, corpus.views[1].width), np.nan)
    offsets[1] = 3 * np.arange(count + 1)
    after = corpus.log_posterior_batch(values, offsets)
    for c, condition in enumerate(CONDITIONS):
        assert np.array_equal(before[c], after[c]) == ("v" not in condition)


def test_presence_may_differ_between_utterances(corpus: LinearGaussianCorpus, drawn: Sample) -> None:
    values = [f.values[: f.offsets[7]] for f in drawn.frames]
    offsets = [f.offsets[:8] for f in drawn.frames]
    every = corpus.log_posterior_batch(values, offsets)
    present = np.array([present_under(condition) for condition in CONDITIONS])[None]
    mixed = corpus.log_posterior_batch(values, offsets, present)
    np.testing.assert_allclose(mixed[0], every[np.arange(7), np.arange(7)], atol=1e-12)


def test_lengths_are_moderate(drawn: Sample) -> None:
    for frames, (shortest, longest) in zip(drawn.frames, [(6, 40), (8, 14), (4, 12)], strict=True):
        assert np.diff(frames.offsets).min() >= shortest
        assert np.diff(frames.offsets).max() <= longest


@pytest.mark.parametrize("condition", ["", "va", "x"])
def test_unknown_condition(corpus: LinearGaussianCorpus, condition: str) -> None:
    with pytest.raises(InputError, match="choose one of"):
        corpus.bayes_accuracy(condition)


def test_wrong_width_and_offsets(corpus: LinearGaussianCorpus) -> None:
    with pytest.raises(InputError, match="visual"):
        corpus.log_posterior([None, np.zeros((3, 7)), None])
    values = [np.zeros((2, view.width)) for view in corpus.views]
    with pytest.raises(InputError, match="audio: offsets"):
        corpus.log_posterior_batch(values, [np.array([0, 3])] * 3)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": -1},
        {"overlap": 0.0},
        {"separation": 0.0},
        {"gain_swing": 1.0},
        {"views": (replace(SMALL.views[0], dim=6),) * 3},  # no room for the distractors
        {"views": (replace(SMALL.views[0], rms=0.0),) * 3},
        {"views": (replace(SMALL.views[0], distractors=-1),) * 3},
        {"views": (replace(SMALL.views[0], outliers=9),) * 3},
    ],
)
def test_parameters_that_do_not_fit(change: dict[str, object]) -> None:
    with pytest.raises(InputError, match="linear-Gaussian corpus"):
        replace(SMALL, **change)  # type: ignore[arg-type]
