"""A corpus that says itself what other corpora's classes say."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import datamodules
from datamodules import IEMOCAP, MSPIMPROV, EmotionDataModule, Folder, Synthetic
from datamodules.errors import CorpusError, InputError
from datamodules.folder import write_folder
from datamodules.storage.check import check_corpus
from datamodules.storage.description import KEYS, read_description
from datamodules.storage.features import open_features
from datamodules.storage.layouts import speaker_of
from datamodules.storage.problems import Strict
from datamodules.storage.writing import write_features
from tests.cli.running import CHECKOUT
from tests.datamodules.corpora import CLIPS, load_features, load_ids, write_clips, write_corpus

LABELS: dict[str, Any] = {"a": "calm", "b": "angry", "c": "calm", "d": "calm"}
CLIP: dict[str, Any] = {"name": "clips", "classes": ["calm", "angry"], "labels": LABELS}
FOLD = {"train": ["a", "b"], "val": ["c"], "test": ["d"]}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_clips(tmp_path / "corpus")
    return tmp_path / "corpus"


def rewrite(root: Path, **changes: Any) -> None:
    path = root / "corpus.json"
    content = json.loads(path.read_text(encoding="utf-8")) | changes
    path.write_text(json.dumps({name: value for name, value in content.items() if value is not None}), encoding="utf-8")


def test_name_classes_folds_and_speakers_are_the_corpuss_own(root: Path) -> None:
    data = Folder(str(root), fold=2)
    assert data.corpus_name == "Folder-clips"
    assert data.class_names == list(CLIPS)
    assert data.task == {"name": "classification"}
    assert data.monitor == "UA"
    assert data.feature_dims == [5, 6, 7]
    assert {speaker_of(f"take {take}/é00", data.corpus_layout) for take in range(4)} == {"S0", "S1", "S2", "S3"}
    with pytest.raises(InputError, match=r"^fold 3: Folder-clips has folds 1\.\.2\.$"):
        Folder(str(root), fold=3)


def test_frames_and_labels_are_those_of_the_files(root: Path) -> None:
    data = Folder(str(root))
    data.setup("fit")
    batches = list(data.in_order("test"))
    ids = load_ids(root, 1, "tst")
    assert len(ids) == 9
    labels = np.load(root / "target" / "1" / "tst_label.npy")
    for modality, name in enumerate(("A/audio.h5", "V/visual.h5", "L/text.h5")):
        frames = dict(zip(ids, load_features(root / name, ids), strict=True))
        for batch in batches:
            for row, utterance in enumerate(batch.utterances):
                length = int(batch.lengths[row, modality])
                assert length == len(frames[utterance])
                if modality:  # audio is normalised
                    np.testing.assert_array_equal(batch.frames[modality][row, :length].numpy(), frames[utterance])
                assert int(batch.labels[row]) == labels[ids.index(utterance)]


def test_features_on_disk_are_the_same_batches(root: Path) -> None:
    in_memory, on_disk = Folder(str(root)), Folder(str(root), memory_budget_gb=0)
    for data in (in_memory, on_disk):
        data.setup("fit")
    assert in_memory.fingerprint == on_disk.fingerprint
    for left, right in zip(in_memory.in_order("train"), on_disk.in_order("train"), strict=True):
        assert left.utterances == right.utterances


def test_a_whole_corpus_has_no_problem(root: Path) -> None:
    report = check_corpus(root, Folder.layout_of({"root": str(root)}))
    assert (report.lines, report.notes.found) == ([], [])
    assert report.summary.speakers == 4
    assert report.summary.utterances == 36


def test_all_utterances_are_read_without_targets_by_their_whole_ids(tmp_path: Path) -> None:
    ids = ["only/a", "only/b"]  # one group at the top of the file
    for folder, name in zip("AVL", ("audio", "visual", "text"), strict=True):
        write_features(tmp_path / folder / f"{name}.h5", ((each, np.ones((2, 3), np.float32)) for each in ids))
    (tmp_path / "corpus.json").write_text('{"format": 1, "name": "clips"}', encoding="utf-8")
    data = Folder(str(tmp_path))
    data.setup("predict")
    assert data.corpus.utterances == ids
    with pytest.raises(InputError, match=r"^Folder-clips: its utterances have no labels, so there are no folds"):
        Folder(str(tmp_path)).setup("fit")
    assert check_corpus(tmp_path, data.corpus_layout).lines == []


def test_a_group_that_leads_to_another_file_is_not_followed(root: Path, tmp_path: Path) -> None:
    import h5py

    write_features(tmp_path / "other.h5", [("é00", np.ones((2, 5), np.float32))])
    with h5py.File(root / "A" / "audio.h5", "r+") as file:
        del file["take 0"]
        file["take 0"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/")
    with pytest.raises(CorpusError, match=r"audio\.h5: utterance take 0/é00: not in this file"):
        Folder(str(root)).setup("fit")


def test_groups_that_contain_themselves_are_read_once(root: Path) -> None:
    import h5py

    ids = [f"take {take}/é{number:02d}" for take in range(4) for number in range(9)]
    with h5py.File(root / "A" / "audio.h5", "r+") as file:
        file["take 0/again"] = file["take 0"]
        file["take 0/top"] = file["/"]
    Folder(str(root)).setup("fit")
    opened = open_features(root / "A" / "audio.h5", Strict(), in_folders=True)
    assert opened is not None
    with opened as features:
        assert features.names == sorted([*ids, "take 0/again", "take 0/top"])


def test_values_on_a_scale(tmp_path: Path) -> None:
    labels = {"a": -3.0, "b": 0.5, "c": 3.0, "d": 1.25}
    ids = list(labels)
    for folder, name in zip("AVL", ("audio", "visual", "text"), strict=True):
        random = np.random.default_rng(0)
        frames = (random.standard_normal((2, 3), dtype=np.float32) for _ in ids)
        write_features(tmp_path / folder / f"{name}.h5", zip(ids, frames, strict=True))
    write_folder(tmp_path, name="ratings", labels=labels, scale=(-3, 3), folds=[FOLD], monitor="Corr")
    data = Folder(str(tmp_path))
    data.setup("fit")
    assert data.task == {"name": "regression", "low": -3.0, "high": 3.0}
    assert (data.monitor, data.class_names) == ("Corr", [])
    assert [float(data.labels[index]) for index in data.indices("train")] == [-3.0, 0.5]
    rewrite(tmp_path, monitor=None)
    assert Folder(str(tmp_path)).monitor == "MAE"


# Leaks.


def test_a_speaker_in_train_and_test_is_refused(root: Path) -> None:
    content = json.loads((root / "corpus.json").read_text(encoding="utf-8"))
    rewrite(root, speakers=content["speakers"] | {"take 2/é00": "S0"})
    with pytest.raises(CorpusError, match=r"target/1: speaker S0 is in train and in test; the test is leaked"):
        Folder(str(root)).setup("fit")
    Folder(str(root), allow_shared_speakers=True).setup("fit")
    Folder(str(root), fold=2).setup("fit")  # there S0 validates
    (line,) = check_corpus(root, Folder.layout_of({"root": str(root)})).lines
    assert "target/1: speaker S0 is in both train and test" in line


def test_an_utterance_without_the_speaker_that_others_have_is_refused(root: Path) -> None:
    content = json.loads((root / "corpus.json").read_text(encoding="utf-8"))["speakers"]
    del content["take 0/é03"]
    rewrite(root, speakers=content)
    with pytest.raises(CorpusError, match=r"target/1: utterance take 0/é03: no speaker of it in corpus\.json"):
        Folder(str(root)).setup("fit")
    lines = check_corpus(root, Folder.layout_of({"root": str(root)})).lines
    assert [line.partition(": ")[0][-8:] for line in lines] == ["target/1", "target/2"]
    rewrite(root, speakers=content | {"take 0/é03": None})
    Folder(str(root)).setup("fit")
    rewrite(root, speakers=None)
    Folder(str(root)).setup("fit")


def test_speakers_are_found_by_the_rule_of_matching(root: Path) -> None:
    content = json.loads((root / "corpus.json").read_text(encoding="utf-8"))["speakers"]
    rewrite(root, speakers={f"{name}.wav": who for name, who in content.items()} | {"take 2/é00.wav": "S0"})
    with pytest.raises(CorpusError, match="no speaker of it"):
        Folder(str(root)).setup("fit")
    with pytest.raises(CorpusError, match="speaker S0 is in train and in test"):
        Folder(str(root), match_ids="suffix").setup("fit")


# Identity.


@pytest.mark.parametrize(
    "change",
    [{"name": "others"}, {"classes": ["calm", "happy", "très drôle"], "counts": None}, {"monitor": "F1"}],
)
def test_what_the_file_says_of_a_result_is_part_of_the_fingerprint(root: Path, change: dict[str, Any]) -> None:
    def fingerprint() -> str:
        data = Folder(str(root))
        data.setup("fit")
        return data.fingerprint

    before = fingerprint()
    rewrite(root, facts={"a note": 1})
    assert fingerprint() == before
    rewrite(root, **change)
    assert fingerprint() != before


def test_a_folder_is_never_called_as_a_published_corpus_is(root: Path) -> None:
    rewrite(root, name="IEMOCAP")
    assert Folder(str(root)).corpus_name == "Folder-IEMOCAP"


@pytest.mark.parametrize("corpus", [IEMOCAP, MSPIMPROV, Synthetic])
def test_a_class_refuses_the_description_of_another(root: Path, corpus: type[EmotionDataModule]) -> None:
    line = rf"corpus\.json: describes a corpus of Folder, not of {corpus.__name__}; give --data Folder, or move"
    with pytest.raises(CorpusError, match=line):
        corpus.layout_of({"root": str(root)})


def test_a_folder_refuses_the_description_of_iemocap(root: Path) -> None:
    rewrite(root, corpus="IEMOCAP", name="IEMOCAP")
    with pytest.raises(CorpusError, match=r"describes a corpus of IEMOCAP, not of Folder; give --data IEMOCAP"):
        Folder(str(root))


def test_a_class_made_from_another_reads_its_description(tmp_path: Path) -> None:
    class OwnIEMOCAP(IEMOCAP):
        """Somebody's."""

    write_corpus(tmp_path)
    named = {"audio": "wav2vec", "text": "minilm"}
    content = {"format": 1, "corpus": "IEMOCAP", "name": "IEMOCAP", "features": named}
    (tmp_path / "corpus.json").write_text(json.dumps(content), encoding="utf-8")
    assert OwnIEMOCAP.layout_of({"root": str(tmp_path)}).feature_names == ("wav2vec", "denseface", "minilm")


