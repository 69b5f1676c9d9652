"""What extraction says of a corpus is what a corpus class takes from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datamodules import IEMOCAP, Folder
from datamodules.errors import CorpusError
from datamodules.extraction.description import write_description
from datamodules.extraction.index import write_folds
from datamodules.extraction.recordings import Index, Recording
from datamodules.storage.check import check_corpus
from datamodules.storage.description import read_description
from datamodules.storage.layouts import FOLDERS, speaker_of
from datamodules.storage.writing import write_features

FEATURES = {"audio": "comparE", "visual": "face-hog", "text": "minilm"}
WIDTHS = {"audio": 5, "visual": 6, "text": 7}


def index(corpus: str = "Folder", **changes: Any) -> Index:
    """Three speakers, two of whose utterances are in the folds."""
    names = [f"clip{number}" for number in range(7)]
    recordings = tuple(
        Recording(name, label=("angry", "calm", None)[number % 3], speaker=("Ann", "Bob", "Cem")[number // 2 % 3])
        for number, name in enumerate(names)
    )
    folds = {1: {"train": ("clip0", "clip1"), "val": ("clip3",), "test": ("clip4", "clip6")}}
    values: dict[str, Any] = {"class_names": ("angry", "calm"), "recordings": recordings, "folds": folds}
    return Index(**{"corpus": corpus, "facts": {"folds": "column"}, **values, **changes})


def write_all(out: Path, made: Index) -> None:
    random = np.random.default_rng(0)
    for folder, (modality, name) in zip(FOLDERS, FEATURES.items(), strict=True):
        frames = (random.standard_normal((3, WIDTHS[modality]), dtype=np.float32) for _ in made.recordings)
        names = (each.utterance for each in made.recordings)
        write_features(out / folder / f"{name}.h5", zip(names, frames, strict=True))
    write_folds(out, made, [each.utterance for each in made.recordings])
    write_description(out, made, FEATURES)


def test_a_folder_takes_everything_from_it(tmp_path: Path) -> None:
    write_all(tmp_path, index())
    layout = Folder.layout_of({"root": str(tmp_path)})
    assert layout.name == "Folder-clips"
    assert layout.class_names == ("angry", "calm")
    assert (layout.folds, layout.feature_names) == (1, ("comparE", "face-hog", "minilm"))
    who = [speaker_of(f"clip{number}", layout) for number in range(7)]
    assert who == ["Ann", "Ann", "Bob", "Bob", "Cem", "Cem", "Ann"]
    report = check_corpus(tmp_path, layout)
    (line,) = report.lines  # Ann says clip0 and clip6
    assert "speaker Ann is in both train and test" in line
    (note,) = report.notes.found  # by hand: clip3, angry, is all of val
    assert note.what == "no utterance of val is calm"


def test_counts_are_of_what_target_files_list(tmp_path: Path) -> None:
    write_description(tmp_path, index(), FEATURES, usable=["clip0", "clip3", "clip4", "clip6"])
    found = read_description(tmp_path)
    assert found is not None
    # By hand: clip0 angry, clip1 calm, clip3 angry, clip4 calm, clip6 angry.
    assert found.counts == {
        1: {
            "train": {"angry": 1, "calm": 0},
            "val": {"angry": 1, "calm": 0},
            "test": {"angry": 1, "calm": 1},
        }
    }
    assert found.facts == {"folds": "column"}


def test_names_of_an_earlier_extraction_stay(tmp_path: Path) -> None:
    write_description(tmp_path, index(), FEATURES)
    write_description(tmp_path, index(), {"visual": "clip-vit"})
    found = read_description(tmp_path)
    assert found is not None
    assert found.feature_names == {**FEATURES, "visual": "clip-vit"}


def test_the_bytes_are_the_same_again(tmp_path: Path) -> None:
    first = write_description(tmp_path, index(), FEATURES).read_bytes()
    assert write_description(tmp_path, index(), FEATURES).read_bytes() == first
    assert str(tmp_path).encode() not in first


def test_clips_without_labels_are_described_too(tmp_path: Path) -> None:
    write_description(tmp_path, index(class_names=("angry",), folds={}), FEATURES)
    layout = Folder.layout_of({"root": str(tmp_path)})
    assert (layout.folds, layout.class_names) == (0, ())


def test_folds_of_a_folder_are_numbered_from_1(tmp_path: Path) -> None:
    folds = {2: {"train": ("clip0",), "val": ("clip3",), "test": ("clip4",)}}
    with pytest.raises(CorpusError, match=r"corpus.json: folds 2, where they are called 1..1; number the folds from 1"):
        write_description(tmp_path, index(folds=folds), FEATURES)


def test_a_class_takes_the_names_of_features_and_keeps_the_rest(tmp_path: Path) -> None:
    write_description(tmp_path, index("IEMOCAP", folds={3: {"test": ("clip0",)}}), FEATURES)
    layout = IEMOCAP.layout_of({"root": str(tmp_path), "text_features": "bert"})
    assert layout.feature_names == ("comparE", "face-hog", "bert")
    assert (layout.name, layout.folds, layout.description) == ("IEMOCAP", 10, None)
