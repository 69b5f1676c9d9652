"""Invented corpora are what their truth says, and the same bytes each time."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import wave
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from datamodules.errors import InputError
from datamodules.extraction.index import index_of
from datamodules.extraction.index.msp_improv import SCENARIOS
from datamodules.extraction.invented import CORPORA, Options, make
from datamodules.extraction.recordings import INVENTED
from tests.cli.running import CHECKOUT


def truth(root: Path) -> dict[str, dict[str, Any]]:
    read = json.loads((root.parent / f"{root.name}.truth.json").read_text())
    return {utterance["name"]: utterance for utterance in read["utterances"]}


@pytest.mark.parametrize(
    ("corpus", "fixture", "options"),
    [
        ("IEMOCAP", "raw_iemocap", {"unlabelled": True}),
        ("MSPIMPROV", "raw_msp", {"unlabelled": True, "scenarios": "".join(SCENARIOS)}),
        ("clips", "raw_clips", {}),
    ],
)
def test_the_index_agrees_with_the_truth(
    request: pytest.FixtureRequest, corpus: str, fixture: str, options: dict[str, Any]
) -> None:
    root: Path = request.getfixturevalue(fixture)
    index = index_of(corpus, root, **options)
    expected = truth(root)
    # Sessions are missing from the small corpora, but nothing of an utterance.
    assert [str(problem) for problem in index.problems if problem.utterances] == []
    assert bool(index.problems) == (corpus != "clips")
    assert [recording.utterance for recording in index.recordings] == sorted(expected)
    for recording in index.recordings:
        about = expected[recording.utterance]
        assert recording.speaker == about["speaker"]
        assert recording.half == about["half"]
        assert recording.label == (None if about["emotion"] == "other" else about["emotion"])
        assert recording.text == (None if "text" in about["absent"] else about["text"])
        for source in (recording.sound, recording.picture):
            assert source is None or source.path.is_file()
        if corpus == "IEMOCAP":
            assert recording.picture is not None
            assert recording.picture.start == pytest.approx(about["start"], abs=1e-4)
            assert recording.picture.end == pytest.approx(about["end"], abs=1e-4)
    labelled = [about for about in expected.values() if about["emotion"] != "other"]
    assert Counter(recording.label for recording in index.recordings if recording.label) == Counter(
        about["emotion"] for about in labelled
    )


def test_the_label_is_not_the_one_in_the_name(raw_msp: Path) -> None:
    index = index_of("MSPIMPROV", raw_msp)
    named = {"A": "angry", "H": "happy", "N": "neutral", "S": "sad"}
    assert index.recordings
    assert not any(recording.label == named[recording.utterance[14]] for recording in index.recordings)


def test_the_same_options_give_the_same_bytes(tmp_path: Path, raw_clips: Path) -> None:
    make(tmp_path, "clips", Options(syllables=2, defects=True))
    ours, theirs = (
        {path.relative_to(root): hashlib.sha256(path.read_bytes()).hexdigest() for path in root.rglob("*.*")}
        for root in (tmp_path / "clips", raw_clips)
    )
    assert ours == theirs
    assert len(ours) > 10


def test_files_are_what_they_are_called(raw_iemocap: Path) -> None:
    wavs = sorted(raw_iemocap.rglob("sentences/wav/*/*.wav"))
    assert wavs
    for path in wavs:
        with wave.open(str(path)) as file:
            assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16000, 1, 2)
            assert file.getnframes() > 0
    assert {path.name for path in raw_iemocap.iterdir()} == {"Session1", "Session2", INVENTED}


def test_nothing_is_overwritten_unless_asked_for(tmp_path: Path) -> None:
    options = Options(syllables=2, sessions=1)
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "mine").touch()
    with pytest.raises(InputError, match="is there already; give --overwrite"):
        make(tmp_path, "clips", options)
    assert (tmp_path / "clips" / "mine").exists()
    make(tmp_path, "clips", options, overwrite=True)
    assert not (tmp_path / "clips" / "mine").exists()


def test_the_command(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "datamodules.extraction.invented", str(tmp_path), "--corpus", "clips"]
    done = subprocess.run([*words, "--syllables", "2"], cwd=CHECKOUT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "16 utterances of four classes" in done.stdout
    again = subprocess.run(words, cwd=CHECKOUT, capture_output=True, text=True, timeout=120)
    assert (again.returncode, again.stdout) == (1, "")
    assert again.stderr.count("\n") == 1


def test_every_corpus_has_a_folder_and_a_maker() -> None:
    assert [folder for folder, _ in CORPORA.values()] == ["IEMOCAP_full_release", "MSP-IMPROV", "clips"]
