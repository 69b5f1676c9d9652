"""The report of a dry run: counts, folds, sources and problems, as a terminal shows them."""

from __future__ import annotations

import re
from io import StringIO
from pathlib import Path

from rich.console import Console

from datamodules.extraction.index import index_of
from datamodules.extraction.recordings import Index
from ifmmin.cli.extract_report import MOST_SPEAKERS, render_index
from tests.datamodules.extraction.index.trees import every_actor, every_speaker, iemocap, msp_improv, write


def shown(index: Index, raw: Path) -> str:
    console = Console(file=StringIO(), width=200)
    console.print(render_index(index, raw), crop=False)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def row(text: str, first: str) -> list[str]:
    """Cells of the one table row that begins with ``first``."""
    rows = [re.split(r"\s*[│┃]\s*", line.strip())[1:-1] for line in text.splitlines() if re.match(r"[│┃]", line)]
    (cells,) = (cells for cells in rows if cells[0] == first)
    return cells


def test_a_whole_report(tmp_path: Path) -> None:
    root = iemocap(tmp_path / "raw", every_speaker(), {"Ses01F_impro01_F000": "[LAUGHTER]"})
    text = shown(index_of("IEMOCAP", root), root)
    assert row(text, "speaker") == ["speaker", "angry", "happy", "neutral", "sad", "all", "hours"]
    # Of each dialogue's ten utterances of 0.75 s, eight are of the classes.
    assert row(text, "Ses03M") == ["Ses03M", "2", "2", "2", "2", "8", "0.00"]
    assert row(text, "10 speakers") == ["10 speakers", "20", "20", "20", "20", "80", "0.02"]
    assert row(text, "published") == ["published", "1103", "1636", "1708", "1084", "5531", ""]
    assert row(text, "audio") == ["audio", "80", "0", ""]
    assert row(text, "text") == ["text", "0", "80", "no transcript 79, only tags 1"]
    assert row(text, "10") == ["10", "64: 16 16 16 16", "8: 2 2 2 2", "8: 2 2 2 2"]
    assert "note: angry 20, happy 20" in text
    assert text.rstrip().endswith("No problems.")


def test_other_categories_have_a_column(tmp_path: Path) -> None:
    root = msp_improv(tmp_path / "raw", every_actor())
    text = shown(index_of("MSPIMPROV", root, unlabelled=True, scenarios="SP"), root)
    assert row(text, "speaker")[5:] == ["unlabelled", "all", "hours"]
    assert row(text, "F02") == ["F02", "1", "2", "1", "1", "2", "7", "?"]
    assert row(text, "published") == ["published", "508", "2420", "2953", "699", "", "6580", ""]


def test_a_fold_without_a_test_utterance_and_its_problem(tmp_path: Path) -> None:
    root = iemocap(tmp_path, {name: label for name, label in every_speaker().items() if "_F" not in name})
    text = shown(index_of("IEMOCAP", root), root)
    assert row(text, "1") == ["1", "32: 8 8 8 8", "8: 2 2 2 2", "none"]
    assert "2 problems:" in text
    assert re.search(r"^- .*: fold 1, 3, 5, 7, 9 has no test utterance; .*\.$", text, re.MULTILINE)


def test_a_tree_that_cannot_be_used_is_its_problems(tmp_path: Path) -> None:
    text = shown(index_of("IEMOCAP", tmp_path), tmp_path)
    assert text.splitlines() == [
        f"IEMOCAP at {tmp_path}",
        "1 problem:",
        f"- {tmp_path}: has no folder Session1..5; give the folder IEMOCAP_full_release.",
    ]


def test_many_speakers_markup_and_control_characters(tmp_path: Path) -> None:
    rows = [
        f"c{n:03d},Oh,{('a', '[bold]b')[n % 2]},[red]p{n // 2:02d}[/]\x1b[2J" for n in range(2 * MOST_SPEAKERS + 10)
    ]
    write(tmp_path / "manifest.csv", "\n".join(["id,text,label,speaker", *rows]))
    text = shown(index_of("clips", tmp_path), tmp_path)
    assert row(text, "5 more speakers") == ["5 more speakers", "5", "5", "10", "?"]
    assert row(text, f"{MOST_SPEAKERS + 5} speakers")[1:4] == ["29", "29", "58"]
    assert "[red]p00[/]\\x1b[2J" in text
    assert "Utterances per split: [bold]b a" in text
    assert "\x1b" not in text
