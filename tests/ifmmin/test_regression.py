"""A corpus of values, end to end: every model that claims regression trains, is scored, predicts and is tabled."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from sklearn.metrics import mean_absolute_error

from benchmarks.leaderboard.records import Record
from benchmarks.leaderboard.report.page import write_page
from benchmarks.leaderboard.report.rows import board_table
from benchmarks.leaderboard.report.tables import csv_text, terminal_tables, write_tables
from benchmarks.leaderboard.summary import Summary, summarise_board
from datamodules.conditions import CONDITIONS
from datamodules.errors import InputError
from ifmmin import Predictor
from ifmmin.cli import main
from ifmmin.discovery import discover_models
from ifmmin.results.files import table_json
from ifmmin.results.results import Results
from ifmmin.results.tables import results_table
from ifmmin.tasks import SUMMARY_ROWS, Regression
from tests.cli.running import SMALL, best, end_to_end, fit, metrics
from tests.datamodules.corpora import write_regression_corpus

CORPUS = "tests.datamodules.corpora.RegressionSample"
SCORES = [score.name for score in Regression().scores]
MODELS = {name: model for name, model in discover_models().items() if "regression" in model.tasks}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_regression_corpus(tmp_path_factory.mktemp("values"), utterances=60)


@pytest.fixture(scope="module")
def run(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    learn = ["--model.learning_rate", "0.01", "--model.batch_size", "16", "--trainer.max_epochs", "30"]
    words = ["fit", "--model", "MeanFusion", "--data", CORPUS, "--data.root", str(corpus), "--run_dir", str(folder)]
    assert main([*words, *learn]) == 0
    return folder


@pytest.mark.parametrize("name", sorted(MODELS))
def test_every_model_that_claims_regression_has_a_finite_loss_and_one_output(name: str) -> None:
    from tests.batches import DIMS, random_batch
    from tests.ifmmin.models import build

    torch.manual_seed(0)
    model = build(name, class_names=[], task=Regression().spec()).train()
    batch = random_batch(6)
    batch.labels = torch.linspace(-3, 3, 6)
    losses = model.losses(batch)
    assert all(bool(value.isfinite()) for value in losses.values())
    model.total_loss(losses).backward()
    assert model.eval()(batch).shape == (6, 1)
    assert model.feature_dims == list(DIMS)


@pytest.mark.parametrize("name", end_to_end(MODELS))
def test_every_model_of_values_trains_is_scored_and_predicts(name: str, tmp_path: Path) -> None:
    small = ["--data", "SyntheticSentiment", *SMALL]
    run = fit(tmp_path / "run", *small, model=name, epochs=2)
    written = metrics(run)
    limits = {row: scores["bayes_MAE"] for row, scores in written["metrics"].items()}
    assert {row for row, limit in limits.items() if limit is None} <= {"mean", "pooled"}  # where not all is answered
    assert written["monitor"]["name"].endswith("/MAE")
    answered = {row: scores for row, scores in written["metrics"].items() if scores["n"]}
    assert "avt" in answered
    assert all(0 < scores["MAE"] < 6 for scores in answered.values())
    output = tmp_path / "predictions.csv"
    words = ["--model", name, *small, "--ckpt_path", str(best(run)), "--output", str(output)]
    assert main(["predict", *words, "--run_dir", str(tmp_path / "predict")]) == 0
    rows = list(csv.DictReader(output.open(encoding="utf-8")))
    for condition in CONDITIONS:
        own = [row for row in rows if row["condition"] == condition]
        assert len(own) == (answered[condition]["n"] if condition in answered else 0)
        if own:
            predicted, label = ([float(row[column]) for row in own] for column in ("prediction", "label"))
            assert mean_absolute_error(label, predicted) == pytest.approx(answered[condition]["MAE"], abs=1e-4)


@pytest.mark.parametrize("name", sorted({*discover_models()} - {*MODELS}))
def test_a_model_of_classes_says_so_in_one_line(name: str, corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--model", name, "--data", CORPUS, "--data.root", str(corpus)]) == 1
    said = capsys.readouterr().err
    assert f"{name}: does classification, not regression" in said
    assert said.count("\n") == 1


def test_it_learns_and_the_best_epoch_has_the_least_error(run: Path, corpus: Path) -> None:
    written = metrics(run)
    assert written["task"] == {"name": "regression", "low": -3.0, "high": 3.0}
    assert list(written["metrics"]) == list(SUMMARY_ROWS)
    assert list(written["metrics"]["pooled"]) == [*SCORES, "bayes_MAE", "n"]
    full = written["metrics"]["avt"]
    assert full["MAE"] < 1.0 < 1.5  # the mean of uniform values has an error of 1.5
    assert full["Corr"] > 0.8
    logged = list(csv.DictReader((run / "logs" / "metrics.csv").open()))
    by_epoch = {int(row["epoch"]) + 1: float(row["val/pooled/MAE"]) for row in logged if row["val/pooled/MAE"]}
    chosen = int(best(run).stem.removeprefix("epoch"))
    assert by_epoch[chosen] == min(by_epoch.values())
    assert (run / "confusion.png").stat().st_size > 10_000


def test_predictions_are_values_and_score_the_same(run: Path, corpus: Path, tmp_path: Path) -> None:
    output = tmp_path / "predictions.csv"
    words = ["predict", "--model", "MeanFusion", "--data", CORPUS, "--data.root", str(corpus), "--ckpt_path"]
    assert main([*words, str(best(run)), "--run_dir", str(tmp_path / "p"), "--output", str(output)]) == 0
    rows = [row for row in csv.DictReader(output.open()) if row["condition"] == "avt"]
    predicted, label = (np.array([float(row[name]) for row in rows]) for name in ("prediction", "label"))
    assert mean_absolute_error(label, predicted) == pytest.approx(metrics(run)["metrics"]["avt"]["MAE"], abs=1e-5)
    answer = Predictor.load(best(run)).predict({"audio": np.ones((4, 5), dtype=np.float32)})
    assert list(answer) == ["value"]


def test_a_monitor_of_another_task_is_refused() -> None:
    with pytest.raises(InputError, match="monitor UA: the scores of a regression are MAE"):
        MODELS["MeanFusion"](feature_dims=[5, 6, 7], task=Regression().spec(), monitor="UA")


BETTER = 0.1
"""How much better than `Good` the Bayes rule of these records is."""


def board_of_values(run: Path) -> Summary:
    """Two models on two folds, one half a point worse, beside the MAE of a Bayes rule."""
    result = metrics(run)
    made = result.pop("record")
    identity = {"config": "c", "code": "c", "data": "d", "threads": 1, "versions": {}}
    rest = {"identity": identity, "monitor": "MAE", "run": "r", "checkpoint": "c", "sweep": {}}
    records = []
    for name, worse in (("Good", 0.0), ("Bad", 0.5)):
        values = {
            row: {**scores, "MAE": scores["MAE"] + worse, "bayes_MAE": scores["MAE"] - BETTER}
            for row, scores in result["metrics"].items()
        }
        for fold in (1, 2):
            own = {"model": name, "metrics": values, "fold": fold, "trained_on": None}
            records.append(Record.from_json({**made, **result, **rest, **own}))
    return summarise_board(records, reference="Bad")


def test_a_board_of_values_ranks_the_least_error_first(run: Path, tmp_path: Path) -> None:
    summary = board_of_values(run)
    assert [entry.model for entry in summary.entries] == ["Good", "Bad"]
    assert [entry.rank["MAE"] for entry in summary.entries] == [1, 2]
    assert [set(models) for models in summary.leaders("MAE", "mean")] == [{"Good"}, {"Bad"}]
    test = summary.entries[0].test["MAE"]
    assert test is not None and test.difference == pytest.approx(-0.5)
    assert len(terminal_tables(summary)) == len(SCORES)
    for path in [*write_tables(summary, tmp_path), write_page(summary, tmp_path / "board.html")]:
        assert "MAE" in path.read_text(encoding="utf-8")
    assert "MAE: mean ± sample standard deviation" in (tmp_path / "leaderboard.md").read_text(encoding="utf-8")


def test_a_board_of_values_has_the_limit_below_its_errors(run: Path) -> None:
    summary = board_of_values(run)
    result = metrics(run)["metrics"]
    assert summary.bayes == pytest.approx({row: result[row]["MAE"] - BETTER for row in SUMMARY_ROWS})
    for entry, gap in zip(summary.entries, (BETTER, BETTER + 0.5), strict=True):
        assert entry.gap == pytest.approx(dict.fromkeys(SUMMARY_ROWS, gap))
    for score in summary.scores:
        table = board_table(summary, score)
        limits = [row for row in table.rows if row.kind == "limit"]
        assert len(limits) == (score.name == "MAE")
        assert ("gap" in [column.key for column in table.columns]) == (score.name == "MAE")
    (limit,) = (row for row in board_table(summary, summary.task.score("MAE")).rows if row.kind == "limit")
    assert limit.cells["avt"].text == f"{result['avt']['MAE'] - BETTER:.3f}"
    for row in csv.DictReader(io.StringIO(csv_text(summary))):
        if row["kind"] == "measured" and row["metric"] == "MAE":
            assert float(row["bayes"]) == pytest.approx(result[row["condition"]]["MAE"] - BETTER, abs=0.0006)
            assert float(row["gap"]) == pytest.approx(float(row["mean"]) - float(row["bayes"]), abs=0.0011)
        else:
            assert row["bayes"] == row["gap"] == ""


def test_the_table_of_a_run_has_the_limit_where_it_is_known(run: Path) -> None:
    counts = torch.tensor([metrics(run)["sums"][condition] for condition in CONDITIONS], dtype=torch.float64)
    limits = dict(zip(CONDITIONS, (1.1, 1.2, 0.9, 1.0, 0.8, 0.7, 0.6), strict=True))
    results = Results("SyntheticSentiment", True, "MeanFusion", 1, 0, "test", Regression(), counts, limits)
    written = table_json(results)
    assert written["avt"]["bayes_MAE"] == 0.6 and written["mean"]["bayes_MAE"] == pytest.approx(5.7 / 6)
    shown = Console(width=200, record=True, file=io.StringIO())
    shown.print(results_table(results))
    text = shown.export_text()
    assert "Bayes MAE" in text and "0.950" in text and "Bayes WA" not in text
