from __future__ import annotations

import itertools
import json
import multiprocessing
import resource
import time
from dataclasses import replace
from multiprocessing.synchronize import Barrier
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt
import pytest
from scipy.linalg import block_diag
from scipy.stats import multivariate_normal
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from datamodules import linear_gaussian
from datamodules.batch import CONDITIONS, present_under
from datamodules.errors import CorpusError, InputError
from datamodules.linear_gaussian import (
    CLASS_COUNTS,
    FEATURE_FILES,
    SOURCE_FILE,
    LinearGaussianCorpus,
    Sample,
    View,
    load_source,
    write_corpus,
)

FloatArray = npt.NDArray[np.float64]

# What is published for IEMOCAP (WA, %).
TARGETS = {"a": 58, "v": 54, "t": 69, "av": 67, "at": 76, "vt": 75}

SMALL = LinearGaussianCorpus(
    seed=3,
    overlap=0.7,
    gain_swing=0.4,
    gain_decay=0.3,
    views=(
        View(6, (1.0, 0.5, 0.8, 0.7), 0.9, 0.6, 3.0, 0.4, 2, 4),
        View(5, (0.6, 1.1, 0.4, 1.0), 1.2, 0.9, 2.0, 0.4, 1, 3),
        View(4, (0.9, 0.7, 1.3, 0.5), 0.5, 1.5, 2.0, 0.4, 1, 3),
    ),
)


def joint_gaussian(
    corpus: LinearGaussianCorpus, label: int, lengths: tuple[int, ...], used: tuple[int, ...]
) -> tuple[FloatArray, FloatArray]:
    """Mean and covariance of all frames of the modalities ``used``, stacked, given the class: no shortcut."""
    maps, noises = [], []
    for m in used:
        view, T = corpus.views[m], lengths[m]
        gain = [
            (1 + corpus.gain_swing * np.sin(np.pi * (t + 0.5) / T)) * (view.median_length / T) ** corpus.gain_decay
            for t in range(T)
        ]
        mixed = np.concatenate([g * corpus.mixing[m] for g in gain])
        maps.append(mixed @ np.diag(view.loadings))
        noises.append(view.nuisance**2 * mixed @ mixed.T + view.noise**2 * np.eye(len(mixed)))
    seen = np.concatenate(maps)
    return seen @ corpus.class_means[label], corpus.overlap**2 * seen @ seen.T + block_diag(*noises)


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
        stacked = np.concatenate([frames[m].ravel() for m in used])
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
    stacked = np.concatenate([f.values.reshape(40_000, -1) for f in sample.frames], axis=1)
    np.testing.assert_allclose(np.bincount(sample.labels) / 40_000, np.array(CLASS_COUNTS) / 5531, atol=0.012)
    for label in range(4):
        mean, covariance = joint_gaussian(fixed, label, lengths, (0, 1, 2))
        own = stacked[sample.labels == label] - mean
        white = np.linalg.solve(np.linalg.cholesky(covariance), own.T)
        tolerance = 5 / np.sqrt(white.shape[1])
        np.testing.assert_allclose(white.mean(axis=1), 0, atol=tolerance)
        np.testing.assert_allclose(np.cov(white), np.eye(len(white)), atol=1.5 * tolerance)


def test_nothing_available_gives_the_prior() -> None:
    prior = np.log(np.array(CLASS_COUNTS) / 5531)
    np.testing.assert_allclose(SMALL.log_posterior([None, None, None]), prior, atol=1e-12)
    empty = [np.zeros((0, view.dim)) for view in SMALL.views]
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
        means.append(np.add.reduceat(gain * frames.values, starts) / np.add.reduceat(gain**2, starts))
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
    values[1] = np.full((3 * count, corpus.views[1].dim), np.nan)
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


def test_posterior_of_a_corpus_is_fast(corpus: LinearGaussianCorpus) -> None:
    sample = corpus.sample(4000, np.random.default_rng(0))
    start = time.perf_counter()
    log_posterior_of(corpus, sample)
    assert time.perf_counter() - start < 2


