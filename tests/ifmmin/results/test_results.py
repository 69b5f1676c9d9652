"""The table, the files beside it, and what Weights & Biases keeps of it."""

from __future__ import annotations

import csv
import io
import json
import math
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
import wandb
from matplotlib.image import imread
from rich.console import Console
from sklearn.metrics import f1_score, recall_score

from datamodules.conditions import CONDITIONS, MISSING_CONDITIONS
from ifmmin.results import provenance
from ifmmin.results.files import as_json, from_json, write_results
from ifmmin.results.provenance import environment_record
from ifmmin.results.results import Results, readable
from ifmmin.results.tables import results_table
from ifmmin.results.tracking import log_to_wandb
from ifmmin.tasks import Classification
from tests.wandb_offline import read_offline_run

CLASS_NAMES = ["angry", "happy", "neutral", "sad"]
BAYES = dict(zip(CONDITIONS, (0.58, 0.54, 0.69, 0.67, 0.76, 0.75, 0.81), strict=True))


def make_results(
    answered: Sequence[str] = CONDITIONS,
    bayes: dict[str, float] | None = None,
    is_synthetic: bool = False,
    record: dict[str, object] | None = None,
) -> Results:
    generator = torch.Generator().manual_seed(3)
    confusion = torch.zeros(7, 4, 4, dtype=torch.int64)
    for condition in answered:
        label = torch.arange(120) % 4
        guess = torch.randint(4, (120,), generator=generator)
        prediction = label.where(torch.rand(120, generator=generator) < 0.6, guess)
        confusion[CONDITIONS.index(condition)].index_put_(
            (label, prediction), torch.ones(120, dtype=torch.int64), accumulate=True
        )
    return Results(
        "IEMOCAP", is_synthetic, "IFMMIN", 3, 7, "test", Classification(CLASS_NAMES), confusion, bayes, record or {}
    )


def rows_of(confusion: torch.Tensor) -> tuple[list[int], list[int]]:
    """Labels and predictions that a confusion matrix counts."""
    cells = [(i, j) for i in range(4) for j in range(4) for _ in range(int(confusion[i, j]))]
    return [i for i, _ in cells], [j for _, j in cells]


def printed(results: Results) -> list[list[str]]:
    """The cells of the printed table, without its lines."""
    console = Console(width=120, file=io.StringIO())
    console.print(results_table(results))
    lines = cast(io.StringIO, console.file).getvalue().splitlines()
    cells = [[cell.strip() for cell in line.replace("┃", "│").strip("│ ").split("│")] for line in lines]
    return [row for row in cells if len(row) > 1]


def test_table_rows_columns_and_values() -> None:
    results = make_results()
    heading, *rows = printed(results)
    assert heading == ["condition", "WA", "UA", "F1"]
    expected = ["{a}", "{v}", "{t}", "{a,v}", "{a,t}", "{v,t}", "mean", "pooled", "full {a,v,t}"]
    assert [row[0] for row in rows] == expected
    label, prediction = rows_of(results.counts[:6].sum(0))
    wa = 100 * np.mean(np.array(label) == np.array(prediction))
    ua = 100 * recall_score(label, prediction, average="macro")
    f1 = 100 * f1_score(label, prediction, average="macro")
    assert rows[7] == ["pooled", f"{wa:.2f}", f"{ua:.2f}", f"{f1:.2f}"]


def test_title_names_the_run() -> None:
    assert make_results().title() == "IFMMIN on IEMOCAP\nfold 3 · seed 7 · test · 120 utterances"
    for corpus, named in (("Synthetic", ""), ("Privileged", " Privileged")):
        title = replace(make_results(is_synthetic=True), corpus=corpus).title()
        assert title.startswith(f"IFMMIN on built-in synthetic corpus{named} (not a corpus result)\n")


def test_invented_recordings_are_named_by_the_corpus_and_kept() -> None:
    results = replace(make_results(is_synthetic=True), corpus="Mine", invented=True)
    assert results.title().startswith("IFMMIN on Mine made of invented recordings (not a corpus result)\n")
    written = as_json(results)
    assert from_json(written).title() == results.title()
    del written["invented"]  # as in a file of an earlier version
    older = from_json(written)
    assert older.invented is None and "built-in synthetic corpus Mine" in older.title()
    assert "invented recordings" in from_json({**written, "corpus": "IEMOCAP"}).title()


