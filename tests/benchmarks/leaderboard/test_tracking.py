from pathlib import Path

import pytest

from benchmarks.leaderboard.records import RECORDS, read_records
from tests.benchmarks.leaderboard.small_board import run
from tests.wandb_offline import read_offline_run


def test_runs_stand_in_the_boards_group_and_the_board_is_an_artifact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    board = tmp_path / "my board"
    done = run(board, "--models", "ModalityDropout", "--wandb", "emotions")
    assert done.returncode == 0, done.stdout
    (record,) = read_records(board / RECORDS)
    logged = read_offline_run(board / record.run / "wandb")
    assert logged["group"] == "my board"
    told = {name: logged["config"][name] for name in ("board", "model", "fold", "seed")}
    assert told == {"board": "my board", "model": "ModalityDropout", "fold": 1, "seed": 0}
    assert logged["summary"]["test/pooled/UA"] == pytest.approx(record.metrics["pooled"]["UA"])
    # Its own files are there besides: figures are drawn from them.
    assert list((board / record.run / "logs").rglob("metrics.csv"))
    whole = read_offline_run(board / "wandb")
    assert (whole["group"], whole["job_type"]) == ("my board", "leaderboard")
    files = whole["artifacts"]["my-board-leaderboard"]
    assert {"leaderboard.csv", "leaderboard.md", "leaderboard.tex", "leaderboard.html"} <= set(files)
    assert any("leaderboard_UA" in name.replace("/", "_") for name in whole["files"])