def test_feature_values_and_lengths_are_moderate(drawn: Sample) -> None:
    for frames, (shortest, longest) in zip(drawn.frames, [(6, 40), (8, 14), (4, 12)], strict=True):
        assert 0.5 < frames.values.std(axis=0).min() < frames.values.std(axis=0).max() < 3
        assert np.diff(frames.offsets).min() >= shortest
        assert np.diff(frames.offsets).max() <= longest


@pytest.mark.parametrize("condition", ["", "va", "x"])
def test_unknown_condition(corpus: LinearGaussianCorpus, condition: str) -> None:
    with pytest.raises(InputError, match="choose one of"):
        corpus.bayes_accuracy(condition)


def test_wrong_width_and_offsets(corpus: LinearGaussianCorpus) -> None:
    with pytest.raises(InputError, match="visual"):
        corpus.log_posterior([None, np.zeros((3, 7)), None])
    values = [np.zeros((2, view.dim)) for view in corpus.views]
    with pytest.raises(InputError, match="audio: offsets"):
        corpus.log_posterior_batch(values, [np.array([0, 3])] * 3)


@pytest.mark.parametrize(
    "change", [{"seed": -1}, {"overlap": 0.0}, {"gain_swing": 1.0}, {"views": (replace(SMALL.views[0], dim=3),) * 3}]
)
def test_parameters_that_do_not_fit(change: dict[str, object]) -> None:
    with pytest.raises(InputError, match="linear-Gaussian corpus"):
        replace(SMALL, **change)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus") / "built_in"
    write_corpus(folder)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_layout(written: Path, corpus: LinearGaussianCorpus) -> None:
    names = sorted(p.name for p in (written / "target").iterdir())
    assert names == ["1", "2", "3", "4", "5"]
    labels: dict[str, int] = {}
    for fold in names:
        splits = {}
        for split in ("trn", "val", "tst"):
            ids = np.load(written / "target" / fold / f"{split}_int2name.npy", allow_pickle=False)
            one_hot = np.load(written / "target" / fold / f"{split}_label.npy", allow_pickle=False)
            assert ids.dtype.kind == "S"
            assert ids.shape == (len(one_hot), 1)
            assert one_hot.shape[1] == 4
            assert one_hot.dtype.kind == "f"
            assert np.array_equal(np.sort(one_hot, axis=1), np.tile([0.0, 0, 0, 1], (len(ids), 1)))
            splits[split] = [name.decode() for name in ids[:, 0]]
            for name, label in zip(splits[split], one_hot.argmax(axis=1), strict=True):
                assert labels.setdefault(name, int(label)) == label
        speakers = {split: {name[:6] for name in ids} for split, ids in splits.items()}
        assert {split: len(ids) for split, ids in splits.items()} == {"trn": 3200, "val": 400, "tst": 400}
        assert speakers["val"] == {f"Ses0{fold}M"}
        assert speakers["tst"] == {f"Ses0{fold}F"}
        assert len(speakers["trn"]) == 8
        assert not speakers["trn"] & (speakers["val"] | speakers["tst"])
    assert len(labels) == 4000
    ids = list(labels)
    values, offsets = [], []
    for path, view in zip(FEATURE_FILES, corpus.views, strict=True):
        with h5py.File(written / path, "r") as file:
            assert set(file) == set(ids)
            frames = [file[name][()] for name in ids]
        assert {(f.dtype, f.shape[1]) for f in frames} == {(np.dtype("float32"), view.dim)}
        values.append(np.concatenate(frames))
        offsets.append(np.cumsum([0] + [len(f) for f in frames]))
    # What was written answers to the shipped posterior: the rule's accuracy is that of the model.
    rule = load_source(written).log_posterior_batch(values, offsets)
    truth = np.array([labels[name] for name in ids])
    for c, condition in enumerate(CONDITIONS):
        accuracy = np.mean(rule[c].argmax(axis=1) == truth)
        assert abs(accuracy - np.exp(rule[c].max(axis=1)).mean()) < 4 * 0.5 / np.sqrt(4000), condition


