"""What is written and printed: results edited by hand, outputs that cannot be written, and names that act."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from datamodules.conditions import CONDITIONS
from datamodules.text import from_csv_cell
from ifmmin.cli.main import main
from ifmmin.results.breakdown import class_rows, class_table, speaker_rows, speaker_table
from ifmmin.results.csv_files import csv_text
from ifmmin.results.figures import confusion_figure, save_figure
from ifmmin.results.predictions import Predictions
from ifmmin.results.results import Results
from ifmmin.results.tables import results_table
from ifmmin.results.uncertainty import utterance_counts
from ifmmin.tasks import Classification
from tests.cli.running import SAMPLES, best, fit, sample
from tests.faults.cases import Case, one_line, table


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fit(tmp_path_factory.mktemp("fitted") / "run", *sample("IEMOCAP"), model="MeanFusion")


@pytest.fixture(scope="module")
def results_of(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The two files that ``compare`` reads, alone: cheap to copy."""
    folder = tmp_path_factory.mktemp("results") / "first"
    folder.mkdir()
    for name in ("metrics.json", "predictions.csv"):
        shutil.copy(run / name, folder)
    return folder


# A result edited by hand, or damaged.


def metrics_edit(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        path = folder / "metrics.json"
        values = json.loads(path.read_text(encoding="utf-8"))
        changed = change(values)
        path.write_text(json.dumps(values if changed is None else changed), encoding="utf-8")

    return make


def put(*keys: str, value: Any) -> Callable[[Path], None]:
    """Set one value of metrics.json, at the end of a path of keys."""

    def change(values: dict[str, Any]) -> None:
        for key in keys[:-1]:
            values = values[key]
        values[keys[-1]] = value

    return metrics_edit(change)


def without(key: str) -> Callable[[Path], None]:
    return metrics_edit(lambda values: {name: value for name, value in values.items() if name != key})


def content(name: str, written: bytes) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        (folder / name).write_bytes(written)

    return make


def pipe(name: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return make


def cell(column: str, value: str, row: int = 0) -> Callable[[Path], None]:
    """Set one cell of predictions.csv."""

    def make(folder: Path) -> None:
        path = folder / "predictions.csv"
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        rows[row][column] = value
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)

    return make


def lines(change: Callable[[list[str]], list[str]]) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        path = folder / "predictions.csv"
        path.write_text("\n".join(change(path.read_text(encoding="utf-8").splitlines())) + "\n", encoding="utf-8")

    return make


EDITED = [
    Case("metrics not there", lambda folder: (folder / "metrics.json").unlink(), "there is no such file"),
    Case("metrics empty", content("metrics.json", b""), "metrics.json: not what a fit or a test writes"),
    Case("metrics cut", content("metrics.json", b'{"model": "Mea'), "metrics.json: not what"),
    Case("metrics a list", content("metrics.json", b"[1, 2]"), "not an object"),
    Case("metrics not UTF-8", content("metrics.json", b'{"model": "\xff"}'), "not UTF-8 text"),
    Case("metrics nested", content("metrics.json", b"[" * 100_000), "nested too deep"),
    Case("metrics a pipe", pipe("metrics.json"), "there is no such file"),
    Case("corpus a number", put("corpus", value=3), "corpus is no str"),
    Case("fold text", put("fold", value="1"), "fold is no int"),
    Case("fold true", put("fold", value=True), "fold is no int"),
    Case("seed a list", put("seed", value=[0]), "seed is no int"),
    Case("seed gone", without("seed"), "seed"),
    Case("split unknown", put("split", value="all"), "split all"),
    Case("split escapes", put("split", value="\x1b[2J"), r"split \x1b[2J"),
    Case("record null", put("record", value=None), "record is no dict"),
    Case("origin incomplete", put("trained_on", value={"corpus": "IEMOCAP"}), "fold"),
    Case("task unknown", put("task", value={"name": "ranking"}), "metrics.json: not what"),
    Case("class names a number", put("class_names", value=4), "metrics.json: not what"),
    Case("a class less", put("class_names", value=["angry", "happy", "sad"]), "not counts"),
    Case("counts gone", without("confusion"), "confusion"),
    Case("counts of a condition gone", metrics_edit(lambda v: v["confusion"].pop("av") and None), "av"),
    Case("counts text", put("confusion", "a", value="many"), "metrics.json: not what"),
    Case("counts negative", put("confusion", "a", value=[[-1, 1, 0, 0]] + [[0] * 4] * 3), "not counts"),
    Case("counts ragged", put("confusion", "a", value=[[1, 2], [3]]), "metrics.json: not what"),
    Case("WA of 200 %", put("metrics", "a", "WA", value=2.0), "WA of a is not what its confusion give"),
    Case("WA of NaN", put("metrics", "pooled", "WA", value=float("nan")), "WA of pooled is not"),
    Case("UA polished", put("metrics", "pooled", "UA", value=0.9), "UA of pooled is not"),
    Case("score text", put("metrics", "a", "F1", value="good"), "metrics.json: not what"),
    Case("score null", put("metrics", "avt", "WA", value=None), "WA of avt is not"),
    Case("metrics null", put("metrics", value=None), "metrics.json: not what"),
    Case("intervals of frames", put("intervals", "over", value="frames"), "intervals over frames"),
    Case("intervals text", put("intervals", "values", "a", "WA", value="wide"), "metrics.json: not what"),
    Case("predictions not there", lambda folder: (folder / "predictions.csv").unlink(), "predictions.csv: not there"),
    Case("predictions empty", content("predictions.csv", b""), "row 1: its columns are not utterance"),
    Case("predictions a picture", content("predictions.csv", b"\x89PNG\xff\xfe"), "not UTF-8 text"),
    Case("predictions a pipe", pipe("predictions.csv"), "there is no such file"),
    Case("heading alone", lines(lambda rows: rows[:1]), "no predictions in it"),
    Case("heading gone", lines(lambda rows: rows[1:]), "row 1: its columns"),
    Case("a column less", lines(lambda rows: [row.rpartition(",")[0] for row in rows]), "row 1: its columns"),
    Case("a row cut", lines(lambda rows: [*rows[:-1], rows[-1][:20]]), "cells, not 11"),
    Case("a row twice", lines(lambda rows: [*rows, rows[-1]]), "is there twice under avt"),
    Case("a row gone", lines(lambda rows: rows[:-1]), "does not agree with the metrics"),
    Case("quotes open", lines(lambda rows: [*rows[:-1], '"' + rows[-1]]), "row"),
    Case("a field of a megabyte", cell("utterance", "x" * 1_000_000), "field larger than field limit"),
    Case("condition unknown", cell("condition", "tv"), "row 2: condition tv is none of a, v, t"),
    Case("probability text", cell("p_sad", "likely"), "could not convert"),
    Case("probability NaN", cell("p_sad", "nan"), "nan is not finite"),
    Case("probability of 7", cell("p_sad", "7"), "do not add up to 1"),
    Case("probability negative", cell("p_sad", "-0.25"), "do not add up to 1"),
    Case("prediction edited", cell("prediction", "excited"), "prediction excited is not the most probable class"),
    Case("label unknown", cell("label", "bored\x1b[2J"), r"row 2: label bored\x1b[2J is none of angry"),
    Case("label of one row edited", cell("label", "angry"), "has two labels"),
    Case("another utterance", cell("utterance", "Ses01F_impro01_F999"), "utterance"),
]


@pytest.mark.parametrize("case", table(EDITED))
def test_an_edited_result_is_refused(
    case: Case, results_of: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edited = Path(shutil.copytree(results_of, tmp_path / "second"))
    case.make(edited)
    words = ["compare", str(results_of), str(edited), "--output", str(tmp_path / "differences.csv")]
    assert case.expected in one_line(capsys, words)
    assert not (tmp_path / "differences.csv").exists()


def test_the_results_as_they_are_compare(results_of: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "differences.csv"
    assert main(["compare", str(results_of), str(results_of), "--output", str(output)]) == 0
    assert "McNemar" in capsys.readouterr().out
    with output.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 9 * 3
    assert {row["difference"] for row in rows} == {"0.0"}
    for words, expected in (
        (["compare", str(results_of), str(results_of), "--output", str(output)], "exists already"),
        (["compare", str(results_of), str(results_of), "--output", "d.xlsx"], "ends in it"),
        (["compare", str(results_of), str(tmp_path / "no")], "no such folder"),
        (["compare", str(results_of)], "second"),
        (["compare", str(results_of), str(tmp_path)], "there is no such file"),
    ):
        assert expected in one_line(capsys, words)


# Outputs that cannot be written, and evaluations of nothing. Each is said before anything is predicted.

Words = Callable[[Path], list[str]]


def faceless(folder: Path) -> list[str]:
    """A corpus without faces, of which the condition with faces alone is asked."""
    (folder / "corpus").mkdir()
    for name in ("A", "L", "target"):
        (folder / "corpus" / name).symlink_to(SAMPLES["IEMOCAP"] / name)
    return ["--data.root", str(folder / "corpus"), "--data.conditions", '["v"]']


def beside_a_record(folder: Path) -> list[str]:
    return ["--output", str(touched(folder / "p.json").with_suffix(".csv"))]


def touched(path: Path) -> Path:
    path.write_text("precious", encoding="utf-8")
    return path


OUTPUTS: list[tuple[str, str, Words, str]] = [
    ("output there", "predict", lambda folder: ["--output", str(touched(folder / "p.csv"))], "exists already"),
    (
        "record there",
        "predict",
        lambda f: ["--output", str(touched(f / "p.json").with_suffix(".csv"))],
        "exists already",
    ),
    ("output a folder", "predict", lambda folder: ["--output", str(folder)], "written as .csv or .parquet"),
    ("output without ending", "predict", lambda f: ["--output", str(f / "predictions")], "written as .csv or .parquet"),
    ("output in a file", "predict", lambda f: ["--output", str(touched(f / "file") / "p.csv")], "file"),
    ("output in /proc", "predict", lambda _: ["--output", "/proc/here/p.csv"], "/proc/here"),
    ("nothing to see", "predict", faceless, "nothing was predicted"),
    ("no batches to test", "test", lambda _: ["--trainer.limit_test_batches", "0"], "limit_test_batches 0"),
    ("no batches to validate", "validate", lambda _: ["--trainer.limit_val_batches", "0"], "limit_val_batches 0"),
    ("intervals over frames", "test", lambda _: ["--intervals", "frames"], "intervals"),
]


@pytest.mark.parametrize(("command", "words", "expected"), [pytest.param(*case, id=name) for name, *case in OUTPUTS])
def test_what_cannot_be_written_is_said(
    command: str,
    words: Words,
    expected: str,
    run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    base = [command, "--model", "MeanFusion", *sample("IEMOCAP"), "--ckpt_path", str(best(run).resolve())]
    given = words(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    monkeypatch.chdir(tmp_path)
    assert expected in one_line(capsys, [*base, "--run_dir", str(tmp_path / "run"), *given])
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before
    assert not (tmp_path / "run").exists()


def test_predictions_have_a_record(run: Path, tmp_path: Path) -> None:
    words = ["predict", "--model", "MeanFusion", *sample("IEMOCAP"), "--ckpt_path", str(best(run))]
    assert main([*words, "--output", str(tmp_path / "p.csv")]) == 0
    record = json.loads((tmp_path / "p.json").read_text(encoding="utf-8"))
    assert (record["model"], record["split"], record["utterances"], record["rows"]) == ("MeanFusion", "test", 10, 70)
    assert record["trained_on"] == {"corpus": "IEMOCAP", "fold": 1, "seed": 0}
    assert record["record"]["data_fingerprint"]


# Names that act where they are shown.

NAMES = {
    "formula": '=HYPERLINK("http://x")',
    "plus": "+1+1",
    "minus": "-1+1",
    "at": "@SUM(A1)",
    "apostrophe": "'=1",
    "comma": "a,b",
    "quote": 'say "no"',
    "newline": "a\nb",
    "return": "a\rb",
    "both": "a\r\nb",
    "separator": "a\u2028b",
    "escape": "a\x1b[2Jb",
    "markup": "[red]a[/red]",
    "closing markup": "[/]",
    "link markup": "[link=file:///etc/passwd]a[/link]",
    "emoji code": ":warning:",
    "mathtext": "$\\frac{",
    "dollar": "5$ a$",
    "face": "😀",
    "long": "x" * 5000,
}


def answered(utterance: str, name: str) -> Predictions:
    """Seven answers for each of two utterances, in classes of which one is called ``name``."""
    answers = torch.tensor([[0.75, 0.25], [0.25, 0.75]]).repeat(7, 1)
    conditions = torch.arange(7).repeat_interleave(2)
    labels = torch.tensor([0, 1]).repeat(7)
    return Predictions(Classification([name, "calm"]), [utterance, "second"] * 7, conditions, answers, labels)


def results_from(predictions: Predictions, corpus: str) -> Results:
    counts = utterance_counts(predictions)[1].sum(0)
    trained_on = {"corpus": corpus * 2, "fold": 1, "seed": 0}
    return Results(corpus, False, "MeanFusion", 1, 0, "test", predictions.task, counts, trained_on=trained_on)


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_a_name_in_csv_is_one_cell_and_no_formula(name: str, tmp_path: Path) -> None:
    predictions = answered(name, name)
    predictions.write(tmp_path / "predictions.csv")
    counts = utterance_counts(predictions)[1]
    speakers = csv_text(speaker_rows(predictions.task, counts, [name, "other"]))
    texts = {
        "utterance": (tmp_path / "predictions.csv").read_bytes().decode(),
        "class": csv_text(class_rows(results_from(predictions, "IEMOCAP"))),
        "speaker": speakers,
    }
    for column, text in texts.items():
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
        assert len(rows) == {"utterance": 14, "class": 16, "speaker": 18}[column]
        found = {row[column] for row in rows}
        assert name in {from_csv_cell(cell) for cell in found}
        assert not any(str(cell).startswith(("=", "+", "-", "@")) for row in rows for cell in row.values())
    conditions = [row["condition"] for row in csv.DictReader(io.StringIO(texts["utterance"], newline=""))]
    assert conditions[::2] == list(CONDITIONS)


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_a_name_in_a_table_is_text(name: str) -> None:
    predictions = answered(name, name)
    results = results_from(predictions, name)
    rows = speaker_rows(predictions.task, utterance_counts(predictions)[1], [name, "other"])
    console = Console(width=400, file=io.StringIO(), force_terminal=False)
    for made in (results_table(results), class_table(class_rows(results)), speaker_table(predictions.task, rows)):
        console.print(made)
    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue()
    assert all(line.isprintable() for line in shown.split("\n"))
    if name.isprintable() and len(name) <= 24:
        assert shown.count(name) >= 3


@pytest.mark.parametrize("which", ["escape", "mathtext", "dollar", "face"])
def test_a_name_in_a_picture_is_text(which: str, tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    name = NAMES[which]
    figure = confusion_figure(results_from(answered(name, name), name))
    figure.set_dpi(20)
    save_figure(figure, tmp_path / "confusion.png")
    assert (tmp_path / "confusion.png").read_bytes().startswith(b"\x89PNG")
    assert not [str(warning.message) for warning in recwarn if "Glyph" in str(warning.message)]