def test_bayes_column() -> None:
    results = make_results(bayes=BAYES)
    # Half as many utterances under {a}: pooled Bayes WA weighs the conditions by their size.
    results.counts[0] = torch.diag(torch.full((4,), 15))
    heading, *rows = printed(results)
    assert heading == ["condition", "WA", "UA", "F1", "Bayes WA", "n"]
    values = {row[0]: row[4] for row in rows}
    assert values["{a}"] == "58.00"
    assert values["full {a,v,t}"] == "81.00"
    six = [BAYES[condition] for condition in MISSING_CONDITIONS]
    assert values["mean"] == f"{100 * np.mean(six):.2f}"
    assert values["pooled, by n"] == f"{100 * np.average(six, weights=[60, 120, 120, 120, 120, 120]):.2f}"
    assert [row[5] for row in rows] == ["60", *["120"] * 5, "–", "660", "120"]


def test_a_table_of_unequal_numbers_says_what_they_count() -> None:
    results = make_results(answered=("t", "at"))
    results.counts[2] = torch.diag(torch.full((4,), 15))
    assert printed(results)[0][-1] == "n"
    assert results.label("pooled") == "pooled over {t} {a,t}, by n"
    assert "n: the utterances that have every modality of the condition" in str(results_table(results).caption)
    assert results_table(make_results()).caption is None


def test_what_is_not_answered_is_a_dash() -> None:
    results = make_results(answered=("t", "at"))
    rows = {row[0]: row[1:] for row in printed(results)[1:]}
    dashes = ["–"] * 3
    assert all(rows[name] == dashes for name in ("{a}", "{v}", "{a,v}", "{v,t}", "mean", "full {a,v,t}"))
    assert "pooled" not in rows
    assert dashes not in (rows["{t}"], rows["pooled over {t} {a,t}"])
    nothing = {row[0]: row[1:-1] for row in printed(make_results(answered=()))[1:]}
    assert all(cells == dashes for cells in nothing.values())
    assert "pooled" in nothing


def test_files_hold_the_same_values(tmp_path: Path) -> None:
    results = make_results(answered=("t", "avt"), bayes=BAYES)
    paths = write_results(results, tmp_path / "new" / "folder", prefix="val_")
    assert [path.name for path in paths] == ["val_confusion.png", "val_metrics.csv", "val_metrics.json"]
    assert sorted(paths) == sorted((tmp_path / "new" / "folder").iterdir())
    written = json.loads(paths[2].read_text())
    with paths[1].open(newline="") as file:
        table = list(csv.DictReader(file))
    assert list(table[0]) == ["condition", "WA", "UA", "F1", "bayes_WA", "n"]
    assert [row["condition"] for row in table] == [*MISSING_CONDITIONS, "mean", "pooled", "avt"]
    for row in table:
        values = written["metrics"][row["condition"]]
        for column in ("WA", "UA", "F1", "bayes_WA", "n"):
            assert values[column] == (float(row[column]) if row[column] else None)
    label, prediction = rows_of(results.counts[2])
    assert written["metrics"]["t"]["WA"] == pytest.approx(np.mean(np.array(label) == np.array(prediction)))
    assert written["metrics"]["a"] == {"WA": None, "UA": None, "F1": None, "bayes_WA": 0.58, "n": 0}
    assert written["confusion"]["avt"] == results.counts[6].tolist()
    assert written["class_names"] == CLASS_NAMES
    assert (written["model"], written["fold"], written["seed"], written["split"]) == ("IFMMIN", 3, 7, "test")


def test_record_is_valid_json_whatever_it_holds(tmp_path: Path) -> None:
    record = {
        "config": {"lr": 2e-4, "betas": (0.5, 0.999), "path": Path("/data"), 3: None, "flag": True},
        "loss": math.nan,
        "limits": [math.inf, -math.inf, np.float32("nan"), torch.tensor(math.nan)],
        "numpy": np.int64(5),
        "array": np.array([1.5, np.nan]),
        "tensor": torch.tensor([[1, 2]]),
        "device": torch.device("cpu"),
    }

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    path = write_results(make_results(record=record), tmp_path)[-1]
    assert json.loads(path.read_text(), parse_constant=refuse)["record"] == {
        "config": {"lr": 2e-4, "betas": [0.5, 0.999], "path": "/data", "3": None, "flag": True},
        "loss": None,
        "limits": [None, None, None, None],
        "numpy": 5,
        "array": [1.5, None],
        "tensor": [[1, 2]],
        "device": "cpu",
    }


