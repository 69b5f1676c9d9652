"""Manifests of clips: their rows, their folds, and everything that may be wrong with them."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from datamodules.errors import InputError
from datamodules.extraction.index import index_of, published_counts
from datamodules.extraction.index.clips import index_clips
from datamodules.extraction.recordings import Source
from tests.datamodules.extraction.index.trees import by_id, found, lines, sets, touch, write


def manifest(folder: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    rows = list(rows)
    names = list(dict.fromkeys(name for row in rows for name in row))
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, restval="")
        writer.writeheader()
        writer.writerows(rows)
    return folder / "manifest.csv"


def clip(number: int, **more: object) -> dict[str, object]:
    row: dict[str, object] = {"id": f"c{number:02d}", "text": "Hello, you.", "label": ("joy", "rage")[number % 2]}
    return row | {"speaker": f"p{number // 4}"} | more


def test_rows_become_recordings(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.wav", "talks/long.mkv"):
        touch(tmp_path / name)
    path = manifest(
        tmp_path,
        [
            clip(0, media="a.mp4"),
            clip(4, media="talks\\long.mkv", audio="b.wav", start="1.5", end="3", half="Left"),
            clip(8, media=str(tmp_path / "a.mp4"), start="2", text="  So \n what "),
            clip(9, text="words alone"),
            clip(10, media="b.wav", label="", speaker=""),
        ],
    )
    index = index_of("clips", path)
    assert lines(index) == []
    recordings = by_id(index)
    assert recordings["c00"].sound == recordings["c00"].picture == Source(tmp_path / "a.mp4", 0.0, None)
    assert recordings["c04"].sound == Source(tmp_path / "b.wav", 1.5, 3.0)
    assert recordings["c04"].picture == Source(tmp_path / "talks/long.mkv", 1.5, 3.0)
    assert (recordings["c04"].half, recordings["c00"].half) == ("left", "whole")
    assert recordings["c08"].picture == Source(tmp_path / "a.mp4", 2.0, None)
    assert recordings["c08"].text == "So what"
    assert recordings["c09"].absent == {"audio": "no media", "visual": "no media"}
    assert (recordings["c10"].label, recordings["c10"].speaker) == (None, None)
    assert index.class_names == ("joy", "rage")
    assert (index.corpus, published_counts(index)) == ("Folder", {})
    assert "c10" not in {name for splits in index.folds.values() for ids in splits.values() for name in ids}
    assert "c10" not in by_id(index_clips(path, unlabelled=False))
    assert index_clips(tmp_path) == index


def test_a_missing_file_is_a_problem_and_an_absence(tmp_path: Path) -> None:
    touch(tmp_path / "a.mp4")
    rows = [clip(0, media="no.mp4"), clip(4, media="a.mp4", audio="no.wav"), clip(8), clip(9)]
    index = index_clips(manifest(tmp_path, rows))
    assert "c00: its media file does not exist" in found(index, "media file")
    assert "c04: its audio file does not exist" in found(index, "audio file")
    recordings = by_id(index)
    assert recordings["c00"].absent == {"audio": "no such file", "visual": "no such file"}
    assert recordings["c04"].absent == {"audio": "no such file"}
    assert (recordings["c00"].picture, recordings["c04"].sound) == (None, None)


def test_rows_that_are_wrong_are_all_named(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [clip(number, start="", end="", half="") for number in range(12)]
    rows[0]["id"] = ""
    rows[1]["id"] = "a/b"
    rows[2]["id"] = "a\x1b[2J"
    rows[3]["id"] = ".."
    rows[4]["id"] = "c05"  # the next one has it too
    rows[6]["start"] = "soon"
    rows[7] |= {"start": "2", "end": "1"}
    rows[8]["end"] = "nan"
    rows[9]["half"] = "upper"
    rows[10]["text"] = ""
    path = manifest(tmp_path, rows)
    with path.open("a") as file:
        file.write("c20,Hello, you.,joy,p1,,,left\n")  # a comma without quotes
    index = index_clips(path)
    assert [recording.utterance for recording in index.recordings] == ["c05", "c11"]
    for line in (
        "utterance line 2: has no id",
        "utterance a/b: an id with a slash, a control character or no letter (and 2 more utterances)",
        "utterance c05: listed more than once",
        "utterance c06: start and end are no times in seconds, start before end (and 2 more utterances)",
        "utterance c09: half is none of left, right and whole",
        "utterance c10: has neither media nor audio nor text",
        "utterance c20: has more cells than there are columns",
    ):
        found(index, line)
    assert all("\x1b" not in line and "\n" not in line for line in lines(index))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "does not name the columns id and media"),
        (b"name,media\nx,y\n", "does not name the columns id and media"),
        (b"id,speaker\nx,y\n", "does not name the columns id and media"),
        (b"id,text,text\nx,y,z\n", "has more than one column text"),
        (b"id,text\n", "has no row that can be used"),
        (b"id,text,label\na,Caf\xe9,joy\n", "has bytes that are no UTF-8"),
        (b'id,text,label\na,"' + b"x" * 200_000 + b'",joy\n', "line 2 is no CSV (field larger than field limit"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "does not name the columns"),
        ("id,text\na,b\n".encode("utf-16"), "does not name the columns"),
    ],
)
def test_manifests_that_are_none(tmp_path: Path, content: bytes, words: str) -> None:
    write(tmp_path / "manifest.csv", content)
    index = index_clips(tmp_path)
    assert words in "\n".join(lines(index))
    assert index.folds == {}


def test_no_manifest(tmp_path: Path) -> None:
    assert f"{tmp_path / 'manifest.csv'}: does not exist; give the manifest" in found(index_clips(tmp_path), "manifest")
    assert "does not exist" in found(index_clips(tmp_path / "other.csv"), "other.csv")


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("head", ["ID{0}Text{0} LABEL {0}speaker{0}mood", "\ufeffid{0}text{0}label{0}speaker{0}mood"])
def test_delimiters_capitals_and_a_byte_order_mark(tmp_path: Path, delimiter: str, head: str) -> None:
    rows = [delimiter.join((f"c{number}", "Oh", "ab"[number % 2], f"p{number // 2}", "?")) for number in range(6)]
    write(tmp_path / "manifest.csv", "\r\n".join([head.format(delimiter), *rows, "", ""]))
    index = index_clips(tmp_path)
    assert lines(index) == []
    assert len(index.recordings) == 6
    assert len(index.folds) == 3
    assert "columns that are not read: mood" in index.notes


def test_each_speaker_is_tested_and_the_next_validates(tmp_path: Path) -> None:
    index = index_clips(manifest(tmp_path, [clip(number) for number in range(16)]), "speaker")
    expected = {}
    for fold in range(4):
        splits: dict[str, set[str]] = {"train": set(), "val": set(), "test": set()}
        for number in range(16):
            speaker = number // 4
            split = "test" if speaker == fold else "val" if speaker == (fold + 1) % 4 else "train"
            splits[split].add(f"c{number:02d}")
        expected[fold + 1] = splits
    assert sets(index.folds) == expected
    assert index.facts["folds"] == "speaker"
    assert index_clips(tmp_path) == index  # by default, where no column says otherwise


def test_folds_by_speaker_need_three_speakers_and_names(tmp_path: Path) -> None:
    index = index_clips(manifest(tmp_path, [clip(number) for number in range(8)]))
    assert index.folds == {}
    assert "has 2 speakers, where folds need 3" in found(index, "speakers")
    index = index_clips(manifest(tmp_path, [clip(number) for number in range(12)] + [clip(12, speaker="")]))
    assert "c12: has no speaker" in found(index, "no speaker")
    assert len(index.folds) == 3


@pytest.mark.parametrize("folds", [3, 5, "4"])
def test_a_number_of_folds_keeps_speakers_together_and_deals_classes_evenly(tmp_path: Path, folds: int | str) -> None:
    rows = [clip(number, speaker=f"p{number * 7 % 13}") for number in range(130)]
    index = index_clips(manifest(tmp_path, rows), folds)
    assert lines(index) == []
    speaker, label = ({str(row["id"]): row[column] for row in rows} for column in ("speaker", "label"))
    assert len(index.folds) == int(folds)
    tested: list[str] = []
    for fold, splits in index.folds.items():
        assert sorted(name for ids in splits.values() for name in ids) == sorted(speaker)
        people = [{speaker[name] for name in splits[split]} for split in ("train", "val", "test")]
        assert sum(map(len, people)) == 13
        assert set(splits["val"]) == set(index.folds[fold % int(folds) + 1]["test"])
        tested += splits["test"]
        counts = Counter(label[name] for name in splits["test"])
        assert abs(counts["joy"] - counts["rage"]) <= 10
    assert sorted(tested) == sorted(speaker)


def test_a_number_of_folds_without_speakers(tmp_path: Path) -> None:
    index = index_clips(manifest(tmp_path, [clip(number, speaker="") for number in range(9)]), 3)
    assert "9 labelled rows have no speaker, so one person may be in train and test" in found(index, "speaker")
    assert [len(splits["test"]) for splits in index.folds.values()] == [3, 3, 3]
    index = index_clips(manifest(tmp_path, [clip(number) for number in range(8)]), 3)
    assert "has 2 speakers, too few for 3 folds" in found(index, "folds")
    assert index.folds == {}


def test_the_column_split_is_one_fold(tmp_path: Path) -> None:
    names = ("train", "trn", "VAL", "dev", "test", "tst")
    index = index_clips(manifest(tmp_path, [clip(number, split=name) for number, name in enumerate(names)]))
    assert lines(index) == []
    assert index.facts["folds"] == "column"
    assert index.folds == {1: {"train": ("c00", "c01"), "val": ("c02", "c03"), "test": ("c04", "c05")}}


def test_a_column_split_that_is_wrong(tmp_path: Path) -> None:
    names = ("train", "later", "", "val")
    index = index_clips(manifest(tmp_path, [clip(number, split=name) for number, name in enumerate(names)]))
    assert "c01: split is none of train, val and test" in found(index, "none of train")
    assert "c02: has no split or fold" in found(index, "no split or fold")
    assert "no labelled row has the split test" in found(index, "has the split")
    index = index_clips(manifest(tmp_path, [clip(number) for number in range(8)]), "column")
    assert "has no column split or fold that is filled" in found(index, "filled")
    assert index.folds == {}


def test_the_column_fold_is_tested_in_turn(tmp_path: Path) -> None:
    numbers = [1, 1, 2, 2, 10, 10, "x", 0]
    index = index_clips(manifest(tmp_path, [clip(number, fold=fold) for number, fold in enumerate(numbers)]))
    assert sets(index.folds) == {
        1: {"test": {"c00", "c01"}, "val": {"c02", "c03"}, "train": {"c04", "c05"}},
        2: {"test": {"c02", "c03"}, "val": {"c04", "c05"}, "train": {"c00", "c01"}},
        3: {"test": {"c04", "c05"}, "val": {"c00", "c01"}, "train": {"c02", "c03"}},
    }
    assert "c06: fold is no number from 1 (and 1 more utterance)" in found(index, "no number")
    assert "folds are 1, 2, 10, and become 1 to 3 in this order" in found(index, "become")


def test_both_columns(tmp_path: Path) -> None:
    rows = [clip(number, split=("train", "val", "test")[number % 3], fold=1) for number in range(6)]
    index = index_clips(manifest(tmp_path, rows))
    assert "has both columns split and fold; split is taken" in found(index, "both")
    assert len(index.folds) == 1


@pytest.mark.parametrize("folds", ["people", 2, 0, -3, "1", "", "9" * 5000])
def test_folds_that_are_none(tmp_path: Path, folds: int | str) -> None:
    with pytest.raises(InputError, match="give speaker, column, or a number of at least 3"):
        index_clips(tmp_path, folds)


def test_labels_that_teach_nothing(tmp_path: Path) -> None:
    index = index_clips(manifest(tmp_path, [clip(number, label="joy") for number in range(12)]))
    assert "all labels are joy, so there is nothing to learn" in found(index, "joy")
    assert (index.folds, len(index.recordings)) == ({}, 12)
    index = index_clips(manifest(tmp_path, [{"id": "a", "text": "Oh"}]))
    assert "no row has a label" in found(index, "label")
    assert (index.class_names, len(index.recordings)) == ((), 1)