def test_features_of_an_extraction_need_no_option(tmp_path: Path) -> None:
    write_corpus(tmp_path)
    (tmp_path / "V" / "denseface.h5").rename(tmp_path / "V" / "face-hog.h5")
    content = {"format": 1, "corpus": "IEMOCAP", "name": "IEMOCAP", "features": {"visual": "face-hog"}}
    (tmp_path / "corpus.json").write_text(json.dumps(content), encoding="utf-8")
    data = IEMOCAP(str(tmp_path))
    data.setup("fit")
    assert data.corpus_layout.feature_names == ("comparE", "face-hog", "bert_large")
    assert data.checkpoint_record()["feature_names"] == ["comparE", "face-hog", "bert_large"]
    with pytest.raises(CorpusError, match=r"V/denseface\.h5: does not exist"):
        IEMOCAP(str(tmp_path), visual_features="denseface").setup("fit")


# Without a description.


def test_a_folder_without_one_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(CorpusError) as caught:
        Folder(str(tmp_path))
    line = str(caught.value)
    assert line.startswith(f"{tmp_path}/corpus.json: does not exist")
    assert "extract" in line
    assert "datamodules.folder.write_folder" in line
    assert "docs/your_own_corpus.md" in line
    with pytest.raises(CorpusError, match="nowhere: does not exist; give the folder"):
        Folder(str(tmp_path / "nowhere"))


