"""Published figures: read, checked, and set against ours."""

from __future__ import annotations

import csv
import html
import re
from pathlib import Path

import pytest

from benchmarks.leaderboard.published import COLUMNS, MARKS, PUBLISHED, Metric, published_classes, read_published
from benchmarks.leaderboard.published_rates import read_figures
from benchmarks.leaderboard.records import Record
from benchmarks.leaderboard.report.page import page_html
from benchmarks.leaderboard.report.rows import board_table
from benchmarks.leaderboard.report.tables import csv_text, markdown_text
from datamodules.conditions import MISSING_CONDITIONS
from datamodules.errors import InputError
from tests.benchmarks.leaderboard.boards import board_records, summarise_board

GOOD = "IEMOCAP (4 classes),MMIN,UA,59.00,51.60,68.02,65.43,75.14,73.61,65.47,mean,selected on test,a paper,"


def test_every_line_of_the_file_is_read() -> None:
    with PUBLISHED.open(newline="", encoding="utf-8") as file:
        lines = [line for line in csv.DictReader(file) if line["corpus"] == "IEMOCAP (4 classes)"]
    rows = read_published("IEMOCAP", 4)
    assert len(rows) == len(lines) > 0
    for row, line in zip(rows, lines, strict=True):
        assert (row.model, row.metric, "; ".join(row.marks), row.source, row.note) == tuple(
            line[name] for name in ("model", "metric", "marks", "source", "note")
        )
        averages = {"mean": "", "pooled": "", line["avg_kind"] or "mean": line["avg"]}
        for name, value in row.values.items():
            cell = averages[name] if name in averages else line[name]
            assert value == (pytest.approx(float(cell) / 100) if cell else None)
        if row.values["mean"]:
            six = sum(row.values[name] or 0 for name in MISSING_CONDITIONS) / 6
            assert row.values["mean"] == pytest.approx(six, abs=1e-4)  # they are averages of what stands beside them


def test_what_was_selected_on_test_says_so() -> None:
    """The public loop of this family of models lets test scores choose the best epoch."""
    found = [row for row in read_published("IEMOCAP", 4) if row.model.split(" V")[0] in FAMILY]
    original, rerun = ([row for row in found if ("issue 10" in row.source) == again] for again in (False, True))
    assert len(original) == 1 + 2 + 2 + 2 + 10
    assert all("selected on test" in row.marks for row in original)
    # The mean of the ten folds in the table.
    assert {row.metric: row.values["pooled"] for row in rerun} == pytest.approx(
        {"WA": 0.6239, "UA": 0.6346, "F1": 0.6175}
    )
    assert all(not value for row in rerun for name, value in row.values.items() if name != "pooled")


FAMILY = ("MMIN", "IF-MMIN", "CIF-MMIN", "RedCore")


def test_marks_are_what_the_notes_say() -> None:
    rows = read_published("IEMOCAP", 4)
    for row in rows:
        assert ("one model per condition" in row.note) == ("one model per condition" in row.marks)
        assert ("other features" in row.note) == ("other features" in row.marks)
        assert ("do not use" in row.note) == ("contradicts its source" in row.marks)
        assert ("on validation data" in row.note) == ("scored on validation" in row.marks)
    assert {mark for row in rows for mark in row.marks} == MARKS.keys()
    assert {row.marks for row in rows if row.model == "MoMKE"} == {
        ("selected on test", "one model per condition", "other features")
    }


def test_every_row_is_shown_with_its_marks_and_source() -> None:
    board = summarise_board(board_records(["IFMMIN", "MMIN"], [1, 2], [0]))
    for shown in (page_html(board), markdown_text(board), csv_text(board)):
        text = re.sub(r"\\(.)", r"\1", html.unescape(shown))
        for row in read_published("IEMOCAP", 4):
            assert row.source in text.replace('""', '"') and row.note in text
    table = board_table(board, board.task.score("WA"))
    notes = [row.cells["model"].note for row in table.rows if row.model == "MoMKE"]
    assert len(notes) == 1 and notes[0].endswith(", selected on test, one model per condition, other features")


def test_six_classes_are_another_board() -> None:
    records = board_records(["MMIN"], [1], [0])
    assert read_published("IEMOCAP", 6) == () and len(read_published("IEMOCAP", 4)) == 36
    own = summarise_board([{**record, "corpus": "Folder-IEMOCAP"} for record in records])
    invented = summarise_board([{**record, "is_synthetic": True} for record in records])
    for board in (own, invented):
        assert board.published == () and board.figures == ()


SIX = ["angry", "happy", "neutral", "sad", "excited", "frustrated"]


@pytest.mark.parametrize(
    ("names", "made_of", "classes"),
    [
        (SIX, None, 6),
        (SIX[::-1], None, 6),
        (SIX[:4], None, 4),
        (["calm", *SIX[1:]], None, -1),
        (SIX[:3], None, -1),
        (SIX[:4], {name: [name] for name in SIX[:4]}, -1),  # excited was left out, where the published happy has it
        (SIX[:4], {"angry": ["angry"], "happy": ["happy", "excited"], "neutral": ["neutral"], "sad": ["sad"]}, 4),
        (["a", "b", "c", "d"], {"a": ["sad"], "b": ["Happy", "Excited"], "c": ["neutral"], "d": ["angry"]}, 4),
        (SIX, {name: [name, "fear"] for name in SIX}, -1),
        ([], None, 0),
    ],
)
def test_published_figures_are_beside_the_same_classes_only(
    names: list[str], made_of: dict[str, list[str]] | None, classes: int
) -> None:
    assert published_classes("IEMOCAP", names, made_of) == classes
    assert bool(read_figures("IEMOCAP", classes)) == (classes > 0)