def test_same_seed_same_bytes(tmp_path: Path) -> None:
    write_corpus(tmp_path / "one", utterances_per_speaker=5)
    write_corpus(tmp_path / "two", utterances_per_speaker=5)
    write_corpus(tmp_path / "other", LinearGaussianCorpus(seed=1), utterances_per_speaker=5)
    one, two, other = (contents(tmp_path / name) for name in ("one", "two", "other"))
    assert one == two
    assert all(one[name] != other[name] for name in (*FEATURE_FILES, "target/1/trn_label.npy"))


def test_source_round_trip(written: Path, tmp_path: Path, corpus: LinearGaussianCorpus) -> None:
    assert load_source(written) == corpus
    write_corpus(tmp_path / "small", SMALL, utterances_per_speaker=2)
    assert load_source(tmp_path / "small") == SMALL


@pytest.mark.parametrize("damage", ["missing", "truncated", "binary", "version", "list", "parameter", "value", "views"])
def test_damaged_source(tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "corpus"
    write_corpus(folder, utterances_per_speaker=1)
    path = folder / SOURCE_FILE
    source = json.loads(path.read_text())
    if damage == "missing":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[:100])
    elif damage == "binary":
        path.write_bytes(b"\xff\xfe\x00")
    elif damage == "list":
        path.write_text("[]")
    else:
        if damage == "version":
            source["version"] += 1
        elif damage == "parameter":
            source["parameters"]["colour"] = "blue"
        elif damage == "value":
            source["parameters"]["overlap"] = "wide"
        else:
            source["parameters"]["views"].pop()
        path.write_text(json.dumps(source))
    with pytest.raises(CorpusError) as caught:
        load_source(folder)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(CorpusError, match="delete the folder"):
        write_corpus(folder, utterances_per_speaker=1)


def test_writing_again_changes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "corpus"
    write_corpus(folder, utterances_per_speaker=1)
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    write_corpus(folder, utterances_per_speaker=1)
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*")} == before


def test_other_content_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(CorpusError, match="choose another"):
        write_corpus(tmp_path)
    write_corpus(tmp_path / "seed0", utterances_per_speaker=1)
    with pytest.raises(CorpusError, match="seed 1"):
        write_corpus(tmp_path / "seed0", LinearGaussianCorpus(seed=1), utterances_per_speaker=1)
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("limit", [100_000, 1_500_000])
def test_full_disk_leaves_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str], limit: int) -> None:
    # A limit on the size of files fails as a full disk does: in the middle of a write.
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(InputError, match=r"cannot be written .*choose another folder") as caught:
            write_corpus(tmp_path / "corpus", utterances_per_speaker=100)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_no_utterances(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at least 1"):
        write_corpus(tmp_path / "corpus", utterances_per_speaker=0)
    assert list(tmp_path.iterdir()) == []


def test_parent_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        write_corpus(tmp_path / "file" / "corpus")


def test_the_slower_writer_uses_the_quicker_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "corpus"
    write_targets = linear_gaussian._write_targets

    def overtaken(*args: object) -> None:
        monkeypatch.setattr(linear_gaussian, "_write_targets", write_targets)
        write_corpus(folder, utterances_per_speaker=1)
        write_targets(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(linear_gaussian, "_write_targets", overtaken)
    write_corpus(folder, utterances_per_speaker=1)
    assert load_source(folder) == LinearGaussianCorpus()
    assert list(tmp_path.iterdir()) == [folder]


def write_at_the_barrier(folder: Path, barrier: Barrier) -> None:
    barrier.wait(timeout=60)
    write_corpus(folder, utterances_per_speaker=20)


def test_several_processes_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(3)
    folder = tmp_path / "together"
    writers = [context.Process(target=write_at_the_barrier, args=(folder, barrier)) for _ in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(timeout=60)
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    write_corpus(tmp_path / "alone", utterances_per_speaker=20)
    assert contents(folder) == contents(tmp_path / "alone")
    assert {p.name for p in tmp_path.iterdir()} == {"together", "alone"}
