"""Invented recordings say so, from the maker to the table of results."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from datamodules import IEMOCAP
from datamodules.extraction.description import write_description
from datamodules.extraction.index import index_of
from datamodules.extraction.recordings import INVENTED
from datamodules.storage.writing import write_features
from ifmmin.results.results import corpus_title

LABELS = "% a comment\n\n[0.0000 - 1.0000]\tSes01F_impro01_F000\tang\t[2, 3, 3]\n"


def release(folder: Path, invented: bool) -> Path:
    (folder / "Session1/dialog/EmoEvaluation").mkdir(parents=True)
    (folder / "Session1/dialog/EmoEvaluation/Ses01F_impro01.txt").write_text(LABELS)
    if invented:
        (folder / INVENTED).write_text("made up\n")
    return folder


def extracted(folder: Path, invented: bool) -> IEMOCAP:
    index = index_of("IEMOCAP", release(folder / "raw", invented))
    out = folder / "out"
    for name in ("A/comparE", "V/face-hog", "L/minilm"):
        write_features(out / f"{name}.h5", [("Ses01F_impro01_F000", np.ones((2, 3), np.float32))])
    write_description(out, index, {"audio": "comparE", "visual": "face-hog", "text": "minilm"})
    return IEMOCAP(root=str(out))


def test_features_of_invented_recordings_are_no_corpus(tmp_path: Path) -> None:
    data = extracted(tmp_path, invented=True)
    assert data.synthetic and data.invented
    title = corpus_title(data.corpus_name, data.synthetic, data.invented)
    assert title == "IEMOCAP made of invented recordings (not a corpus result)"


def test_features_of_other_recordings_are(tmp_path: Path) -> None:
    data = extracted(tmp_path, invented=False)
    assert not data.synthetic and not data.invented
    assert not IEMOCAP.synthetic  # it is said of one folder, not of the class


def test_the_name_tells_only_where_a_record_does_not() -> None:
    assert "invented recordings" in corpus_title("Mine", is_synthetic=True, invented=True)
    assert corpus_title("IEMOCAP", is_synthetic=True, invented=False).startswith("built-in synthetic corpus IEMOCAP")
    for name in ("IEMOCAP", "MSP-IMPROV", "Folder-clips"):
        assert corpus_title(name, is_synthetic=True) == f"{name} made of invented recordings (not a corpus result)"
    assert "invented" not in corpus_title("Synthetic", is_synthetic=True)


def test_the_index_says_why(tmp_path: Path) -> None:
    assert INVENTED in index_of("IEMOCAP", release(tmp_path, invented=True)).notes[0]


def test_a_manifest_among_invented_clips_is_one(tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_text("id,media,text,label,speaker\na,,Hello.,calm,Ann\n")
    (tmp_path / INVENTED).write_text("made up\n")
    assert index_of("clips", tmp_path / "manifest.csv").facts["invented"] is True
    assert index_of("clips", tmp_path).facts["invented"] is True