def test_a_board_of_merged_classes_shows_figures_by_what_they_are_made_of() -> None:
    (record,) = board_records(["MMIN"], [1], [0])
    assert summarise_board([record]).published
    made = {name: [name] for name in record["class_names"]}
    assert summarise_board([{**record, "made_of": made}]).published == ()
    made["happy"] = ["excited", "happy"]
    again = summarise_board([{**record, "made_of": made}])
    assert again.published and Record.from_json(again.records[0].to_json()).made_of == made


def test_a_pooled_value_is_compared_with_ours_pooled(tmp_path: Path) -> None:
    board = summarise_board(board_records(["MMIN"], [1, 2], [0, 1]))
    (entry,) = board.entries
    (row,) = (row for row in board.published if row.metric == "F1")
    ours = entry.cells["F1"]["pooled"]
    assert ours is not None
    assert row.difference is not None and list(row.difference) == ["pooled"]
    assert row.difference["pooled"] == pytest.approx(ours.mean - 0.6175)


def test_a_corpus_is_known_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "published.csv"
    path.write_text(",".join(COLUMNS) + f"\n{GOOD}\n" + GOOD.replace("IEMOCAP", "MSP-IMPROV") + "\n", encoding="utf-8")
    assert len(read_published("MSPIMPROV", 4, path)) == len(read_published("iemocap", 4, path)) == 1
    assert read_published("Synthetic", 4, path) == ()


def test_difference_where_the_model_was_measured() -> None:
    board = summarise_board(board_records(["IFMMIN", "MMIN"], [1, 2], [0, 1]))
    ours = {entry.model: entry.cells for entry in board.entries}["MMIN"]
    assert {"MMIN", "MCTN", "CIF-MMIN", "MPLMM"} < {row.model for row in board.published}
    for row in board.published:
        if row.model != "MMIN" or "contradicts its source" in row.marks:
            assert row.difference is None
            continue
        known = {name for name, value in row.values.items() if value is not None}
        assert row.difference is not None
        assert row.difference.keys() == known
        for name in known:
            cell, value = ours[row.metric][name], row.values[name]
            assert cell is not None
            assert value is not None
            assert row.difference[name] == pytest.approx(cell.mean - value)


def test_a_model_is_known_by_its_published_name() -> None:
    board = summarise_board(board_records(["CIFMMIN", "MMIN"], [1, 2], [0, 1]))
    ours = {entry.model: entry.cells for entry in board.entries}["CIFMMIN"]
    rows = [row for row in board.published if row.model == "CIF-MMIN" and "plotting script" in row.source]
    compared = {row.metric: row.difference for row in rows}
    means: dict[Metric, float] = {"WA": 0.6513, "UA": 0.6592}
    for metric, published in means.items():
        cell, difference = ours[metric]["mean"], compared[metric]
        assert cell is not None and difference is not None
        assert difference["mean"] == pytest.approx(cell.mean - published)


def test_what_does_not_compare_has_no_difference() -> None:
    board = summarise_board(board_records(["MoMKE", "MMIN"], [1, 2], [0, 1]))
    assert {row.difference is None for row in board.published if row.model == "MoMKE"} == {True}


def test_no_difference_in_what_our_run_does_not_answer() -> None:
    board = summarise_board(board_records(["MMIN"], [1], [0], unanswered=["MMIN"]))
    differences = [row.difference for row in board.published if row.model == "MMIN"]
    assert len(differences) == 6 and not any(differences)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (GOOD.replace(",mean,", ",median,"), "avg_kind must be mean or pooled where avg is given, and empty otherwise"),
        (GOOD.replace(",65.47,mean,", ",65.47,,"), "avg_kind"),
        (GOOD.replace(",65.47,mean,", ",,mean,"), "avg_kind"),
        (GOOD.replace("59.00", "159.00"), "'159.00' is not a percentage"),
        (GOOD.replace("59.00", "n/a"), "'n/a' is not a percentage"),
        (GOOD.replace("UA", "WF1"), "'WF1' is none of WA, UA, F1"),
        (GOOD.replace("a paper", ""), "source"),
        (GOOD.replace("selected on test", "selected"), "the mark 'selected' is none of selected on test"),
        (GOOD + ",more", "cells are needed"),
        ("IEMOCAP,MMIN,UA", "cells are needed"),
    ],
)
def test_wrong_lines_are_named(line: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "published.csv"
    path.write_text(f"{','.join(COLUMNS)}\n{GOOD}\n{line}\n", encoding="utf-8")
    with pytest.raises(InputError, match=message) as error:
        read_published("IEMOCAP", 4, path)
    assert str(error.value).startswith(f"{path}, line 3")


def test_wrong_columns(tmp_path: Path) -> None:
    path = tmp_path / "published.csv"
    path.write_text("corpus,model\nIEMOCAP,MMIN\n", encoding="utf-8")
    with pytest.raises(InputError, match="its columns must be"):
        read_published("IEMOCAP", 4, path)
