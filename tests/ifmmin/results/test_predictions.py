"""Prediction files, read back by other programs' readers and compared value by value."""

from __future__ import annotations

import csv
import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
import torch
from torch import Tensor

from datamodules.conditions import CONDITIONS
from datamodules.errors import InputError
from ifmmin.results import predictions
from ifmmin.results.predictions import Predictions, check_predictions_path
from ifmmin.tasks import Classification, Regression

CLASS_NAMES = ["angry", "happy, excited", 'so-called "neutral"', "Trauer und Müdigkeit"]
UTTERANCES = ["Ses01F_impro01_F000", "a,b", 'say "no"', "ünï çode/7"]
ROWS = len(UTTERANCES) * len(CONDITIONS)


@pytest.fixture
def arguments() -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    logits = 30 * torch.randn(ROWS, len(CLASS_NAMES), generator=generator)  # probabilities down to denormals
    return {
        "utterances": [name for name in UTTERANCES for _ in CONDITIONS],
        "conditions": torch.arange(len(CONDITIONS)).repeat(len(UTTERANCES)),
        "answers": logits.softmax(dim=1),
        "task": Classification(CLASS_NAMES),
        "labels": torch.randint(-1, len(CLASS_NAMES), (ROWS,), generator=generator),
    }


def read(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".csv":
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    return list(pyarrow.parquet.read_table(path).to_pylist())


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("chunk", [5, 50_000])
def test_every_value_reads_back(
    tmp_path: Path, arguments: dict[str, Any], suffix: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predictions, "_CHUNK", chunk)
    path = tmp_path / "new folder" / f"predictions{suffix}"
    Predictions(**arguments).write(path)
    rows = read(path)
    columns = ["utterance", "condition", "audio", "visual", "text"]
    columns += [f"p_{name}" for name in CLASS_NAMES] + ["prediction", "label"]
    assert len(rows) == ROWS
    for i, row in enumerate(rows):
        assert list(row) == columns
        condition = CONDITIONS[i % len(CONDITIONS)]
        probabilities: Tensor = arguments["answers"][i]
        label = int(arguments["labels"][i])
        unknown = "" if suffix == ".csv" else None
        assert row["utterance"] == arguments["utterances"][i]
        assert row["condition"] == condition
        assert [int(row[name]) for name in ("audio", "visual", "text")] == [int(m in condition) for m in "avt"]
        assert row["prediction"] == CLASS_NAMES[max(range(len(CLASS_NAMES)), key=lambda k: probabilities[k].item())]
        assert row["label"] == (unknown if label < 0 else CLASS_NAMES[label])
        values = np.array([float(row[f"p_{name}"]) for name in CLASS_NAMES], dtype=np.float32)
        np.testing.assert_array_equal(values, probabilities.numpy())
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_parquet_keeps_the_types(tmp_path: Path, arguments: dict[str, Any]) -> None:
    path = tmp_path / "predictions.parquet"
    Predictions(**arguments).write(path)
    types = [str(column.type) for column in pyarrow.parquet.read_schema(path)]
    assert types == ["string"] * 2 + ["int8"] * 3 + ["float"] * len(CLASS_NAMES) + ["string"] * 2


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_no_rows(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"predictions{suffix}"
    nothing = torch.zeros(0, dtype=torch.int64)
    Predictions(Classification(["angry", "sad"]), [], nothing, torch.zeros(0, 2), nothing).write(path)
    assert path.stat().st_size > 0
    assert read(path) == []


def test_bfloat16_probabilities(tmp_path: Path, arguments: dict[str, Any]) -> None:
    arguments["answers"] = arguments["answers"].bfloat16()
    Predictions(**arguments).write(tmp_path / "predictions.csv")
    values = [float(row["p_angry"]) for row in read(tmp_path / "predictions.csv")]
    assert torch.equal(torch.tensor(values).bfloat16(), arguments["answers"][:, 0])


@pytest.mark.parametrize("name", ["predictions", "predictions.tsv", "predictions.csv.gz"])
def test_other_endings_are_refused(tmp_path: Path, arguments: dict[str, Any], name: str) -> None:
    with pytest.raises(InputError, match=r"\.csv or \.parquet") as error:
        Predictions(**arguments).write(tmp_path / name)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_parquet_without_pyarrow_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_predictions_path(tmp_path / "predictions.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert importlib.util.find_spec("pyarrow") is None
    with pytest.raises(InputError, match=r'pip install "ifmmin\[parquet\]"'):
        check_predictions_path(tmp_path / "predictions.parquet")
    check_predictions_path(tmp_path / "predictions.csv")


def test_a_probability_that_is_not_finite_names_the_utterance(tmp_path: Path, arguments: dict[str, Any]) -> None:
    arguments["answers"][9, 1] = float("nan")
    with pytest.raises(InputError, match=r"utterance a,b .* condition t;"):
        Predictions(**arguments).write(tmp_path / "predictions.csv")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("utterances", ["one"]),
        ("conditions", torch.zeros(3, dtype=torch.int64)),
        ("conditions", torch.full((ROWS,), 7)),
        ("task", Classification(["angry", "sad"])),
        ("labels", torch.zeros(3, dtype=torch.int64)),
        ("labels", torch.full((ROWS,), -2)),
    ],
)
def test_arguments_that_do_not_fit(tmp_path: Path, arguments: dict[str, Any], name: str, value: object) -> None:
    with pytest.raises(ValueError, match=r"do not fit|outside its range"):
        Predictions(**{**arguments, name: value}).write(tmp_path / "predictions.csv")


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_failure_leaves_the_old_file(
    tmp_path: Path, arguments: dict[str, Any], suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"predictions{suffix}"
    path.write_text("old")

    def disk_full(temporary: Path, *_: object) -> None:
        temporary.write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(predictions, f"_write_{suffix[1:]}", disk_full)
    with pytest.raises(OSError, match="No space left"):
        Predictions(**arguments).write(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_values_of_a_regression_read_back(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"predictions{suffix}"
    values, labels = torch.tensor([[0.1], [-2.5]]), torch.tensor([1.5, torch.nan])
    Predictions(Regression(), ["one", "two"], torch.tensor([0, 6]), values, labels).write(path)
    first, second = read(path)
    assert list(first) == ["utterance", "condition", "audio", "visual", "text", "prediction", "label"]
    assert np.float32(first["prediction"]) == np.float32(0.1)
    assert (float(first["label"]), float(second["prediction"])) == (1.5, -2.5)
    assert second["label"] in ("", None)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("task", ["classification", "regression"])
def test_further_values_come_last(tmp_path: Path, arguments: dict[str, Any], suffix: str, task: str) -> None:
    if task == "regression":
        arguments |= {"task": Regression(), "answers": torch.zeros(ROWS, 1), "labels": torch.zeros(ROWS)}
    sigma = torch.linspace(0.1, 1, ROWS)
    sigma[3] = torch.nan
    Predictions(**arguments, values={"sigma": sigma, "experts": torch.arange(ROWS)}).write(tmp_path / f"p{suffix}")
    rows = read(tmp_path / f"p{suffix}")
    assert list(rows[0])[-3:] == ["label", "sigma", "experts"]
    for i, row in enumerate(rows):
        assert float(row["experts"]) == i
        assert row["sigma"] in ("", None) if i == 3 else np.float32(row["sigma"]) == sigma[i].numpy()


@pytest.mark.parametrize(
    ("values", "error", "expected"),
    [
        ({"sigma": torch.zeros(3)}, ValueError, "28 utterances do not fit sigma"),
        ({"label": torch.zeros(ROWS)}, ValueError, "called label, like another column"),
        ({"sigma": torch.full((ROWS,), torch.inf)}, InputError, "sigma of utterance Ses01F_impro01_F000 is infinite"),
    ],
)
def test_further_values_that_do_not_fit(
    tmp_path: Path, arguments: dict[str, Any], values: dict[str, Tensor], error: type[Exception], expected: str
) -> None:
    with pytest.raises(error, match=expected):
        Predictions(**arguments, values=values).write(tmp_path / "predictions.csv")
    assert list(tmp_path.iterdir()) == []
