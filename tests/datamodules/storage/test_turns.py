"""Turns: what ids say, what ``turns.csv`` says, and the table that batches are made from."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamodules import CorpusError, Folder, Synthetic
from datamodules.base import EmotionDataModule
from datamodules.needs import DataNeeds
from datamodules.privileged import PRIVILEGED_LAYOUT
from datamodules.storage import turns as turns_of
from datamodules.storage.check import check_corpus
from datamodules.storage.layouts import IEMOCAP_LAYOUT, MSP_IMPROV_LAYOUT, Layout
from datamodules.storage.problems import Problems, Strict
from datamodules.storage.turns import FILE, Turn, read_turns, turn_of, turn_table
from datamodules.synthetic import SYNTHETIC_LAYOUT
from tests.datamodules.corpora import LAYOUTS, load_ids, write_clips, write_corpus

READS_TURNS = DataNeeds(turns=True)

# Ids.


@pytest.mark.parametrize(
    ("utterance", "chain", "number"),
    [
        ("Ses01F_impro04_M012", "Ses01F_impro04_M", 12),
        ("Ses01F_impro04_F012", "Ses01F_impro04_F", 12),
        ("Ses05M_script01_1b_F003", "Ses05M_script01_1b_F", 3),
        ("Ses03M_script03_2_M000", "Ses03M_script03_2_M", 0),
        ("Ses02F_script01_3_M0041", "Ses02F_script01_3_M", 41),
        ("Ses05F_impro05a_F1003", "Ses05F_impro05a_F", 1003),
    ],
)
def test_iemocap_ids_name_dialogue_speaker_and_turn(utterance: str, chain: str, number: int) -> None:
    assert turn_of(utterance, IEMOCAP_LAYOUT) == (chain, number)
    assert turn_of(utterance, MSP_IMPROV_LAYOUT) == (chain, number)


@pytest.mark.parametrize("utterance", ["Ses01F_impro04_MXX0", "Ses01F_impro04_XX1", "Ses01F_impro04", "clip_F001", ""])
def test_ids_without_a_place_among_the_turns(utterance: str) -> None:
    assert turn_of(utterance, IEMOCAP_LAYOUT) is None


@pytest.mark.parametrize("prefix", ["MSP", "UTD"])
@pytest.mark.parametrize(
    ("rest", "chain", "number"),
    [
        ("IMPROV-S01A-F01-P-FM01", "IMPROV-S01A-F01-P-FM", 1),
        ("IMPROV-S20N-M06-R-MF12", "IMPROV-S20N-M06-R-MF", 12),
        ("IMPROV-S08H-F03-S-MF02", "IMPROV-S08H-F03-S-MF", 2),
        ("IMPROV-S13S-M02-T-FM01", "IMPROV-S13S-M02-T-FM", 1),
    ],
)
def test_msp_improv_chains_share_all_but_the_number(prefix: str, rest: str, chain: str, number: int) -> None:
    # Either reading of who speaks makes the chain one person: field 4, and the letters, are both in its name.
    assert turn_of(f"{prefix}-{rest}", MSP_IMPROV_LAYOUT) == (f"{prefix}-{chain}", number)


def test_built_in_corpora_have_twenty_turns_in_a_dialogue() -> None:
    place = {number: turn_of(f"Ses02M_impro00_M{number:04d}", SYNTHETIC_LAYOUT) for number in (0, 19, 20, 399)}
    assert [turn.number for turn in place.values() if turn] == [0, 19, 0, 19]
    chains = [turn.chain for turn in place.values() if turn]
    assert chains[0] == chains[1] and len({*chains}) == 3
    assert turn_of("fold01_test00021", PRIVILEGED_LAYOUT) == turn_of("fold01_test00041", PRIVILEGED_LAYOUT)._replace(  # type: ignore[union-attr]
        chain="fold01_test/1"
    )
    assert turn_of("fold01_test00021", PRIVILEGED_LAYOUT) != turn_of("fold01_train00021", PRIVILEGED_LAYOUT)


def test_ids_are_matched_as_elsewhere() -> None:
    loose = IEMOCAP_LAYOUT.with_options({"match_ids": "all"})
    assert turn_of("./wav/ses01f_IMPRO04_m012.wav", loose) == turn_of("Ses01F_impro04_M012", loose)
    assert turn_of("Ses01F_impro04_M012.wav", IEMOCAP_LAYOUT) is None


def test_ids_of_which_some_say_nothing_or_the_same_are_one_line(tmp_path: Path) -> None:
    names = ["Ses01F_impro04_M012", "Ses01F_impro04_M0012", "clip"]
    problems = Problems()
    read_turns(tmp_path, IEMOCAP_LAYOUT, names, (), problems)
    assert [problem.utterances for problem in problems.found] == [("clip",), ("Ses01F_impro04_M0012",)]
    assert "does not say which turn it is" in str(problems.found[0])
    assert read_turns(tmp_path, IEMOCAP_LAYOUT, ["clip", "other"], (), Strict()) is None


# The table.


@given(
    numbers=st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 60)), min_size=1, max_size=25, unique=True),
    seed=st.integers(0, 1000),
)
def test_the_table_is_that_of_a_naive_loop(numbers: list[tuple[str, int]], seed: int) -> None:
    turns = [Turn(*each) for each in numbers]
    rng = np.random.default_rng(seed)
    split = rng.integers(2, size=len(turns))
    table = turn_table(turns, [np.flatnonzero(split == part) for part in range(2)])
    assert table.dtype == np.int64
    owner: dict[int, tuple[str, int]] = {}
    for row, (turn, part) in enumerate(zip(turns, split.tolist(), strict=True)):
        assert owner.setdefault(int(table[row, 0]), (turn.chain, part)) == (turn.chain, part)
        earlier = [
            other.number
            for other, theirs in zip(turns, split.tolist(), strict=True)
            if other.chain == turn.chain and theirs == part and other.number < turn.number
        ]
        step = turn.number - max(earlier) if earlier else 0
        assert table[row, 1:].tolist() == [len(earlier), step]
    assert len(owner) == len({(turn.chain, part) for turn, part in zip(turns, split.tolist(), strict=True)})


@pytest.mark.parametrize("name", LAYOUTS)
def test_chains_are_of_one_speaker_in_one_split(name: str, tmp_path: Path) -> None:
    write_corpus(tmp_path, name)  # type: ignore[arg-type]
    data = corpus_class(LAYOUTS[name])(root=str(tmp_path), fold=3)
    data.setup("fit")
    chains = {split: {*data.turns[data.indices(split), 0].tolist()} for split in ("train", "val", "test")}
    assert not chains["train"] & chains["val"] and not chains["train"] & chains["test"]
    assert not chains["val"] & chains["test"] and chains["val"] and chains["test"]
    speakers: dict[int, set[str]] = {}
    for utterance, chain in zip(data.corpus.utterances, data.turns[:, 0].tolist(), strict=True):
        # The sixth letter from the end of IEMOCAP's form, the fourth field of MSP-IMPROV's.
        who = utterance[:5] + utterance[-4] if name == "IEMOCAP" else utterance.split("-")[3]
        speakers.setdefault(chain, set()).add(who)
    assert all(len(names) == 1 for names in speakers.values())


def corpus_class(layout: Layout) -> type[EmotionDataModule]:
    return type("Corpus", (EmotionDataModule,), {"layout": layout})


# turns.csv.


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_clips(tmp_path / "clips")
    return tmp_path / "clips"


def table_of(dialogue: bool = True) -> dict[str, str]:
    """Rows of a table whose turns go backwards through the ids; two dialogues, of the even and of the odd ones."""
    rows = {}
    for take in range(4):
        for number in range(9):
            name = f"take {take}/é{number:02d}"
            rows[name] = f"{name},{100 - number / 4}" + (f",d{number % 2}" if dialogue else "")
    return rows


def write(root: Path, rows: list[str], head: str = "id,start,dialogue") -> None:
    (root / FILE).write_text("\n".join([head, *rows]) + "\n", encoding="utf-8")


def fitted(root: Path) -> EmotionDataModule:
    data = Folder(str(root))
    data.setup("fit")
    data.serve(READS_TURNS, 8)
    return data


def test_a_table_gives_the_order_of_turns(root: Path) -> None:
    write(root, [*table_of().values()])
    data = fitted(root)
    table = dict(zip(data.corpus.utterances, data.turns.tolist(), strict=True))
    for take in range(4):
        for number in range(9):
            chain, position, step = table[f"take {take}/é{number:02d}"]
            assert chain == table[f"take {take}/é{number % 2:02d}"][0]
            assert position == (8 - number) // 2  # 8 - number, or 7 - number of an odd one, halved
            assert step == (position > 0)
    assert len({row[0] for row in table.values()}) == 8


def test_without_dialogues_a_speaker_has_one(root: Path) -> None:
    write(root, [*table_of(dialogue=False).values()], "id,start")
    data = fitted(root)
    assert len({*data.turns[:, 0].tolist()}) == 4
    assert data.turns[:, 1].max() == 8


def test_ids_name_the_dialogue_where_the_table_does_not(tmp_path: Path) -> None:
    names = write_corpus(tmp_path)
    write(tmp_path, [f"{name},{1000 - place}" for place, name in enumerate(names)], "id,start")
    data = corpus_class(IEMOCAP_LAYOUT)(root=str(tmp_path))
    data.setup("fit")
    by_file = dict(zip(data.corpus.utterances, data.turns.tolist(), strict=True))
    (tmp_path / FILE).unlink()
    data = corpus_class(IEMOCAP_LAYOUT)(root=str(tmp_path))
    data.setup("fit")
    for name, (chain, position, _) in zip(data.corpus.utterances, data.turns.tolist(), strict=True):
        assert by_file[name][0] == chain
        last = max(row[1] for row in by_file.values() if row[0] == chain)
        assert by_file[name][1] == last - position


def test_a_table_is_part_of_the_fingerprint(root: Path) -> None:
    without = fitted(root).fingerprint
    write(root, [*table_of().values()])
    with_table = fitted(root).fingerprint
    write(root, [*table_of(dialogue=False).values()], "id,start")
    assert len({without, with_table, fitted(root).fingerprint}) == 3


def row(utterance: str, text: str | None) -> Callable[[Path], None]:
    """Replace a row; None takes it out."""

    def make(root: Path) -> None:
        rows = {name: line for name, line in table_of().items() if name != utterance or text is not None}
        write(root, [*({**rows, utterance: text} if text is not None else rows).values()])

    return make


def raw(content: bytes) -> Callable[[Path], None]:
    def make(root: Path) -> None:
        (root / FILE).write_bytes(content)

    return make


FIRST = "take 0/é00"

BAD: dict[str, tuple[Callable[[Path], None], str]] = {
    "unknown id": (row("nobody", "nobody,1,d0"), "utterance nobody: line 38: an id that no feature file has"),
    "an id twice": (row("again", f"{FIRST},7,d0"), f"utterance {FIRST}: line 38: listed before"),
    "NaN": (row(FIRST, f"{FIRST},nan,d0"), "line 2: start 'nan' is no number of seconds"),
    "negative": (row(FIRST, f"{FIRST},-1,d0"), "line 2: start '-1' is no number of seconds"),
    "infinite": (row(FIRST, f"{FIRST},inf,d0"), "line 2: start 'inf' is no number of seconds"),
    "no number": (row(FIRST, f"{FIRST},soon,d0"), "line 2: start 'soon' is no number of seconds"),
    "no start": (row(FIRST, f"{FIRST},,d0"), "line 2: start '' is no number of seconds"),
    "no dialogue": (row(FIRST, f"{FIRST},1, "), "line 2: names no dialogue"),
    "too few cells": (row(FIRST, f"{FIRST},1"), "line 2: has 2 cells, not 3"),
    "too many cells": (row(FIRST, f"{FIRST},1,d0,x"), "line 2: has 4 cells, not 3"),
    "no row": (row(FIRST, None), f"utterance {FIRST}: has no row; add one with its start"),
    "at the same time": (row("take 0/é02", "take 0/é02,100,d0"), "starts at 100, as another turn of its speaker"),
    "no column start": (raw(b"id,begin,dialogue\n"), "does not name the column start"),
    "no column id": (raw(b"start,dialogue\n1,d\n"), "does not name the column id"),
    "a misspelt column": (raw(b"id,start,dialog\n"), "has a column 'dialog', where there are id, start, dialogue"),
    "a column twice": (raw(b"id,start,start\n"), "has more than one column start"),
    "empty": (raw(b""), "does not name the column id"),
    "no rows": (raw(b"id,start\n"), "has no row (and 35 more utterances)"),
    "Latin-1": (raw(b"id,start\ncaf\xe9,1\n"), "is not UTF-8"),
    "NUL": (raw(b"id,start\n\0,1\n"), "turns.csv: "),
    "a folder": (lambda root: (root / FILE).mkdir(), "is a folder, not a file"),
    "a pipe": (lambda root: os.mkfifo(root / FILE), "is a pipe, not a file"),
    "a dead link": (lambda root: (root / FILE).symlink_to("gone.csv"), "cannot be read (No such file"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_with_a_table_is_one_line(case: str, root: Path) -> None:
    make, expected = BAD[case]
    make(root)
    data = fitted(root)  # other models do not read it
    with pytest.raises(CorpusError) as caught:
        data.train_dataloader()
    line = str(caught.value)
    assert line.startswith(f"{root / FILE}: ")
    assert expected in line
    assert "; " in line and line.endswith(".") and line.isprintable()
    assert any(expected in said for said in check_corpus(root, Folder.layout_of({"root": str(root)})).lines)


def test_a_table_is_bounded(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(root, [*table_of().values()])
    monkeypatch.setattr(turns_of, "LARGEST", 100)
    with pytest.raises(CorpusError, match="more than the 100 bytes"):
        fitted(root).train_dataloader()


def test_who_speaks_must_be_known(root: Path, tmp_path: Path) -> None:
    write_clips(tmp_path / "nobody", speakers=None)
    write(tmp_path / "nobody", [*table_of().values()])
    with pytest.raises(
        CorpusError, match=r"utterance take 0/é00: line 2: nothing says who speaks; give its speaker in"
    ):
        fitted(tmp_path / "nobody").train_dataloader()


def test_no_turns_at_all_are_one_line(root: Path) -> None:
    with pytest.raises(CorpusError) as caught:
        fitted(root).val_dataloader()
    assert "the ids of Folder-clips do not say which they are, and there is no turns.csv; write it" in str(caught.value)


# What check says.


def test_check_counts_chains(root: Path, tmp_path: Path) -> None:
    layout = Folder.layout_of({"root": str(root)})
    assert check_corpus(root, layout).summary.turns is None
    write(root, [*table_of().values()])
    found = check_corpus(root, layout).summary.turns
    assert found is not None
    assert (found.source, found.chains, found.median, found.longest) == ("turns.csv", 8, 4.5, 5)
    write_corpus(tmp_path / "ids")
    found = check_corpus(tmp_path / "ids", IEMOCAP_LAYOUT).summary.turns
    assert found is not None
    assert (found.source, found.chains, found.median, found.longest) == ("ids", 10, 5, 5)


def test_ids_that_say_nothing_are_noted_by_check_alone(tmp_path: Path) -> None:
    write_corpus(tmp_path)
    layout = IEMOCAP_LAYOUT.with_options({})
    odd = type(layout)(**{**vars(layout), "turn_pattern": r"_F(\d{3})$"})
    report = check_corpus(tmp_path, odd)
    assert not report.lines
    assert sum("does not say which turn it is" in str(note) for note in report.notes.found) == 1


# Batches.


def test_batches_are_of_whole_chains_and_say_their_turns() -> None:
    data = Synthetic(utterances_per_speaker=23, batch_size=40, eval_batch_size=30)
    data.setup("fit")
    data.serve(READS_TURNS, 128)
    ids = load_ids(data.root, 1, "trn")
    for loader, names in (
        (data.train_dataloader(), ids),
        (data.val_dataloader(), load_ids(data.root, 1, "val")),
        (data.test_dataloader(), load_ids(data.root, 1, "tst")),
    ):
        seen: list[str] = []
        chains: set[int] = set()
        for batch in loader:
            assert batch.turn is not None and batch.turn.shape == (len(batch.utterances), 3)
            assert not chains & {*batch.turn[:, 0].tolist()}
            chains |= {*batch.turn[:, 0].tolist()}
            seen += batch.utterances
            for utterance, (chain, position, step) in zip(batch.utterances, batch.turn.tolist(), strict=True):
                number = int(utterance[-4:])
                assert position == number % 20
                assert step == (position > 0)
                mates = [
                    int(other[-4:]) // 20
                    for other, row in zip(batch.utterances, batch.turn.tolist(), strict=True)
                    if row[0] == chain and other[:6] == utterance[:6]
                ]
                assert {*mates} == {number // 20} and len(mates) == (20 if number < 20 else 3)
        assert sorted(seen) == sorted(names)
    assert data.count_batches("train", 128) == len(data.train_dataloader()) == 5


def test_models_that_read_no_turns_get_none() -> None:
    data = Synthetic(utterances_per_speaker=6)
    data.setup("fit")
    assert all(batch.turn is None for batch in data.train_dataloader())
    assert all(batch.turn is None for batch in data.in_order("val"))