def test_the_guide_is_true(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    guide = (CHECKOUT / "docs" / "your_own_corpus.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"```python\n(.*?)```", guide, flags=re.DOTALL)
    (by_hand,) = re.findall(r"```json\n(.*?)```", guide, flags=re.DOTALL)
    exec(program, {})
    written = read_description(Path("ROOT"))
    data = Folder("ROOT", fold=2)
    data.setup("fit")
    assert check_corpus(Path("ROOT"), data.corpus_layout).lines == []
    Path("ROOT/corpus.json").write_text(by_hand, encoding="utf-8")
    assert read_description(Path("ROOT")) == written
    entries = re.findall(r"^\| `(\w+)` \| ", guide, flags=re.MULTILINE)
    assert sorted(entries) == sorted(KEYS)


def test_it_is_a_corpus_of_the_library() -> None:
    assert datamodules.CORPORA["Folder"] == "folder"


# Written by hand.


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"folds": [FOLD | {"test": ["d", "a"]}]}, "utterance a: more than once in fold 1; keep it in one split"),
        ({"folds": [FOLD | {"test": ["d", "d"]}]}, "utterance d: more than once in fold 1"),
        ({"folds": [FOLD, FOLD | {"test": ["e"]}]}, "utterance e: in fold 2, but it has no label; give its label"),
        ({"folds": [{"train": ["a"], "test": ["d"]}]}, "fold 1 has no val utterance; give at least one"),
        ({"labels": LABELS | {"b": "furious"}}, "utterance b: its label is none of calm, angry; give"),
        (
            {"labels": dict.fromkeys("bcd", 0.0) | {"a": 4.0}, "classes": [], "scale": (-3, 3)},
            "utterance a: label 4.0 is out",
        ),
        ({"classes": ["calm", "angry", "calm"]}, "has the class calm twice"),
        ({"classes": ["calm"], "labels": dict.fromkeys("abcd", "calm")}, "has 1 classes, where 2 to 1000"),
        ({"labels": LABELS | {"a\n": "calm"}}, r"utterance a\n: an id with control characters"),
        ({"speakers": {"a": ""}}, "has '' as speaker of a, not text"),
        ({"features": {"video": "x"}}, "has features of 'video', where there are audio, visual, text"),
        ({"name": " "}, "has ' ' as name, not text"),
    ],
)
def test_what_cannot_be_used_is_not_written(tmp_path: Path, changes: dict[str, Any], line: str) -> None:
    values: dict[str, Any] = {**CLIP, "folds": [FOLD], **changes}
    with pytest.raises(CorpusError) as caught:
        write_folder(tmp_path, **values)
    assert line in str(caught.value)
    assert str(caught.value).isprintable()
    assert not list(tmp_path.iterdir())
