"""The built-in corpora as they are read: scales, splits, folds and limits."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from sklearn.metrics import accuracy_score

from datamodules import CorpusError, InputError, Privileged, Synthetic
from datamodules.base import EmotionDataModule
from datamodules.conditions import CONDITIONS
from datamodules.privileged import privileged_corpus

LIMITS = {
    "Synthetic": {"a": 57.8, "v": 54.0, "t": 68.9, "av": 67.2, "at": 76.1, "vt": 74.6, "avt": 79.8},
    "Privileged": {"a": 67.6, "v": 67.6, "t": 71.7, "av": 69.7, "at": 71.7, "vt": 71.7, "avt": 71.8},
}
"""WA of the Bayes rule, %. Privileged's follow from its means of frames, whose noise is N(0, v_m I): see below."""


@pytest.fixture(scope="module", params=[Synthetic, Privileged])
def data(request: pytest.FixtureRequest) -> EmotionDataModule:
    made: EmotionDataModule = request.param(fold=2)
    made.setup("fit")
    return made


def test_written_features_have_the_scale_of_real_ones(data: EmotionDataModule) -> None:
    values = []
    for path in ("A/audio.h5", "V/visual.h5", "L/text.h5"):
        with h5py.File(data.root / path) as file:
            values.append(np.concatenate([file[name][()] for name in list(file)[:600]]).astype(np.float64))
    audio, visual, text = values
    assert 0.9 < np.sqrt(np.mean(audio**2)) < 1.1
    assert np.abs(audio.mean(axis=0)).max() < 0.5  # nearly z-scored
    assert visual.min() == 0
    assert 0.23 < np.sqrt(np.mean(visual**2)) < 0.27
    assert 0.45 < np.mean(visual == 0) < 0.55
    deviations, outliers = text.std(axis=0), text.shape[1] // 16
    assert 0.4 < np.sqrt(np.mean(deviations[outliers:] ** 2)) < 0.6
    assert deviations[:outliers].min() > 3 * np.median(deviations[outliers:])
    assert deviations[:outliers].min() > 2 * deviations[outliers:].max()


def test_limits_are_those_of_the_utterances_of_a_split(data: EmotionDataModule) -> None:
    for split in ("val", "test"):
        limits, count = data.bayes_accuracy(split), len(data.indices(split))
        assert limits is not None and list(limits) == list(CONDITIONS)
        for condition, known in LIMITS[data.corpus_name].items():
            error = np.sqrt(known * (100 - known) / count)
            assert abs(100 * limits[condition] - known) < 3.5 * error, (split, condition)


def test_privileged_limits_follow_from_the_means_of_frames() -> None:
    # v_m = q^2 + sigma^2 / 6; combined by precision; the class from the first three coordinates.
    rng = np.random.default_rng(1)
    counts = np.array([1103, 1636, 1708, 1084])
    means = 2.2 / np.sqrt(8) * np.array([[1, -1, -1], [1, 1, 1], [-1, 1, -1], [-1, -1, 1]])
    labels = rng.choice(4, 100_000, p=counts / 5531)
    noise = rng.standard_normal((100_000, 3))
    variances = {"a": 0.09 + 1 / 6, "v": 0.09 + 1 / 6, "t": 0.01 + 0.09 / 6}
    for condition in CONDITIONS:
        variance = 1 + 1 / sum(1 / variances[letter] for letter in condition)
        seen = means[labels] + np.sqrt(variance) * noise
        decided = (np.log(counts) + seen @ means.T / variance).argmax(axis=1)
        expected = accuracy_score(labels, decided)
        found = privileged_corpus(1).bayes_accuracy(condition, count=100_000, seed=2)
        assert found == pytest.approx(expected, abs=0.007)
        assert 100 * found == pytest.approx(LIMITS["Privileged"][condition], abs=0.6)


def test_privileged_folds_are_draws_of_their_own(tmp_path: Path) -> None:
    folds = {fold: Privileged(root=str(tmp_path), fold=fold) for fold in (2, 7)}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fold2", "fold7"]
    for data in folds.values():
        data.setup("fit")
        assert {split: len(data.indices(split)) for split in ("train", "val", "test")} == {
            "train": 400,
            "val": 600,
            "test": 2000,
        }
        assert data.corpus.lengths.unique().tolist() == [6]
        assert data.feature_dims == [130, 260, 16]
    assert not set(folds[2].corpus.utterances) & set(folds[7].corpus.utterances)
    assert folds[2].fingerprint != folds[7].fingerprint
    assert not np.allclose(privileged_corpus(2).mixing[2], privileged_corpus(7).mixing[2])


def test_validation_and_test_do_not_depend_on_the_number_of_training_utterances(tmp_path: Path) -> None:
    few, more = (Privileged(root=str(tmp_path / str(count)), fold=3, utterances=count) for count in (20, 50))
    for data in (few, more):
        data.setup("fit")
    assert len(few.indices("train")) == 20 and len(more.indices("train")) == 50
    for split in ("val", "test"):
        few_at, more_at = few.indices(split), more.indices(split)
        assert (few.labels[few_at] == more.labels[more_at]).all()
        for ours, theirs in zip(few.corpus.frames, more.corpus.frames, strict=True):
            assert (ours.utterance(few_at[5]) == theirs.utterance(more_at[5])).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [({"fold": 11}, r"fold 11: Privileged has folds 1\.\.10"), ({"utterances": 0}, "--data.utterances 0")],
)
def test_what_does_not_exist_is_refused_before_it_is_written(
    tmp_path: Path, options: dict[str, int], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        Privileged(root=str(tmp_path / "new"), **options)
    assert not (tmp_path / "new").exists()


def test_a_folder_of_another_size_is_not_taken_for_this_one(tmp_path: Path) -> None:
    Privileged(root=str(tmp_path), utterances=20)
    with pytest.raises(
        CorpusError, match=r"fold1: is something other than .* seed 1 and fold 1, utterances .*'train': 30"
    ):
        Privileged(root=str(tmp_path), utterances=30)