def test_confusion_picture(tmp_path: Path) -> None:
    full, partial = make_results(), make_results(answered=("t",))
    picture = imread(write_results(full, tmp_path / "full")[0])
    assert picture.shape[0] > 600
    assert picture.shape[1] > 1200
    again = write_results(full, tmp_path / "again")[0]
    assert again.read_bytes() == (tmp_path / "full" / "confusion.png").read_bytes()
    # Unanswered matrices are pale: the mean brightness rises.
    assert imread(write_results(partial, tmp_path / "partial")[0])[..., :3].mean() > picture[..., :3].mean() + 0.02


def test_readable_names() -> None:
    assert [readable(name) for name in ("v", "at", "mean", "avt")] == ["{v}", "{a,t}", "mean", "full {a,v,t}"]


def test_environment_record() -> None:
    record = environment_record()
    assert json.loads(json.dumps(record)) == record
    assert record["versions"]["torch"] == torch.__version__
    assert record["threads"] == torch.get_num_threads()
    age = datetime.now(timezone.utc) - datetime.fromisoformat(record["date"])
    assert timedelta(0) <= age < timedelta(minutes=5)


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_commit_is_that_of_the_checkout_that_tracks_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*arguments: str) -> str:
        who = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
        command = ["git", "-C", str(tmp_path), *who, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    tracked, untracked = tmp_path / "ifmmin" / "report.py", tmp_path / "venv" / "report.py"
    for file in (tracked, untracked):
        file.parent.mkdir()
        file.write_text("1")
    assert provenance._checkout(tracked) == (None, None)
    git("init", "-q")
    git("add", "ifmmin")
    assert provenance._checkout(tracked) == (None, None)  # no commit yet
    git("commit", "-q", "-m", "first")
    commit = git("rev-parse", "HEAD")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))  # as inside a hook of another repository
    assert provenance._checkout(tracked) == (commit, False)
    assert provenance._checkout(untracked) == (None, None)
    tracked.write_text("2")
    assert provenance._checkout(tracked) == (commit, True)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert provenance._checkout(tracked) == (None, None)


def test_wandb_keeps_table_summary_and_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    results = make_results(answered=("v", "t"), bayes=BAYES)
    paths = write_results(results, tmp_path / "run")
    settings = wandb.Settings(silent=True, console="off")
    with wandb.init(mode="offline", project="test", dir=tmp_path, config={"lr": 2e-4}, settings=settings) as run:
        run.log({"train/loss": 1.5})
        # Long enough that one record spans blocks of the file.
        run.config["note"] = "x" * 100_000
        log_to_wandb(results, run, paths)
    back = read_offline_run(tmp_path / "wandb")
    assert back["config"] == {"lr": 2e-4, "note": "x" * 100_000}
    assert back["history"][0]["train/loss"] == 1.5
    for row, values in results.scores().items():
        for metric, value in values.items():
            assert back["summary"].get(f"test/{row}/{metric}") == value
    assert back["summary"]["test/vt/bayes_WA"] == 0.75
    logged = back["history"][-1]
    files = next(tmp_path.rglob("run-*.wandb")).resolve().parent / "files"
    assert {logged["test/table"]["path"], logged["test/confusion"]["path"]} <= set(back["files"])
    assert (files / logged["test/confusion"]["path"]).read_bytes() == paths[0].read_bytes()
    table = json.loads((files / logged["test/table"]["path"]).read_text())
    with paths[1].open(newline="") as file:
        expected = [
            [row["condition"], *(float(v) if v else None for v in list(row.values())[1:])]
            for row in csv.DictReader(file)
        ]
    assert table["columns"] == ["condition", "WA", "UA", "F1", "bayes_WA", "n"]
    assert table["data"] == expected
