"""The command that shows a board as its records have it."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from statistics import fmean

import pytest

from benchmarks.leaderboard.records import read_records
from benchmarks.leaderboard.report.__main__ import main
from datamodules.conditions import MISSING_CONDITIONS
from datamodules.files import locked
from tests.benchmarks.leaderboard.boards import board_records
from tests.benchmarks.test_figures import write_board

FILES = {f"leaderboard.{ending}" for ending in ("html", "csv", "md", "tex")}
BENCHMARKS = Path(__file__).parents[4] / "benchmarks"
COMMITTED = sorted(path.parent for path in BENCHMARKS.rglob("records.jsonl"))


@pytest.mark.parametrize("board", COMMITTED, ids=lambda path: str(path.relative_to(BENCHMARKS)))
def test_committed_boards_are_shown_by_todays_code(
    board: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(board), "--output", str(tmp_path / "out")]) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES
    lines = list(csv.DictReader((tmp_path / "out" / "leaderboard.csv").open(encoding="utf-8")))
    records = read_records(board / "records.jsonl")
    said = capsys.readouterr().out
    for model in {record.model for record in records}:
        own = [record.to_json()["metrics"] for record in records if record.model == model]
        for metric in {"WA", "MAE"} & own[0]["a"].keys():
            scale, rounding = (100, 0.0051) if metric == "WA" else (1, 0.00051)
            mean = scale * fmean(scores[condition][metric] for scores in own for condition in MISSING_CONDITIONS)
            wanted = (model, metric, "mean", "measured")
            (row,) = (row for row in lines if tuple(map(row.get, ("model", "metric", "condition", "kind"))) == wanted)
            assert float(row["mean"]) == pytest.approx(mean, abs=rounding)
            assert row["mean"] in said


def test_records_of_other_code_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = board_records(["IFMMIN", "MMIN"], [1, 2], [0], is_synthetic=True)
    old = [record | {"identity": {**record["identity"], "code": "old"}} for record in records[:1]]
    board = write_board(tmp_path / "board", old + records)
    with locked(board, "board"):  # it is being made
        assert main([str(board), "--reference", "MMIN"]) == 0
    said = capsys.readouterr().out
    assert "not used: 1 record(s) of another code" in said
    assert "n = 2 runs a model" in said
    assert {path.name for path in board.iterdir()} > FILES


def test_what_cannot_be_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "nowhere")]) == 1
    assert f"{tmp_path / 'nowhere'}: no such folder" in capsys.readouterr().err
    assert main([str(tmp_path)]) == 1
    assert f"{tmp_path / 'records.jsonl'}: no record in it" in capsys.readouterr().err
    board = write_board(tmp_path / "board", json.loads(json.dumps(board_records(["MMIN"], [1], [0]))))
    assert main([str(board), "--reference", "EMT"]) == 1
    assert "no runs of the reference model 'EMT'" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert main([str(board), "--output", str(tmp_path / "file")]) == 1
    assert "file" in capsys.readouterr().err
