"""MSP-IMPROV's two trees, names and label lines, and everything that may be wrong with them."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest

from datamodules.errors import InputError
from datamodules.extraction.index import index_of, published_counts
from datamodules.extraction.index.msp_improv import index_msp_improv
from datamodules.extraction.recordings import Source
from tests.datamodules.extraction.index.trees import (
    by_id,
    every_actor,
    found,
    lines,
    msp_head,
    msp_improv,
    naive_folds,
    touch,
    write,
)

NAME = "MSP-IMPROV-S01H-F01-S-FM01"  # to be acted: happiness; perceived: anger
CLASSES = {"A": "angry", "H": "happy", "N": "neutral", "S": "sad"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return msp_improv(tmp_path / "MSP-IMPROV", every_actor())


def taken(scenarios: str = "S") -> dict[str, str]:
    return {
        name: CLASSES[letter]
        for name, letter in every_actor().items()
        if letter in CLASSES and name.split("-")[4] in scenarios
    }


def test_a_tree_without_defects(root: Path) -> None:
    index = index_of("MSPIMPROV", root)
    assert lines(index) == []
    assert (index.corpus, index.class_names) == ("MSPIMPROV", ("angry", "happy", "neutral", "sad"))
    assert {recording.utterance: recording.label for recording in index.recordings} == taken()
    assert [recording.utterance for recording in index.recordings] == sorted(taken())
    first = by_id(index)[NAME]
    place = Path("session1/S01H/S")
    assert first.sound == Source(root / "Audio" / place / f"{NAME}.wav")
    assert first.picture == Source(root / "Video" / place / f"{NAME}.avi")
    assert (first.text, first.half, first.speaker) == ("I see.", "whole", "F01")


def test_the_label_is_what_was_perceived_not_what_was_to_be_acted(root: Path) -> None:
    for recording in index_msp_improv(root).recordings:
        assert recording.label != CLASSES[recording.utterance.split("-")[2][-1]]
    assert by_id(index_msp_improv(root))[NAME].label == "angry"


@pytest.mark.parametrize("label_file", ["Evalution.txt", "Evaluation.txt", "Labels/Evaluation.txt"])
@pytest.mark.parametrize("layout", ["split", "flat"])
def test_both_trees_and_both_spellings(tmp_path: Path, label_file: str, layout: str) -> None:
    index = index_msp_improv(msp_improv(tmp_path, every_actor(), label_file, layout))
    assert lines(index) == []
    assert {recording.utterance: recording.label for recording in index.recordings} == taken()
    assert all(recording.sound and recording.picture and recording.text for recording in index.recordings)


def test_transcripts_in_deeper_folders_and_those_of_a_recogniser(root: Path) -> None:
    human = root / "Human_transcriptions"
    human.mkdir()
    shutil.move(root / "All_human_transcriptions", human / "All_human_transcriptions")
    write(root / "ASR" / f"{NAME}.txt", "Icy.")
    index = index_msp_improv(root)
    assert lines(index) == []
    assert by_id(index)[NAME].text == "I see."


@pytest.mark.parametrize(
    "numbers", ["A:NaN; V:3.0; D:NaN ; N:4.0;", "A:2.0; V:3.0; D:3.0;", "A:2.0; V:3.0; D: ; N: ;", "", "\ufffd"]
)
def test_numbers_do_not_matter(root: Path, numbers: str) -> None:
    write(
        root / "Evalution.txt", "\r\n".join(msp_head(name, letter, numbers) for name, letter in every_actor().items())
    )
    index = index_msp_improv(root)
    assert lines(index) == []
    assert {recording.utterance: recording.label for recording in index.recordings} == taken()


def test_labels_may_be_written_by_the_name_of_the_wav(root: Path) -> None:
    text = (root / "Evalution.txt").read_text()
    write(root / "Evalution.txt", text.replace("UTD-IMPROV", "MSP-IMPROV"))
    assert len(index_msp_improv(root).recordings) == 48


@pytest.mark.parametrize("scenarios", ["S", "P", "RT", "S, P", ["S", "T"], "sprt"])
def test_scenarios(root: Path, scenarios: str | list[str]) -> None:
    index = index_msp_improv(root, scenarios)
    assert lines(index) == []
    letters = "".join(scenarios).upper()
    assert {recording.utterance: recording.label for recording in index.recordings} == taken(letters)
    assert index.facts["scenarios"] == sorted(set(letters) - set(", "))


@pytest.mark.parametrize("scenarios", ["", "X", "SX", []])
def test_scenarios_that_are_none(root: Path, scenarios: str | list[str]) -> None:
    with pytest.raises(InputError, match=r"give letters among S \(other improvised turns\), T"):
        index_msp_improv(root, scenarios)


def test_utterances_of_no_class(root: Path) -> None:
    index = index_msp_improv(root, unlabelled=True)
    assert len(index.recordings) == 72
    assert Counter(recording.label for recording in index.recordings)[None] == 24
    assert index.folds == index_msp_improv(root).folds


def test_folds_and_speakers_are_those_of_a_plain_loop(root: Path) -> None:
    index = index_msp_improv(root)
    speakers = {name: name.split("-")[3] for name in taken()}
    assert {recording.utterance: recording.speaker for recording in index.recordings} == speakers
    expected = naive_folds(speakers, [(f"M0{pair}", f"F0{pair}") for pair in range(1, 7)])
    assert {
        fold: {split: set(ids) for split, ids in splits.items()} for fold, splits in index.folds.items()
    } == expected
    assert all(list(ids) == sorted(ids) for splits in index.folds.values() for ids in splits.values())


def test_files_that_are_not_there(root: Path) -> None:
    second, third = "MSP-IMPROV-S01N-F01-S-FM02", "MSP-IMPROV-S01S-F01-S-FM03"
    next(root.rglob(f"{NAME}.wav")).unlink()
    next(root.rglob(f"{second}.avi")).unlink()
    next(root.rglob(f"{second}.txt")).unlink()
    write(root / "All_human_transcriptions" / f"{third}.txt", " \n")
    index = index_msp_improv(root)
    recordings = by_id(index)
    assert recordings[NAME].absent == {"audio": "no sound file"}
    assert recordings[second].absent == {"visual": "no video", "text": "no transcript"}
    assert recordings[third].absent == {"text": "no words in its transcript"}
    assert f"{NAME}: labelled, but has no wav" in found(index, "no wav")
    assert f"{second}: labelled, but has no avi" in found(index, "no avi")
    assert len(index.problems) == 2


def test_files_without_a_label(root: Path) -> None:
    text = (root / "Evalution.txt").read_text()
    write(root / "Evalution.txt", text.replace(msp_head(NAME, "A"), ""))
    index = index_msp_improv(root)
    for what in ("a wav", "an avi", "a transcript"):
        assert f"{NAME}: has {what}, but no label" in found(index, f"has {what}")


def test_label_lines_that_are_wrong_are_all_named(root: Path) -> None:
    with (root / "Evalution.txt").open("a") as file:
        file.write("\n" + msp_head(NAME, "S"))
        file.write("\n" + msp_head("MSP-IMPROV-S01H-F01-S-FM51", "Q"))
        file.write("\n" + msp_head("MSP-IMPROV-S01H-F09-S-FM52", "A"))  # there are six pairs
        file.write("\nholiday.avi; H; A:1;\n")
    index = index_msp_improv(root)
    assert f"{NAME}: labelled more than once" in found(index, "more than once")
    assert by_id(index)[NAME].label == "angry"
    assert "MSP-IMPROV-S01H-F01-S-FM51: label 'Q' is unknown" in found(index, "'Q'")
    assert "utterance UTD-IMPROV-S01H-F09-S-FM52.avi" in found(index, "none of an utterance (and 1 more utterance)")


def test_names_that_several_files_have(root: Path) -> None:
    touch(root / "copy" / f"{NAME}.wav")
    index = index_msp_improv(root)
    assert f"copy/{NAME}.wav: utterance {NAME}: has more than one wav" in found(index, "more than one wav")
    assert by_id(index)[NAME].sound == Source(root / f"Audio/session1/S01H/S/{NAME}.wav")


def test_two_label_files_must_agree(root: Path) -> None:
    text = (root / "Evalution.txt").read_text()
    write(root / "Evaluation.txt", text)
    assert lines(index_msp_improv(root)) == []
    write(root / "Evaluation.txt", text.replace("; A;", "; S;"))
    index = index_msp_improv(root)
    assert f"differs from {root / 'Evaluation.txt'}, which is read" in found(index, "differs")
    assert by_id(index)[NAME].label == "sad"


def test_what_a_mac_leaves_and_links_that_go_round(root: Path) -> None:
    before = index_msp_improv(root)
    write(root / f"All_human_transcriptions/._{NAME}.txt", b"\x00\x05")
    write(root / "._Evalution.txt", b"\x00\x05")
    (root / "Audio" / "again").symlink_to(root, target_is_directory=True)
    assert index_msp_improv(root) == before


def test_folders_may_be_links(root: Path, tmp_path: Path) -> None:
    shutil.move(root / "Video", tmp_path / "disk2")
    (root / "Video").symlink_to(tmp_path / "disk2", target_is_directory=True)
    index = index_msp_improv(root)
    assert lines(index) == []
    assert all(recording.picture for recording in index.recordings)


def test_a_tree_that_is_none(tmp_path: Path) -> None:
    assert "does not exist" in found(index_msp_improv(tmp_path / "no"), "no")
    index = index_msp_improv(tmp_path)
    assert "has no Evaluation.txt or Evalution.txt" in found(index, "Evaluation")
    write(tmp_path / "Evalution.txt", "\n")
    index = index_msp_improv(tmp_path)
    assert (index.recordings, index.folds) == ((), {})
    assert "holds no label" in found(index, "label")
    write(tmp_path / "Evalution.txt", msp_head(NAME, "X"))
    assert "no utterance of scenario S has a known class" in found(index_msp_improv(tmp_path), "scenario S")


def test_an_actor_who_says_nothing(tmp_path: Path) -> None:
    names = {name: letter for name, letter in every_actor().items() if "-M03-" not in name}
    index = index_msp_improv(msp_improv(tmp_path, names))
    assert "fold 5 has no val utterance" in found(index, "no val")
    assert "fold 6 has no test utterance" in found(index, "no test")


def test_counts_of_the_corpus_paper(root: Path) -> None:
    index = index_msp_improv(root)
    published = published_counts(index)
    assert published == {"angry": 470, "happy": 1048, "neutral": 1789, "sad": 633}
    assert sum(published.values()) - 3819 == 121
    assert "121 utterances without a face: 3819 remain" in index.notes[1]
    every = published_counts(index_msp_improv(root, "PRST"))
    assert every == {"angry": 792, "happy": 2644, "neutral": 3477, "sad": 885}
    assert sum(every.values()) == 7798


def full_corpus(root: Path, counts: dict[str, int]) -> Path:
    """8438 utterances, of which scenario S has so many of each label."""
    labels = [("S", letter) for letter, count in counts.items() for _ in range(count)]
    labels += [("P", "X")] * (8438 - len(labels))
    return msp_improv(
        root,
        {
            f"MSP-IMPROV-S01A-{'FM'[number % 2]}0{number // 2 % 6 + 1}-{scenario}-FM{number}": letter
            for number, (scenario, letter) in enumerate(labels)
        },
        layout="flat",
    )


def test_a_tree_of_the_true_size(tmp_path: Path) -> None:
    counts = {"A": 470, "H": 1048, "N": 1789, "S": 633}
    index = index_msp_improv(full_corpus(tmp_path, counts))
    assert len(index.recordings) == 3940
    assert lines(index) == []
    text = (tmp_path / "Evalution.txt").read_text()
    write(tmp_path / "Evalution.txt", text.replace("; A;", "; S;", 1))
    off = index_msp_improv(tmp_path)
    assert "counts differ from the published ones (scenario S: angry 469, happy 1048" in found(off, "published")
