"""IEMOCAP's folders, names and label lines, and everything that may be wrong with them."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest

from datamodules.extraction.index import index_of, published_counts
from datamodules.extraction.index.iemocap import index_iemocap
from datamodules.extraction.recordings import Source
from tests.datamodules.extraction.index.trees import (
    by_id,
    every_speaker,
    found,
    iemocap,
    lines,
    naive_folds,
    write,
)

F, M = "Ses01F_impro01", "Ses01M_script01_1b"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return iemocap(tmp_path / "IEMOCAP_full_release", every_speaker())


def evaluation(root: Path, dialogue: str) -> Path:
    return root / f"Session{dialogue[4]}/dialog/EmoEvaluation/{dialogue}.txt"


def transcript(root: Path, dialogue: str) -> Path:
    return root / f"Session{dialogue[4]}/dialog/transcriptions/{dialogue}.txt"


def test_a_tree_without_defects(root: Path) -> None:
    index = index_of("IEMOCAP", root)
    assert lines(index) == []
    assert index.corpus == "IEMOCAP"
    assert index.class_names == ("angry", "happy", "neutral", "sad")
    assert [recording.utterance for recording in index.recordings] == sorted(
        name for name, category in every_speaker().items() if category != "fru"
    )
    assert Counter(recording.label for recording in index.recordings) == dict.fromkeys(index.class_names, 20)
    first = by_id(index)["Ses01F_impro01_F001"]
    folder = root / "Session1"
    assert first.sound == Source(folder / "sentences/wav/Ses01F_impro01/Ses01F_impro01_F001.wav")
    assert first.picture == Source(folder / "dialog/avi/DivX/Ses01F_impro01.avi", 1.5, 2.25)
    assert (first.text, first.label, first.speaker) == ("Hello.", "happy", "Ses01F")
    assert first.absent == {}


def test_excitement_is_happiness_and_other_categories_are_left_out(tmp_path: Path) -> None:
    categories = ("ang", "hap", "exc", "neu", "sad", "fru", "fea", "sur", "dis", "oth", "xxx")
    names = {f"{F}_F{number:03d}": category for number, category in enumerate(categories)}
    index = index_iemocap(iemocap(tmp_path, names))
    assert [recording.label for recording in index.recordings] == ["angry", "happy", "happy", "neutral", "sad"]
    every = index_iemocap(tmp_path, unlabelled=True)
    assert [recording.label for recording in every.recordings][5:] == [None] * 6
    assert {name for splits in every.folds.values() for ids in splits.values() for name in ids} == set(
        by_id(index).keys()
    )


def test_the_one_with_the_markers_is_on_the_left(root: Path) -> None:
    recordings = by_id(index_iemocap(root))
    assert recordings["Ses02F_impro01_F000"].half == "left"
    assert recordings["Ses02F_impro01_M000"].half == "right"
    assert recordings["Ses02M_impro01_M000"].half == "left"
    assert recordings["Ses02M_impro01_F000"].half == "right"


def test_folds_and_speakers_are_those_of_a_plain_loop(root: Path) -> None:
    index = index_iemocap(root)
    speakers = {name: name[:5] + name[-4] for name, category in every_speaker().items() if category != "fru"}
    assert {recording.utterance: recording.speaker for recording in index.recordings} == speakers
    expected = naive_folds(speakers, [(f"Ses0{session}M", f"Ses0{session}F") for session in range(1, 6)])
    assert {
        fold: {split: set(ids) for split, ids in splits.items()} for fold, splits in index.folds.items()
    } == expected
    assert all(list(ids) == sorted(ids) for splits in index.folds.values() for ids in splits.values())


def test_what_a_mac_leaves_is_no_label_file(root: Path) -> None:
    before = index_iemocap(root)
    for place in ("EmoEvaluation", "transcriptions"):
        write(root / f"Session1/dialog/{place}/._{F}.txt", b"\x00\x05\x16\x07\xff\xfe[0 - 1]\tx")
    write(root / f"Session1/sentences/wav/{F}/._{F}_F000.wav", b"\x00\x05")
    write(root / f"Session1/dialog/avi/DivX/._{F}.avi", b"\x00\x05")
    assert index_iemocap(root) == before


def test_bytes_that_are_no_text_do_not_matter_beside_the_labels(root: Path) -> None:
    path = evaluation(root, F)
    path.write_bytes(path.read_bytes().replace(b"(hm)", b"(\xff\xfe\x00)"))
    assert lines(index_iemocap(root)) == []
    path = transcript(root, F)
    path.write_bytes(path.read_bytes().replace(b"Hello.", b"Caf\xe9."))
    assert by_id(index_iemocap(root))[f"{F}_F000"].text == "Caf\ufffd."


def test_lines_of_nobody_and_unlabelled_words_are_passed_over(root: Path) -> None:
    path = transcript(root, F)
    text = path.read_text()
    path.write_text(f"M: Hm.\n{F}_MXX0 [000.1000-000.2000]: [LAUGHTER]\n{F}_FXX12 [1-2]: So.\nF: Yes.\n\n{text}")
    index = index_iemocap(root)
    assert lines(index) == []
    assert by_id(index)[f"{F}_F000"].text == "Hello."


def test_the_first_line_of_an_id_counts(root: Path) -> None:
    path = transcript(root, F)
    path.write_text(path.read_text() + f"{F}_F000 [000.5000-001.2500]: Again.\n")
    assert by_id(index_iemocap(root))[f"{F}_F000"].text == "Hello."


@pytest.mark.parametrize(
    ("words", "removed", "kept"),
    [
        ("[LAUGHTER] Oh,  [BREATHING] well.", "Oh, well.", "[LAUGHTER] Oh, [BREATHING] well."),
        ("[GARBAGE]", None, "[GARBAGE]"),
        ("  ", None, None),
        ("Half [open", "Half [open", "Half [open"),
    ],
)
def test_tags(tmp_path: Path, words: str, removed: str | None, kept: str | None) -> None:
    name = f"{F}_F000"
    root = iemocap(tmp_path, {name: "ang"}, {name: words})
    without, as_they_are = (by_id(index_iemocap(root, keep_tags=keep))[name] for keep in (False, True))
    assert (without.text, as_they_are.text) == (removed, kept)
    if removed is None:
        assert without.absent == {"text": "only tags" if words.strip() else "no transcript"}


def test_an_utterance_without_words_wav_or_avi(root: Path) -> None:
    path = transcript(root, F)
    path.write_text("".join(line for line in path.open() if "F000" not in line))
    (root / f"Session1/sentences/wav/{F}/{F}_F001.wav").unlink()
    (root / "Session2/dialog/avi/DivX/Ses02F_impro01.avi").unlink()
    index = index_iemocap(root)
    recordings = by_id(index)
    assert recordings[f"{F}_F000"].absent == {"text": "no transcript"}
    assert recordings[f"{F}_F001"].absent == {"audio": "no sound file"}
    assert recordings[f"{F}_F001"].sound is None
    assert recordings["Ses02F_impro01_M000"].absent == {"visual": "no video"}
    assert f"utterance {F}_F001: labelled, but has no wav" in found(index, "no wav")
    assert "Ses02F_impro01_F000: its dialogue has no avi (and 7 more utterances)" in found(index, "no avi")
    assert len(index.problems) == 2


def test_files_without_a_label(root: Path) -> None:
    write(root / f"Session1/sentences/wav/{F}/{F}_F099.wav", b"")
    path = transcript(root, F)
    path.write_text(path.read_text() + f"{F}_F098 [1-2]: Hello.\n")
    index = index_iemocap(root)
    assert f"{F}_F099: has a wav, but no label" in found(index, "has a wav")
    assert f"{F}_F098: has words, but no label" in found(index, "has words")


def test_label_lines_that_are_wrong_are_all_named(root: Path) -> None:
    with evaluation(root, F).open("a") as file:
        file.write(f"\n[1.0 - 2.0]\t{F}_F000\tsad\t[1, 1, 1]\n")  # twice
        file.write(f"\n[1.0 - 2.0]\t{F}_F010\tglad\t[1, 1, 1]\n")  # unknown
        file.write(f"\n[3.0 - 2.0]\t{F}_F011\tsad\t[1, 1, 1]\n")  # ends before it begins
        file.write(f"\n[nan - 2.0]\t{F}_F012\tsad\t[1, 1, 1]\n")
        file.write("\n[1.0 - 2.0]\tSes02F_impro01_F000\tsad\t[1, 1, 1]\n")  # of another session
        file.write("\n[1.0 - 2.0]\n")  # cut off
        file.write("\n[1.0 - 2.0]\thello\tsad\t[1, 1, 1]\n")
    index = index_iemocap(root)
    assert f"{F}_F000: labelled more than once" in found(index, "more than once")
    assert by_id(index)[f"{F}_F000"].label == "angry"
    assert f"{F}_F010: label 'glad' is unknown" in found(index, "'glad'")
    assert f"{F}_F011: its times are none" in found(index, "times are none")
    assert by_id(index)[f"{F}_F011"].picture is None
    assert by_id(index)[f"{F}_F012"].absent["visual"] == "no times"
    assert "Ses02F_impro01_F000: of another session" in found(index, "another session")
    assert len([line for line in lines(index) if "that is not [start - end]" in line]) == 2


def test_a_session_that_is_not_there(root: Path) -> None:
    shutil.rmtree(root / "Session3")
    index = index_iemocap(root)
    assert "Session3: does not exist; copy this session" in found(index, "Session3")
    assert "fold 5, 6 has no test utterance" in found(index, "no test")
    assert "fold 5, 6 has no val utterance" in found(index, "no val")
    assert len(index.problems) == 3
    assert len(index.recordings) == 64


@pytest.mark.parametrize(
    ("place", "modality", "reason"),
    [
        ("sentences/wav", "audio", "no sound file"),
        ("dialog/avi/DivX", "visual", "no video"),
        ("dialog/transcriptions", "text", "no transcript"),
    ],
)
def test_a_folder_that_is_not_there_is_one_line(root: Path, place: str, modality: str, reason: str) -> None:
    shutil.rmtree(root / "Session4" / place)
    index = index_iemocap(root)
    assert f"Session4/{place}: does not exist, so this session has no" in lines(index)[0]
    assert len(index.problems) == 1
    recordings = [recording for recording in index.recordings if recording.utterance.startswith("Ses04")]
    assert {recording.absent[modality] for recording in recordings} == {reason}


def test_a_tree_without_labels_is_unusable(root: Path) -> None:
    for path in root.rglob("EmoEvaluation/*.txt"):
        path.unlink()
    index = index_iemocap(root)
    assert (index.recordings, index.folds) == ((), {})
    assert [line for line in lines(index) if "EmoEvaluation: holds no label" in line] == lines(index)


def test_a_wrong_folder_is_one_line(tmp_path: Path) -> None:
    assert "does not exist; give the folder IEMOCAP_full_release" in found(index_iemocap(tmp_path / "no"), "exist")
    (tmp_path / "file").touch()
    assert "is not a folder" in found(index_iemocap(tmp_path / "file"), "file")
    (tmp_path / "IEMOCAP_full_release").mkdir()
    assert f"give {tmp_path / 'IEMOCAP_full_release'}" in found(index_iemocap(tmp_path), "no folder Session1..5")


def test_counts_are_compared_with_the_published_ones(root: Path) -> None:
    index = index_iemocap(root)
    assert index.notes[0].startswith(
        "angry 20, happy 20, neutral 20, sad 20: 80 in all; published: angry 1103, happy 1636"
    )
    assert "100 labelled utterances (published: 10039)" in index.notes[0]
    assert published_counts(index) == {"angry": 1103, "happy": 1636, "neutral": 1708, "sad": 1084}
    assert sum(published_counts(index).values()) == 5531


def full_release(root: Path, categories: dict[str, int]) -> Path:
    """151 dialogues of 10039 utterances, of which so many have each category."""
    labels = [category for category, count in categories.items() for _ in range(count)]
    labels += ["fru"] * (10039 - len(labels))
    dialogues = [f"Ses0{number % 5 + 1}{'FM'[number % 2]}_impro{number // 5:02d}" for number in range(151)]
    names = {
        f"{dialogues[number % 151]}_{'FM'[number // 151 % 2]}{number // 151:03d}": label
        for number, label in enumerate(labels)
    }
    return iemocap(root, names)


def test_a_tree_of_the_true_size(tmp_path: Path) -> None:
    right = {"ang": 1103, "hap": 595, "exc": 1041, "neu": 1708, "sad": 1084}
    index = index_iemocap(full_release(tmp_path / "right", right))
    assert len(index.recordings) == 5531
    assert lines(index) == []
    assert "151 dialogues of 151" in index.notes[1]
    off = index_iemocap(full_release(tmp_path / "off", right | {"ang": 1102}))
    assert "counts differ from the published ones (angry 1102, happy 1636" in found(off, "published")


def test_made_up_names_are_no_options() -> None:
    with pytest.raises(Exception, match="did you mean IEMOCAP") as error:
        index_of("iemocap", "x")
    assert "\n" not in str(error.value)
    with pytest.raises(Exception, match="there are IEMOCAP, MSPIMPROV, clips"):
        index_of("MELD", "x")
    with pytest.raises(Exception, match="IEMOCAP has no option scenarios; it has keep_tags, unlabelled"):
        index_of("IEMOCAP", "x", scenarios="S")
