"""Classes by choice: order, merging, leaving out and names, from options to batches, records and published rows."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from datamodules import IEMOCAP, Folder, Synthetic
from datamodules.base import EmotionDataModule
from datamodules.classes import ChosenClasses, choose_classes
from datamodules.errors import CorpusError, InputError
from datamodules.labels import Classes
from datamodules.storage.check import check_corpus
from datamodules.storage.layouts import IEMOCAP_LAYOUT
from ifmmin.cli import main
from tests.cli.running import best, metrics
from tests.datamodules.corpora import (
    CLIPS,
    RegressionSample,
    load_ids,
    write_clips,
    write_corpus,
    write_regression_corpus,
)

SIX = ["angry", "happy", "neutral", "sad", "excited", "frustrated"]
FOUR = ["angry", "happy=happy+excited", "neutral", "sad"]
SPLITS = {"train": "trn", "val": "val", "test": "tst"}


def six_columns(root: Path, soft: bool = False) -> Path:
    """A corpus whose label files have six columns; one-hot, or probabilities."""
    rng = np.random.default_rng(3)
    write_corpus(root, utterances=80)
    for fold in range(1, 11):
        for prefix in SPLITS.values():
            path = root / "target" / str(fold) / f"{prefix}_label.npy"
            count = len(np.load(path))
            labels = rng.dirichlet(np.full(6, 0.5), count) if soft else np.eye(6)[(np.arange(count) + fold) % 6]
            np.save(path, labels)
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return six_columns(tmp_path / "six")


def read(root: Path, **options: Any) -> EmotionDataModule:
    data = IEMOCAP(root=str(root), allow_shared_speakers=True, **options)
    data.setup("fit")
    return data


def stored(root: Path, split: str) -> dict[str, npt.NDArray[np.float64]]:
    """Label rows by utterance, as the file has them."""
    prefix = SPLITS[split]
    return dict(zip(load_ids(root, 1, prefix), np.load(root / "target" / "1" / f"{prefix}_label.npy"), strict=True))


def labels_of(data: EmotionDataModule, split: str) -> dict[str, str]:
    """Names of the classes of a split, by utterance."""
    return {
        data.corpus.utterances[index]: data.class_names[int(data.labels[index])]
        for index in data.indices(split).tolist()
    }


@pytest.mark.parametrize("given", [SIX, ",".join(SIX), " , ".join(SIX)])
def test_a_list_with_more_names_than_the_corpus_has_names_the_columns(root: Path, given: str | list[str]) -> None:
    data = read(root, classes=given)
    assert data.class_names == SIX
    for split in SPLITS:
        expected = {name: SIX[int(row.argmax())] for name, row in stored(root, split).items()}
        assert labels_of(data, split) == expected


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        (FOUR, {"angry": "angry", "happy": "happy", "excited": "happy", "neutral": "neutral", "sad": "sad"}),
        ("sad,angry", {"sad": "sad", "angry": "angry"}),
        (
            "happy+excited,low=sad+frustrated",
            {"happy": "happy+excited", "excited": "happy+excited", "sad": "low", "frustrated": "low"},
        ),
        (["joy = happy + excited", "sad"], {"happy": "joy", "excited": "joy", "sad": "sad"}),
        (None, {name: name for name in SIX}),
    ],
)
def test_classes_are_merged_renamed_and_left_out_by_name(root: Path, classes: Any, expected: dict[str, str]) -> None:
    data = read(root, label_names=SIX, classes=classes)
    assert data.class_names == list(dict.fromkeys(expected.values()))
    assert data.targets is not None
    for split in SPLITS:
        named = {name: SIX[int(row.argmax())] for name, row in stored(root, split).items()}
        assert labels_of(data, split) == {name: expected[each] for name, each in named.items() if each in expected}
        gone = Counter(each for each in named.values() if each not in expected)
        assert dict(data.targets[split].left_out) == dict(gone)
        assert data.targets[split].dropped == 0


def test_class_numbers_are_chosen_alike_and_what_is_left_out_is_counted_and_said(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for prefix in SPLITS.values():
        path = root / "target" / "1" / f"{prefix}_label.npy"
        np.save(path, np.load(path).argmax(axis=1))
    data = read(root, label_names=SIX, classes=FOUR)
    counts = np.bincount(np.concatenate([np.load(p) for p in (root / "target" / "1").glob("*_label.npy")]))
    assert f"{counts[5]} utterances are of classes that are left out (frustrated {counts[5]})" in caplog.text
    assert data.corpus_size == counts[:5].sum()
    report = check_corpus(root, IEMOCAP.layout_of({"root": str(root), "label_names": SIX, "classes": FOUR}), [1])
    assert list(report.summary.folds[1].counts["train"]) == ["angry", "happy", "neutral", "sad"]
    assert any(f"frustrated {counts[5]}" in str(note) for note in report.notes.found)


def test_soft_labels_are_added_and_scaled_and_left_out_where_another_class_is_likeliest(tmp_path: Path) -> None:
    root = six_columns(tmp_path, soft=True)
    data = read(root, label_names=SIX, classes=["happy+excited", "angry", "sad"])
    groups = [[1, 4], [0], [3]]
    left = [2, 5]
    seen = 0
    for split in SPLITS:
        expected = {}
        for name, row in stored(root, split).items():
            mass = np.array([row[group].sum() for group in groups])
            if mass.max() >= row[left].max():
                expected[name] = mass / mass.sum()
        soft: dict[str, npt.NDArray[np.float32]] = {}
        for batch in data.in_order(split):
            assert batch.soft_labels is not None
            soft |= dict(zip(batch.utterances, batch.soft_labels.numpy(), strict=True))
            assert batch.labels.tolist() == batch.soft_labels.argmax(dim=1).tolist()
        assert soft.keys() == expected.keys()
        for name, row in expected.items():
            np.testing.assert_allclose(soft[name], row, atol=1e-6)
        seen += len(expected)
    assert 0 < seen < 80


def test_the_corpus_as_it_is_keeps_its_fingerprint_and_a_choice_changes_it(tmp_path: Path) -> None:
    write_corpus(tmp_path)
    plain = read(tmp_path).fingerprint
    names = list(IEMOCAP_LAYOUT.class_names)
    assert read(tmp_path, classes=names, label_names=names).fingerprint == plain
    others = [
        {"classes": names[::-1]},
        {"classes": names[:3]},
        {"classes": ["angry", "joy=happy", "neutral", "sad"]},
        {"label_names": ["a", "b", "c", "d"]},
    ]
    assert len({plain, *(read(tmp_path, **options).fingerprint for options in others)}) == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "one-hot labels of 6 classes where the corpus has 4; name the columns in their order by --data.label_n"),
        ({"classes": "angry,hapy,sad"}, "--data.classes: there is no class 'hapy'. Did you mean happy? The label file"),
        ({"classes": "angry,happy+angry"}, "--data.classes: angry is chosen twice."),
        ({"classes": "x=angry,x=happy"}, "--data.classes: x is there twice."),
        ({"classes": "angry"}, "--data.classes angry: give at least two classes."),
        ({"classes": "angry,,sad"}, "--data.classes 'angry,,sad': an empty name."),
        ({"classes": []}, "--data.classes []: it must not be empty."),
        ({"classes": "angry,=sad"}, "--data.classes: '' is no name of 1 to 100 letters."),
        ({"label_names": "a,a,b"}, "--data.label_names: a is there twice."),
        ({"label_names": SIX[:5]}, "one-hot labels of 6 classes where the corpus has 5"),
        (
            {"label_names": SIX, "classes": "excited,fear"},
            "there is no class 'fear'. The label files have angry, happy",
        ),
    ],
)
def test_what_cannot_be_chosen_is_one_line(root: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises((InputError, CorpusError)) as caught:
        read(root, **options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_values_have_no_classes_and_a_described_corpus_names_its_own(tmp_path: Path) -> None:
    write_regression_corpus(tmp_path / "values", utterances=20)
    with pytest.raises(InputError, match="the labels of Values are no classes"):
        RegressionSample(str(tmp_path / "values"), classes="low,high")
    root = tmp_path / "clips"
    write_clips(root)
    data = Folder(str(root), classes=["très drôle", "down=calm+angry"])
    data.setup("fit")
    assert data.class_names == ["très drôle", "down"]
    assert Counter(labels_of(data, "train").values()) == {"très drôle": 6, "down": 12}
    with pytest.raises(InputError, match="names the classes of Folder-clips: calm, angry, très drôle"):
        Folder(str(root), label_names="a,b,c")
    with pytest.raises(InputError, match="there is no class 'fear'"):  # nor are its columns named by a longer list
        Folder(str(root), classes=[*CLIPS, "fear"])


def test_names_may_hold_the_signs_of_the_syntax() -> None:
    labels = Classes(("a+b", "c=d", "e,f"))
    chosen = choose_classes(labels, "odd", ["e,f", "a+b", "c=d"], None)
    assert isinstance(chosen, ChosenClasses)
    assert chosen.members == (("e,f",), ("a+b",), ("c=d",))
    assert choose_classes(labels, "odd", ["x=c=d", "a+b"], None).names == ("x", "a+b")


def test_the_bayes_rule_is_that_of_the_classes_told_apart(tmp_path: Path) -> None:
    data = Synthetic(str(tmp_path), utterances_per_speaker=60, classes=["high=happy+angry", "sad"])
    data.setup("test")
    full = Synthetic(str(tmp_path), utterances_per_speaker=60)
    full.setup("test")
    angry, happy, _, sad = range(4)
    right = total = 0
    for index in full.indices("test").tolist():
        if int(full.labels[index]) == 2:
            continue
        frames = [each.utterance(index).numpy() for each in full.corpus.frames]
        p = np.exp(full.source.log_posterior(frames))
        right += (p[angry] + p[happy] > p[sad]) == (int(full.labels[index]) != sad)
        total += 1
    found = data.bayes_accuracy("test")
    assert found is not None
    assert found["avt"] == pytest.approx(right / total)


def test_a_run_records_its_classes_and_a_checkpoint_of_others_is_refused_by_name(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = ["--data", "IEMOCAP", "--data.root", str(root), "--data.allow_shared_speakers", "true"]
    six = ["--data.label_names", ",".join(SIX)]
    chosen = ["--data.classes", "[angry, happy=happy+excited, sad]"]
    run = tmp_path / "run"
    words = ["fit", "--model", "MeanFusion", *corpus, *six, *chosen, "--trainer.max_epochs", "1", "--run_dir", str(run)]
    assert main(words) == 0, capsys.readouterr().err
    assert "classes: angry, happy (happy, excited), sad of the label files' angry, happy," in capsys.readouterr().out
    assert metrics(run)["class_names"] == ["angry", "happy", "sad"]
    test = ["test", "--model", "MeanFusion", *corpus, *six, "--ckpt_path", str(best(run)), "--run_dir"]
    assert main([*test, str(tmp_path / "t1"), *chosen]) == 0
    capsys.readouterr()
    assert main([*test, str(tmp_path / "t2")]) == 1
    said = capsys.readouterr().err
    assert "its classes are angry, happy, sad, the corpus's angry, happy, neutral, sad, excited, frustrated" in said
    assert "only one of them has neutral, excited, frustrated; give --data.classes" in said
    assert main([*test, str(tmp_path / "t3"), "--data.classes", "happy=happy+excited,angry,sad"]) == 1
    assert "their order differs" in capsys.readouterr().err
