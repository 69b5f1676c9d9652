"""The reader against h5py and numpy used plainly, and against every kind of bad input."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from torch import Tensor

from datamodules.errors import CorpusError
from datamodules.storage.corpus import feature_dims, fingerprint, read_corpus, train_statistics
from datamodules.storage.frames import Frames
from datamodules.storage.layouts import IEMOCAP_LAYOUT
from datamodules.storage.statistics import difference, shipped_statistics
from datamodules.storage.targets import SPLITS, read_targets, shared_speakers
from tests.datamodules.corpora import (
    LAYOUTS,
    SAMPLES,
    change_features,
    load_features,
    load_ids,
    truncate,
    utterance_id,
    write_corpus,
)

PREFIX = {"train": "trn", "val": "val", "test": "tst"}
FIRST, SECOND, THIRD = (utterance_id("IEMOCAP", number) for number in range(3))
AUDIO, VISUAL, TEXT = (IEMOCAP_LAYOUT.feature_path(Path(), modality) for modality in range(3))

BUDGETS = pytest.mark.parametrize("budget", [math.inf, 0], ids=["in memory", "on disk"])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_corpus(tmp_path / "corpus")
    return tmp_path / "corpus"


def stacked(frames: Frames) -> Tensor:
    return torch.cat([frames.utterance(row) for row in range(len(frames.offsets) - 1)])


# What is read is what is there.


@BUDGETS
@pytest.mark.parametrize("name", LAYOUTS)
def test_samples_are_read_as_h5py_and_numpy_read_them(name: str, budget: float) -> None:
    root, layout = SAMPLES[name], LAYOUTS[name]
    for fold in (1, layout.folds):
        targets = read_targets(root, layout, fold)
        assert tuple(targets) == SPLITS
        for split, target in targets.items():
            labels = np.load(root / "target" / str(fold) / f"{PREFIX[split]}_label.npy")
            assert target.utterances == load_ids(root, fold, PREFIX[split])
            expected = labels.argmax(axis=1) if labels.ndim == 2 else labels
            np.testing.assert_array_equal(target.labels, expected)
            assert target.labels.dtype == np.int64
    utterances = [name for split in targets.values() for name in split.utterances][::-1]
    corpus = read_corpus(root, layout, utterances, require_all=True, memory_budget=budget)
    assert corpus.utterances == utterances
    for modality, frames in enumerate(corpus.frames):
        expected_frames = load_features(layout.feature_path(root, modality), utterances)
        assert frames.dim == (26, 34, 48)[modality]
        np.testing.assert_array_equal(stacked(frames), np.concatenate(expected_frames))
        np.testing.assert_array_equal(frames.offsets.diff().numpy(), [len(one) for one in expected_frames])
        torch.testing.assert_close(corpus.lengths[:, modality], frames.offsets.diff())


@pytest.mark.parametrize("name", LAYOUTS)
def test_all_utterances_are_read_where_none_are_named(name: str) -> None:
    with h5py.File(LAYOUTS[name].feature_path(SAMPLES[name], 0)) as file:
        expected = sorted(file)
    assert read_corpus(SAMPLES[name], LAYOUTS[name], None, require_all=True).utterances == expected


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_written_corpus_has_every_speaker_in_one_test_split(name: str, tmp_path: Path) -> None:
    written = write_corpus(tmp_path, name, dims=(3, 2, 4))  # type: ignore[arg-type]
    layout = LAYOUTS[name]
    tested: list[str] = []
    for fold in range(1, layout.folds + 1):
        targets = read_targets(tmp_path, layout, fold)
        assert sorted(name for target in targets.values() for name in target.utterances) == sorted(written)
        assert not shared_speakers(targets, layout)
        tested += targets["test"].utterances
    assert sorted(tested) == sorted(written)
    assert [frames.dim for frames in read_corpus(tmp_path, layout, written, require_all=True).frames] == [3, 2, 4]


@BUDGETS
@pytest.mark.parametrize("dtype", ["float16", "float64", "int16", "uint8", ">f4"])
def test_other_number_types_are_read_as_float32(root: Path, dtype: str, budget: float) -> None:
    frames = np.arange(10).reshape(2, 5).astype(dtype)
    change_features(root / AUDIO, {FIRST: frames})
    corpus = read_corpus(root, IEMOCAP_LAYOUT, [SECOND, FIRST], require_all=True, memory_budget=budget)
    np.testing.assert_array_equal(corpus.frames[0].utterance(1), np.arange(10).reshape(2, 5))


@BUDGETS
def test_compressed_features_are_read(root: Path, budget: float) -> None:
    frames = np.random.default_rng(0).standard_normal((50, 5)).astype(np.float32)
    with h5py.File(root / AUDIO, "r+") as file:
        del file[FIRST]
        file.create_dataset(FIRST, data=frames, chunks=(7, 3), compression="gzip")
    corpus = read_corpus(root, IEMOCAP_LAYOUT, [FIRST], require_all=True, memory_budget=budget)
    np.testing.assert_array_equal(corpus.frames[0].utterance(0), frames)


# What is not there.


@BUDGETS
def test_absent_modalities_are_empty_in_prediction(root: Path, budget: float) -> None:
    (root / AUDIO).unlink()
    change_features(root / VISUAL, {FIRST: None, SECOND: np.zeros((0, 6), dtype=np.float32)})
    change_features(root / TEXT, {THIRD: np.zeros((0,))})
    corpus = read_corpus(root, IEMOCAP_LAYOUT, [FIRST, SECOND, THIRD], require_all=False, memory_budget=budget)
    assert stacked(corpus.frames[0]).shape == (0, 0)
    assert (corpus.lengths > 0).tolist() == [[False, False, True], [False, False, True], [False, True, False]]
    stored = load_features(root / TEXT, [FIRST, SECOND])
    np.testing.assert_array_equal(stacked(corpus.frames[2]), np.concatenate(stored))
    assert feature_dims(root, IEMOCAP_LAYOUT) == [0, 6, 7]


def test_the_union_of_all_files_is_read_in_prediction(root: Path) -> None:
    for modality, path in enumerate((AUDIO, VISUAL, TEXT)):
        with h5py.File(root / path, "w") as file:
            file[f"only_{modality}"] = np.ones((2, 3))
    corpus = read_corpus(root, IEMOCAP_LAYOUT, None, require_all=False)
    assert corpus.utterances == ["only_0", "only_1", "only_2"]
    assert corpus.lengths.tolist() == [[2, 0, 0], [0, 2, 0], [0, 0, 2]]


def test_an_utterance_with_nothing_at_all_is_refused_in_prediction(root: Path) -> None:
    with pytest.raises(CorpusError, match=r"utterance stranger: has no features in any modality \(and 1 more"):
        read_corpus(root, IEMOCAP_LAYOUT, [FIRST, "stranger", "other"], require_all=False)


@pytest.mark.parametrize("complete", [True, False])
def test_nothing_to_read_is_refused(root: Path, complete: bool) -> None:
    for path in (AUDIO, VISUAL, TEXT):
        if complete:
            h5py.File(root / path, "w").close()
        else:
            (root / path).unlink()
    with pytest.raises(CorpusError, match="no features of any utterance"):
        read_corpus(root, IEMOCAP_LAYOUT, None, require_all=complete)


def test_dims_are_known_without_reading(root: Path) -> None:
    assert feature_dims(root, IEMOCAP_LAYOUT) == [5, 6, 7]
    change_features(root / AUDIO, {name: np.zeros((0, 5)) for name in (FIRST, SECOND, THIRD)})
    assert feature_dims(root, IEMOCAP_LAYOUT) == [5, 6, 7]
    with pytest.raises(CorpusError, match=r"nowhere: does not exist; give the folder"):
        feature_dims(root / "nowhere", IEMOCAP_LAYOUT)
    names = replace(IEMOCAP_LAYOUT, feature_names=("no", "such", "names"))
    with pytest.raises(CorpusError, match="no features of any utterance"):
        feature_dims(root, names)


# Bad features: what is done to the corpus, whether it also stops prediction, and what the error says.

Damage = Callable[[Path], object]


def change_audio(changes: dict[str, object]) -> Damage:
    return lambda root: change_features(root / AUDIO, changes)


def file_instead(root: Path) -> None:
    shutil.rmtree(root)
    root.touch()


def group_instead(root: Path) -> None:
    change_features(root / AUDIO, {FIRST: None})
    with h5py.File(root / AUDIO, "r+") as file:
        file.create_group(FIRST)


def with_value(value: float) -> Damage:
    frames = np.zeros((3, 5), dtype=np.float32)
    frames[1, 4] = value
    return change_audio({SECOND: frames, THIRD: frames})


ZERO = np.zeros((0, 5), dtype=np.float32)
BAD_FEATURES: list[tuple[str, Damage, bool, str]] = [
    ("root missing", shutil.rmtree, True, r"corpus: does not exist; give the folder"),
    ("root a file", file_instead, True, r"corpus: is not a folder"),
    ("file missing", lambda root: (root / TEXT).unlink(), False, r"L/bert_large\.h5: does not exist"),
    ("truncated", lambda root: truncate(root / VISUAL), True, r"V/denseface\.h5: not a whole HDF5 file \(.*truncated"),
    ("zero bytes", lambda root: (root / TEXT).write_bytes(b""), True, r"L/bert_large\.h5: not a whole HDF5 file"),
    ("not HDF5", lambda root: (root / TEXT).write_text("x" * 999), True, r"L/bert_large\.h5: not a whole HDF5 file"),
    ("empty", lambda root: h5py.File(root / AUDIO, "w").close(), False, rf"{FIRST}: not in .*and 47 more utterances"),
    ("no entry", change_audio({SECOND: None}), False, rf"comparE\.h5: utterance {SECOND}: not in this file; extract"),
    ("zero frames", change_audio({SECOND: ZERO}), False, rf"comparE\.h5: utterance {SECOND}: has no frames"),
    ("group", group_instead, True, rf"comparE\.h5: utterance {FIRST}: not a readable dataset"),
    ("rank 1", change_audio({SECOND: np.ones(5)}), True, rf"{SECOND}: not of the shape \[frames, width\]"),
    ("rank 3", change_audio({SECOND: np.ones((1, 5, 1))}), True, rf"{SECOND}: not of the shape"),
    ("scalar", change_audio({SECOND: 1.0}), True, rf"{SECOND}: not of the shape"),
    ("null", change_audio({SECOND: h5py.Empty("f4")}), True, rf"{SECOND}: not of the shape"),
    ("no width", change_audio({SECOND: np.ones((3, 0))}), True, rf"{SECOND}: not of the shape"),
    ("width", change_audio({FIRST: np.ones((3, 9))}), True, rf"{FIRST}: frames of 9 values where most have 5"),
    ("text", change_audio({FIRST: np.full((3, 5), b"x")}), True, rf"{FIRST}: cannot be read: damaged, or not numbers"),
    ("NaN", with_value(np.nan), True, rf"comparE\.h5: utterance {SECOND}: has NaN or infinite .*\(and 1 more utter"),
    ("infinite", with_value(-np.inf), True, rf"comparE\.h5: utterance {SECOND}: has NaN or infinite"),
    ("too large", change_audio({SECOND: np.full((2, 5), 1e300)}), True, rf"{SECOND}: has NaN or infinite"),
]


@pytest.mark.parametrize(
    ("damage", "stops_prediction", "message"), [case[1:] for case in BAD_FEATURES], ids=[c[0] for c in BAD_FEATURES]
)
def test_bad_features_are_named(root: Path, damage: Damage, stops_prediction: bool, message: str) -> None:
    utterances = [utterance_id("IEMOCAP", number) for number in range(48)]
    damage(root)
    for budget in (math.inf, 0):
        with pytest.raises(CorpusError, match=message) as caught:
            read_corpus(root, IEMOCAP_LAYOUT, utterances, require_all=True, memory_budget=budget)
        assert "\n" not in str(caught.value)
        if stops_prediction:
            with pytest.raises(CorpusError, match=message):
                read_corpus(root, IEMOCAP_LAYOUT, utterances, require_all=False, memory_budget=budget)
        else:
            read_corpus(root, IEMOCAP_LAYOUT, utterances, require_all=False, memory_budget=budget)


# Statistics.


@BUDGETS
@pytest.mark.parametrize("name", LAYOUTS)
def test_statistics_are_those_of_all_train_frames(name: str, budget: float) -> None:
    root, layout = SAMPLES[name], LAYOUTS[name]
    corpus = read_corpus(root, layout, None, require_all=True, memory_budget=budget)
    train = read_targets(root, layout, 3)["train"].utterances
    rows = np.array([corpus.utterances.index(utterance) for utterance in train])
    for modality, frames in enumerate(corpus.frames):
        stored = np.concatenate(load_features(layout.feature_path(root, modality), train)).astype(np.float64)
        for given in (rows, torch.from_numpy(rows)):
            mean, std = train_statistics(frames, given)
            assert mean.dtype == std.dtype == torch.float32
            np.testing.assert_allclose(mean.numpy(), stored.mean(axis=0), rtol=1e-6, atol=1e-7)
            np.testing.assert_allclose(std.numpy(), stored.std(axis=0), rtol=1e-6)


def test_statistics_survive_a_large_offset_and_a_constant(root: Path) -> None:
    rng = np.random.default_rng(0)
    changes = {}
    for number in range(48):
        frames = (rng.standard_normal((20, 5)) + 3000).astype(np.float32)
        frames[:, 2] = 0.1
        changes[utterance_id("IEMOCAP", number)] = frames
    change_features(root / AUDIO, changes)
    corpus = read_corpus(root, IEMOCAP_LAYOUT, list(changes), require_all=True)
    stored = np.concatenate(list(changes.values())).astype(np.float64)
    mean, std = train_statistics(corpus.frames[0], np.arange(48))
    varying = [0, 1, 3, 4]
    np.testing.assert_allclose(std.numpy()[varying], stored.std(axis=0)[varying], rtol=1e-6)
    assert std[2] == 1
    assert mean[2] == np.float32(0.1)


def test_statistics_of_an_absent_modality_change_nothing(root: Path) -> None:
    (root / AUDIO).unlink()
    change_features(root / VISUAL, {SECOND: None})
    corpus = read_corpus(root, IEMOCAP_LAYOUT, [FIRST, SECOND], require_all=False)
    assert train_statistics(corpus.frames[0], np.arange(2)).mean.shape == (0,)
    mean, _ = train_statistics(corpus.frames[1], np.arange(2))
    np.testing.assert_allclose(mean.numpy(), load_features(root / VISUAL, [FIRST])[0].mean(axis=0), rtol=1e-5)
    mean, std = train_statistics(corpus.frames[1], np.array([1]))
    assert (mean.tolist(), std.tolist()) == ([0] * 6, [1] * 6)


@pytest.mark.parametrize("name", LAYOUTS)
def test_shipped_statistics_agree_with_ours_in_every_fold(name: str) -> None:
    root, layout = SAMPLES[name], LAYOUTS[name]
    corpus = read_corpus(root, layout, None, require_all=True)
    for fold in range(1, layout.folds + 1):
        train = read_targets(root, layout, fold)["train"].utterances
        rows = np.array([corpus.utterances.index(utterance) for utterance in train])
        shipped = shipped_statistics(layout.statistics_path(root), fold)
        assert shipped is not None
        assert difference(train_statistics(corpus.frames[0], rows), shipped) < 1e-5
        assert difference(train_statistics(corpus.frames[0], rows[1:]), shipped) > 1e-4


def test_shipped_statistics_need_not_be_there(root: Path) -> None:
    assert shipped_statistics(IEMOCAP_LAYOUT.statistics_path(root), 1) is None
    path = IEMOCAP_LAYOUT.statistics_path(root)
    with h5py.File(path, "w") as file:
        file["2/mean"] = np.zeros(5)
    assert shipped_statistics(IEMOCAP_LAYOUT.statistics_path(root), 1) is None
    with pytest.raises(CorpusError, match=r"comparE_mean_std\.h5: the mean and std of fold 2 cannot be read"):
        shipped_statistics(IEMOCAP_LAYOUT.statistics_path(root), 2)
    truncate(path)
    with pytest.raises(CorpusError, match=r"comparE_mean_std\.h5: .* it is not needed"):
        shipped_statistics(IEMOCAP_LAYOUT.statistics_path(root), 1)


# Fingerprint.


def test_fingerprint_is_of_the_data_alone(root: Path, tmp_path: Path) -> None:
    def of(folder: Path, fold: int = 1) -> str:
        targets = read_targets(folder, IEMOCAP_LAYOUT, fold)
        return fingerprint(read_corpus(folder, IEMOCAP_LAYOUT, None, require_all=True), targets)

    before = of(root)
    assert before == of(root)
    assert int(before, 16) >= 0
    copy = tmp_path / "copy"
    shutil.copytree(root, copy)
    assert of(copy) == before
    assert of(copy, fold=2) != before
    frames = load_features(copy / TEXT, [FIRST])[0]
    frames[-1, -1] = np.nextafter(frames[-1, -1], np.float32(np.inf))
    change_features(copy / TEXT, {FIRST: frames})
    assert of(copy) != before


def test_fingerprint_sees_ids_shapes_labels_and_splits(root: Path) -> None:
    utterances = [FIRST, SECOND]
    change_features(root / AUDIO, {FIRST: np.ones((2, 5)), SECOND: np.ones((4, 5))})
    corpus = read_corpus(root, IEMOCAP_LAYOUT, utterances, require_all=True)
    targets = read_targets(root, IEMOCAP_LAYOUT, 1)
    moved = corpus.lengths + torch.tensor([[1, 0, 0], [-1, 0, 0]])
    wrong = replace(targets["val"], labels=(targets["val"].labels + 1) % 4)
    prints = [
        fingerprint(corpus, targets),
        fingerprint(corpus, None),
        fingerprint(replace(corpus, utterances=[SECOND, FIRST]), targets),
        fingerprint(replace(corpus, lengths=moved), targets),
        fingerprint(corpus, {**targets, "val": wrong}),
        fingerprint(corpus, {**targets, "val": targets["test"], "test": targets["val"]}),
    ]
    assert len(set(prints)) == len(prints)
    assert fingerprint(replace(corpus, root=Path("elsewhere")), targets) == prints[0]
