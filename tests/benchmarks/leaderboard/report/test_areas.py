"""Areas below rate curves: against NumPy and SciPy from the records, and beside published ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import t as student

from benchmarks.leaderboard.published_rates import AREA_PROTOCOL, published_areas, read_figures
from benchmarks.leaderboard.report.areas import area_table
from benchmarks.leaderboard.report.page import page_html
from benchmarks.leaderboard.report.tables import csv_text, markdown_text
from datamodules.conditions import CONDITIONS
from ifmmin.curves import CURVES
from ifmmin.tasks import Regression, Score
from tests.benchmarks.leaderboard.boards import board_records, summarise_board

MODELS = ["IFMMIN", "MMIN", "EMT"]


def accuracies(records: list[dict[str, Any]], model: str, name: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    """WA by run and rate, of the counts."""
    own = [record for record in records if record["model"] == model]
    counted = [record["sweep"] if name == "modalities" else record["curves"][name] for record in own]
    matrices = np.array([[each[rate] for rate in sorted(each, key=float)] for each in counted], dtype=float)
    return np.asarray(np.trace(matrices, axis1=2, axis2=3) / matrices.sum(axis=(2, 3)))


def test_areas_and_intervals_follow_from_the_records() -> None:
    records = board_records(MODELS, range(1, 7), [0, 1])  # six folds of IEMOCAP are three training sets
    board = summarise_board(records)
    table = area_table(board, Score("WA"))
    assert table is not None
    assert [column.key for column in table.columns] == ["model", *CURVES]
    assert table.heading == "WA in %: area below the rate curves, their mean height"
    for row, entry in zip(table.rows, board.entries, strict=True):
        for name, curve in CURVES.items():
            values = accuracies(records, entry.model, name)
            trapezoid = getattr(np, "trapezoid", None) or np.trapz  # type: ignore[attr-defined]  # NumPy below 2.0
            areas = trapezoid(values, curve.rates, axis=1) / curve.rates[-1]
            area = entry.curves[name].areas["WA"]
            assert (area.cell.mean, area.cell.std) == pytest.approx((areas.mean(), areas.std(ddof=1)))
            sets = areas.reshape(3, 4).mean(axis=1)  # two folds with two seeds each
            low, high = student.interval(0.95, 2, sets.mean(), sets.std(ddof=1) / 3**0.5)
            assert area.low == pytest.approx(low)
            assert area.high == pytest.approx(high)
            assert area.sets == 3
            assert row.cells[name].text == f"{100 * areas.mean():.2f} [{100 * low:.2f}, {100 * high:.2f}]"
    for name in CURVES:
        placed = {row.model: row.cells[name].place for row in table.rows}
        assert sorted(placed.values()) == [0, 1, 2]
        shown = {row.model: float(str(row.cells[name].value)) for row in table.rows}
        assert placed[max(shown, key=shown.__getitem__)] == 1
    assert "over the 3 training sets" in " ".join(table.notes) and "overlap" in " ".join(table.notes)


def test_folds_that_are_independent_draws_overlap_in_nothing() -> None:
    records = [{**record, "independent_folds": True} for record in board_records(MODELS, [1, 3, 5], [0])]
    table = area_table(summarise_board(records), Score("WA"))
    assert table is not None
    notes = " ".join(table.notes)
    assert "3 folds, which are independent draws" in notes and "overlap" not in notes


def test_one_training_set_has_no_interval_and_earlier_records_no_area() -> None:
    board = summarise_board(board_records(MODELS, [1, 2], [0]))
    table = area_table(board, Score("UA"))
    assert table is not None
    assert all(row.cells["frames"].spread and "[" not in row.cells["frames"].text for row in table.rows)
    alone = summarise_board(board_records(MODELS, [1], [0], unanswered=["EMT"]))
    table = area_table(alone, Score("UA"))
    assert table is not None
    of_emt = next(row for row in table.rows if row.model == "EMT").cells
    assert (of_emt["share"].text, of_emt["frames"].spread) == ("–", "") and of_emt["frames"].text != "–"
    earlier = [record | {"curves": {}, "sweep": {}} for record in board_records(MODELS, [1, 2], [0])]
    assert area_table(summarise_board(earlier), Score("UA")) is None
    assert "area below" not in markdown_text(summarise_board(earlier))


def test_published_areas_are_beside_ours_of_frames_alone() -> None:
    figures = read_figures("CMU-MOSI", 0)
    names = [score.name for score in Regression(-3, 3).scores]
    found = {name: published_areas(figures, name) for name in names}
    assert len(found["MAE"]) == 8 and {each.protocol for each in found["MAE"]} == {AREA_PROTOCOL}
    (tfn,) = (each for each in found["MAE"] if each.model == "TFN")
    assert tfn.area() == pytest.approx(1.316)
    (emt,) = (each for each in found["F1_non0"] if each.model == "EMT-DLFR")
    assert emt.area() == pytest.approx(0.703)
    assert published_areas(summarise_board(board_records(MODELS, [1], [0])).figures, "WA") == []  # none on IEMOCAP


def test_a_board_of_sentiment_shows_published_areas() -> None:
    records = [sentiment(record) for record in board_records(MODELS, [1], [0, 1], corpus="CMU-MOSI")]
    board = summarise_board(records)
    table = area_table(board, board.task.score("MAE"))
    assert table is not None
    assert [row.kind for row in table.rows] == ["measured"] * 3 + ["published"] * 8
    assert {key for row in table.rows[3:] for key in row.cells} == {"model", "frames"}
    (best,) = (row for row in table.rows[3:] if row.model == "EMT-DLFR")
    assert (best.cells["frames"].text, best.cells["model"].note) == ("1.106", "published [1]")
    notes = " ".join(table.notes)
    assert "a model trained at each rate" in notes and "[1] EMT-DLFR (TAC 2023), Table 6" in notes
    page = page_html(board)
    assert 'id="published"' in page and "1.106" in page
    assert page.count("EMT-DLFR (TAC 2023), Table 6") >= len(board.scores)
    assert "<caption>MAE: frame dropping" not in page  # not once more among other protocols
    (line,) = (row for row in csv_text(board).splitlines() if "published,EMT-DLFR,MAE" in row)
    assert AREA_PROTOCOL in line and "1.106" in line


def sentiment(record: dict[str, Any]) -> dict[str, Any]:
    """A record of values in place of classes."""
    task, random = Regression(-3, 3), np.random.default_rng(record["seed"])

    def sums(noise: float) -> list[Any]:
        values = random.uniform(-3, 3, 60)
        outputs = torch.from_numpy(values + noise * random.standard_normal(60)).float()[:, None]
        counted: list[Any] = task.count(outputs, torch.from_numpy(values).float()).sum(dim=0).tolist()
        return counted

    counts = {name: sums(1.0) for name in CONDITIONS}
    rates = {name: {f"{rate:.1f}": sums(1 + rate) for rate in curve.rates} for name, curve in CURVES.items()}
    changed: dict[str, Any] = {
        "class_names": [],
        "task": task.spec(),
        "sums": counts,
        "monitor": "MAE",
        "calibration": None,
    }
    changed["metrics"] = task.summarise(torch.tensor([*counts.values()], dtype=task.counts_dtype))
    changed["sweep"] = rates.pop("modalities")
    return {name: value for name, value in record.items() if name != "confusion"} | changed | {"curves": rates}


def test_a_board_of_changed_frames_is_beside_nothing_published() -> None:
    records = board_records(MODELS, [1, 2], [0])
    assert summarise_board(records).published and summarise_board(records).figures
    for record in records:
        record["remarks"] = ["evaluated with frames:0.3"]
    board = summarise_board(records)
    assert board.published == () and board.figures == ()
    assert "published" not in csv_text(board)
    assert "evaluated with frames:0.3" in page_html(board)
