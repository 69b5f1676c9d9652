"""The table of calibration, and what is read back of a file that a person may have edited."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from datamodules.conditions import CONDITIONS
from datamodules.errors import InputError
from ifmmin.results.calibration import calibration_columns, calibration_rows, calibration_table
from ifmmin.results.files import as_json, write_results
from ifmmin.results.predictions import Predictions
from ifmmin.results.reading import read_result
from ifmmin.results.reliability import bins
from ifmmin.results.results import Results
from ifmmin.tasks import SUMMARY_ROWS, Classification, Regression

TASK = Classification(["angry", "happy", "neutral", "sad"])


def made(answered: tuple[str, ...] = CONDITIONS, temperatures: dict[str, float] | None = None) -> Results:
    predictions = answers(answered)
    metric = TASK.metric()
    metric.update(*map(torch.as_tensor, (predictions.answers, predictions.labels, predictions.conditions)))
    results = Results("IEMOCAP", False, "IFMMIN", 3, 7, "test", TASK, metric.compute())
    return replace(results, calibration=calibration_rows(predictions, temperatures or {}))


def answers(answered: tuple[str, ...] = CONDITIONS) -> Predictions:
    generator = torch.Generator().manual_seed(0)
    condition = torch.tensor([CONDITIONS.index(name) for name in answered]).repeat(40)
    label = torch.randint(4, (len(condition),), generator=generator)
    probability = (2 * torch.randn(len(condition), 4, generator=generator)).softmax(dim=1)
    return Predictions(
        TASK, [f"u{row // len(answered)}" for row in range(len(condition))], condition, probability, label
    )


def shown(results: Results) -> str:
    assert results.calibration is not None
    console = Console(width=120, record=True)
    console.print(calibration_table(results.calibration))
    return console.export_text()


def test_the_table_shows_values_after_the_temperatures_beside_those_before() -> None:
    results = made(temperatures=dict.fromkeys(CONDITIONS, 2.0))
    assert results.calibration is not None
    row = results.calibration["av"]
    text = shown(results)
    (line,) = [line for line in text.splitlines() if "{a,v}" in line]
    before, after = row["ECE"], row["calibrated_ECE"]
    assert before is not None and after is not None and after < before
    assert f"{100 * before:.2f} → {100 * after:.2f}" in line and "2.00" in line
    assert "→" not in shown(made())


def test_what_is_not_answered_has_no_row() -> None:
    results = made(("a", "t"), {"a": 1.5, "v": 1.5})
    assert results.calibration is not None
    assert [row["condition"] for row in calibration_columns(results.calibration)] == ["a", "t", "pooled"]
    assert results.calibration["mean"]["ECE"] is None
    assert results.calibration["a"]["calibrated_ECE"] is not None
    assert results.calibration["t"]["calibrated_ECE"] is None  # without a temperature
    assert results.calibration["pooled"]["calibrated_ECE"] is None


def test_a_regression_has_none() -> None:
    values = Predictions(Regression(-3, 3), ["u"], np.array([0]), np.array([[0.5]]), np.array([1.0]))
    assert calibration_rows(values, {}) is None


def test_files_hold_it_and_older_ones_are_read_without(tmp_path: Path) -> None:
    results = made(temperatures=dict.fromkeys(CONDITIONS, 2.0))
    results.record = {"command": []}
    paths = write_results(results, tmp_path, predictions=answers())
    assert tmp_path / "reliability.png" in paths
    assert read_result(tmp_path / "metrics.json").calibration == results.calibration
    older = as_json(results)
    del older["calibration"]
    (tmp_path / "older.json").write_text(json.dumps(older), encoding="utf-8")
    assert read_result(tmp_path / "older.json").calibration is None


@pytest.mark.parametrize(
    ("row", "column", "value"),
    [("a", "ECE", 1.5), ("a", "ECE", "0.1"), ("a", "temperature", 0), ("pooled", "calibrated_NLL", -1), ("v", None, 1)],
)
def test_edited_values_are_refused(row: str, column: str | None, value: Any, tmp_path: Path) -> None:
    results = made()
    results.record = {"command": []}
    written = copy.deepcopy(as_json(results))
    if column is None:
        written["calibration"][row] = value
    else:
        written["calibration"][row][column] = value
    (tmp_path / "metrics.json").write_text(json.dumps(written), encoding="utf-8")
    with pytest.raises(InputError, match=r"calibration of|in calibration is no number"):
        read_result(tmp_path / "metrics.json")


def test_bins_of_the_picture() -> None:
    probability = torch.tensor([[0.9, 0.1], [0.95, 0.05], [0.4, 0.6], [1.0, 0.0]], dtype=torch.float64)
    confidence, accuracy, share = bins(probability, torch.tensor([0, 1, 1, 0]))
    # Bins of 1/15: 0.6 in the 9th, 0.9 in the 14th, 0.95 and 1.0 in the 15th.
    assert confidence.tolist() == pytest.approx([0.6, 0.9, 0.975])
    assert accuracy.tolist() == [1.0, 1.0, 0.5]
    assert share.tolist() == [0.25, 0.25, 0.5]


def test_every_row_of_the_table_is_there() -> None:
    results = made()
    assert results.calibration is not None
    assert list(results.calibration) == list(SUMMARY_ROWS)
