"""Whatever label files, transcripts and manifests hold, the outcome is an index whose problems are one line each."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from datamodules.extraction.index import index_of
from datamodules.extraction.recordings import Index
from tests.datamodules.extraction.index.trees import iemocap, label_block, msp_head, msp_improv, write

IEMOCAP_NAME, MSP_NAME = "Ses01F_impro01_F000", "MSP-IMPROV-S01H-F01-S-FM01"
MANIFEST = "id,media,text,label,speaker,start,end,half,fold\n"


LABELS = (label_block(IEMOCAP_NAME, "ang"), "[1.0 - 2.0]", "[nan - inf]\t", IEMOCAP_NAME, "\tsad", "\t", "\n", "[")
WORDS = (f"{IEMOCAP_NAME} [1-2]: Oh", IEMOCAP_NAME, "[", "]", ":", "\n", "Ses01F_impro01_FXX0 [1-2]: Hm")
HEADS = (msp_head(MSP_NAME, "A"), MSP_NAME, ".avi", ";", "A", "\n", "UTD-IMPROV-S01H-F01-S-FM02.avi; S;")
ROWS = ("a,x.mp4,Oh,joy,p1,0,1,left,1\n", "b,,Ah,rage,p2,,,,2\n", "c,,Ah,rage,p3,,,,3\n", ",", '"', "\n")


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return iemocap(tmp_path_factory.mktemp("iemocap"), {IEMOCAP_NAME: "sad"})


def text_like(*pieces: str) -> st.SearchStrategy[bytes]:
    """Pieces of the right grammar among arbitrary bytes."""
    return st.lists(st.sampled_from([piece.encode() for piece in pieces]) | st.binary(max_size=12)).map(b"".join)


def check(index: Index) -> None:
    names = [recording.utterance for recording in index.recordings]
    assert names == sorted(set(names))
    for splits in index.folds.values():
        assert {*splits} == {"train", "val", "test"}
        held = [name for ids in splits.values() for name in ids]
        assert len(held) == len(set(held)) and {*held} <= {*names}
    for problem in index.problems:
        assert re.fullmatch(r"[^\n\x1b]+; [^\n\x1b]+\.", str(problem))
    assert index.recordings or index.problems


@given(text_like(*LABELS))
def test_iemocap_labels(release: Path, content: bytes) -> None:
    path = release / "Session1/dialog/EmoEvaluation/Ses01F_impro01.txt"
    right = path.read_bytes()
    try:
        write(path, content)
        check(index_of("IEMOCAP", release, unlabelled=True))
    finally:
        write(path, right)


@given(text_like(*WORDS))
def test_iemocap_words(release: Path, content: bytes) -> None:
    write(release / "Session1/dialog/transcriptions/Ses01F_impro01.txt", content)
    index = index_of("IEMOCAP", release)
    check(index)
    assert [recording.label for recording in index.recordings] == ["sad"]


@given(text_like(*HEADS))
def test_msp_labels(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = msp_improv(Path(folder), {MSP_NAME: "A"})
        write(root / "Evalution.txt", content)
        check(index_of("MSPIMPROV", root, unlabelled=True))


@given(text_like(MANIFEST, *ROWS))
@example(MANIFEST.encode() + b"a," + b"x" * 5000 + b",,joy\n")
@example(MANIFEST.encode() + b"a,x\0y,Oh,joy\nb,,Ah,rage,p,1e999,,,1\nc,,Ah,joy,p,,,," + b"9" * 5000)
def test_manifests(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / "manifest.csv", content)
        for folds in ("speaker", "column", 3):
            check(index_of("clips", folder, folds=folds))
