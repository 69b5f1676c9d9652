"""The label files of a fold: every way to store them, every way to spoil them, speakers and copied folds."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from datamodules.errors import CorpusError, InputError
from datamodules.storage.layouts import IEMOCAP_LAYOUT, MSP_IMPROV_LAYOUT, speaker_of
from datamodules.storage.targets import identical_folds, read_targets, shared_speakers
from tests.datamodules.corpora import LAYOUTS, truncate, utterance_id, write_corpus, write_split

Damage = Callable[[Path], object]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_corpus(tmp_path / "corpus")
    return tmp_path / "corpus"


@pytest.mark.parametrize("labels", ["one-hot", "one-hot integers", "numbers", "float numbers", "column"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_either_layout_may_store_labels_either_way(root: Path, name: str, labels: str) -> None:
    numbers = np.array([3, 0, 2])
    stored = {
        "one-hot": np.eye(4)[numbers],
        "one-hot integers": np.eye(4, dtype=np.int64)[numbers],
        "numbers": numbers,
        "float numbers": numbers.astype(np.float32),
        "column": numbers[:, None],
    }
    folder = root / "target" / "1"
    write_split(root, "MSPIMPROV", 1, "val", ["x", "y", "z"], numbers)
    np.save(folder / "val_label.npy", stored[labels])
    np.testing.assert_array_equal(read_targets(root, LAYOUTS[name], 1)["val"].labels, numbers)


def save(name: str, array: object) -> Damage:
    return lambda root: np.save(root / "target" / "1" / name, np.asarray(array), allow_pickle=True)


def change_labels(row: int, values: object) -> Damage:
    def damage(root: Path) -> None:
        path = root / "target" / "1" / "trn_label.npy"
        labels = np.load(path)
        labels[row] = values
        np.save(path, labels)

    return damage


def pickle_instead(root: Path) -> None:
    path = root / "target" / "1" / "trn_label.npy"
    np.save(path, np.array([{"angry"}] * len(np.load(path))), allow_pickle=True)


def repeat(source: str, target: str) -> Damage:
    def damage(root: Path) -> None:
        folder = root / "target" / "1"
        names = np.load(folder / f"{target}_int2name.npy")
        names[-1] = np.load(folder / f"{source}_int2name.npy")[0]
        np.save(folder / f"{target}_int2name.npy", names)

    return damage


FIRST_TRAIN = utterance_id("IEMOCAP", 2)
BAD_TARGETS: list[tuple[str, Damage, str]] = [
    ("root missing", shutil.rmtree, r"corpus: does not exist; give the folder"),
    ("no fold", lambda root: shutil.rmtree(root / "target" / "1"), r"target/1: this fold has no folder"),
    (
        "file missing",
        lambda root: (root / "target/1/val_label.npy").unlink(),
        r"target/1/val_label\.npy: does not exis",
    ),
    ("pickled", pickle_instead, r"trn_label\.npy: is pickled, and holds .*, which is refused"),
    ("truncated", lambda root: truncate(root / "target/1/trn_label.npy"), r"trn_label\.npy: is not a whole NumPy file"),
    ("zero bytes", lambda r: (r / "target/1/trn_label.npy").write_bytes(b""), r"trn_label\.npy: is not a whole NumPy"),
    ("empty", save("tst_int2name.npy", np.array([], dtype="S3")), r"tst_int2name\.npy: holds no utterance"),
    ("scalar", save("tst_label.npy", 3), r"tst_label\.npy: holds no utterance"),
    ("fewer labels", save("val_label.npy", np.eye(4)), r"val_label\.npy: 4 labels where val_int2name\.npy has 5 utter"),
    ("ids are numbers", save("val_int2name.npy", np.arange(5)), r"val_int2name\.npy: holds int64 \[5\] where ids"),
    ("two ids a row", save("val_int2name.npy", [["a", "b"]] * 5), r"val_int2name\.npy: holds <U1 \[5, 2\] where ids"),
    ("ids not UTF-8", save("val_int2name.npy", [b"\xff"] * 5), r"val_int2name\.npy: holds ids that are not UTF-8"),
    ("text labels", save("val_label.npy", ["angry"] * 5), r"val_label\.npy: holds <U5 \[5\] where labels are expected"),
    ("three-dimensional", save("val_label.npy", np.zeros((5, 2, 2))), r"val_label\.npy: holds float64 \[5, 2, 2\]"),
    ("five classes", save("val_label.npy", np.eye(5)), r"one-hot labels of 5 classes where the corpus has 4"),
    ("label 4", save("val_label.npy", [0, 1, 4, 2, 4]), r": label 4 is outside 0\.\.3 \(and 1 more utterance\)"),
    ("label -1", save("val_label.npy", [0, 1, 2, 3, -1]), r"utterance Ses01F_impro01_M041: label -1 is outside 0\.\.3"),
    ("label 1.5", save("val_label.npy", [0, 1, 2, 3, 1.5]), r"label 1\.5 is outside 0\.\.3"),
    ("label NaN", save("val_label.npy", [0, 1, 2, 3, np.nan]), r"label nan is outside 0\.\.3"),
    ("no class", change_labels(0, [0, 0, 0, 0]), rf"utterance {FIRST_TRAIN}: label \[0.*\] is not one-hot"),
    ("two classes", change_labels(0, [1, 1, 0, 0]), rf"utterance {FIRST_TRAIN}: label \[1.*\] is not one-hot"),
    ("soft", change_labels(0, [0.7, 0.7, 0, 0]), rf"utterance {FIRST_TRAIN}: label \[0\.7.*\] is not one-hot"),
    ("NaN one-hot", change_labels(0, np.nan), rf"utterance {FIRST_TRAIN}: label \[nan.*\] is not one-hot"),
    ("twice", repeat("trn", "trn"), rf"trn_int2name\.npy: utterance {FIRST_TRAIN}: listed more than once"),
    ("in two splits", repeat("trn", "tst"), rf"target/1: utterance {FIRST_TRAIN}: in both train and test"),
]


@pytest.mark.parametrize(("damage", "message"), [c[1:] for c in BAD_TARGETS], ids=[c[0] for c in BAD_TARGETS])
def test_bad_targets_are_named(root: Path, damage: Damage, message: str) -> None:
    damage(root)
    with pytest.raises(CorpusError, match=message) as caught:
        read_targets(root, IEMOCAP_LAYOUT, 1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("fold", [0, -1, 11])
def test_a_fold_that_does_not_exist_is_refused(root: Path, fold: int) -> None:
    with pytest.raises(InputError, match=rf"^fold {fold}: IEMOCAP has folds 1\.\.10\.$"):
        read_targets(root, IEMOCAP_LAYOUT, fold)


def test_copied_folds_are_found(root: Path) -> None:
    assert identical_folds(root, IEMOCAP_LAYOUT, 7) == []
    shutil.rmtree(root / "target" / "8")
    assert identical_folds(root, IEMOCAP_LAYOUT, 8) == []
    shutil.copytree(root / "target" / "7", root / "target" / "8")
    assert identical_folds(root, IEMOCAP_LAYOUT, 7) == [8]
    assert identical_folds(root, IEMOCAP_LAYOUT, 8) == [7]
    shutil.copy(root / "target" / "1" / "val_label.npy", root / "target" / "8" / "val_label.npy")
    assert identical_folds(root, IEMOCAP_LAYOUT, 7) == []


@pytest.mark.parametrize(
    ("utterance", "iemocap", "msp"),
    [
        ("Ses01F_impro00_M0012", "Ses01M", "Ses01M"),
        ("Ses01M_impro00_M0012", "Ses01M", "Ses01M"),
        ("Ses05F_script01_1b_F023", "Ses05F", "Ses05F"),
        ("MSP-IMPROV-S01A-F01-P-FM01", None, "F01"),
        ("MSP-IMPROV-S20N-M06-T-MM02", None, "M06"),
        ("utterance 7", None, None),
    ],
)
def test_speakers_are_read_from_ids(utterance: str, iemocap: str | None, msp: str | None) -> None:
    assert speaker_of(utterance, IEMOCAP_LAYOUT) == iemocap
    assert speaker_of(utterance, MSP_IMPROV_LAYOUT) == msp


def test_shared_speakers_are_found(root: Path) -> None:
    targets = read_targets(root, IEMOCAP_LAYOUT, 1)
    assert shared_speakers(targets, IEMOCAP_LAYOUT) == set()
    moved = replace(targets["train"], utterances=[*targets["train"].utterances, targets["test"].utterances[0]])
    assert shared_speakers({**targets, "train": moved}, IEMOCAP_LAYOUT) == {"Ses01F"}
