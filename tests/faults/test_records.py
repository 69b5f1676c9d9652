"""Boards' files edited by hand or made by strangers: each bad line is named, and the others count."""

from __future__ import annotations

import json
import os
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from benchmarks.figures.__main__ import main as figures
from benchmarks.leaderboard.__main__ import main as leaderboard
from benchmarks.leaderboard.__main__ import work
from benchmarks.leaderboard.fanout import Local
from benchmarks.leaderboard.plan import make_jobs, sort_settings
from benchmarks.leaderboard.records import LONGEST_LINE, RECORDS, Record, read_lines
from benchmarks.leaderboard.running import RECORD, Outcome
from datamodules.errors import InputError
from ifmmin.cli.main import reported
from ifmmin.discovery import find_model
from ifmmin.tasks import Regression
from tests.benchmarks.leaderboard.boards import board_records, with_calibration
from tests.faults.cases import judged

Values = dict[str, Any]
GOOD = board_records(["MMIN"], [1], [0])[0]
REGRESSION = Regression(-1.25, 1.25)


@dataclass(frozen=True)
class Edit:
    """One fault of a line.

    Attributes:
        name: what is wrong.
        line: makes the line of a good record.
        expected: part of what the reader says.
    """

    name: str
    line: Callable[[Values], bytes]
    expected: str


def put(*path: Any, value: Any) -> Callable[[Values], bytes]:
    """An edit of one value; the last of ``path`` is its key."""

    def edit(values: Values) -> bytes:
        place: Any = values
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
        return json.dumps(values).encode()

    return edit


def drop(*path: Any) -> Callable[[Values], bytes]:
    """Take one value out."""

    def edit(values: Values) -> bytes:
        place: Any = values
        for key in path[:-1]:
            place = place[key]
        del place[path[-1]]
        return json.dumps(values).encode()

    return edit


def text(change: Callable[[bytes], bytes]) -> Callable[[Values], bytes]:
    """An edit of the written line."""
    return lambda values: change(json.dumps(values).encode())


def raw(line: bytes) -> Callable[[Values], bytes]:
    """Another line altogether."""
    return lambda values: line


def deep(row: str, score: str, value: Any) -> Values:
    """The metrics with one other value."""
    metrics: Values = deepcopy(GOOD["metrics"])
    metrics[row][score] = value
    return metrics


def both(values: Values) -> bytes:
    """Validation, and a selected score that it does not have."""
    values |= {"validation": values["metrics"], "selected": {"name": "val/pooled/UA", "value": 0.0, "epoch": 1}}
    return json.dumps(values).encode()


def calibrated(row: str, column: str, value: Any) -> Callable[[Values], bytes]:
    """Calibration with one other value."""
    measured = with_calibration([GOOD])[0]["calibration"]
    measured[row][column] = value
    return put("calibration", value=measured)


EDITS = [
    # Scores.
    Edit("WA of 200 %", put("metrics", "a", "WA", value=2.0), "WA of {a} is 2.0, above 1"),
    Edit("a negative UA", put("metrics", "av", "UA", value=-0.1), "UA of {a,v} is -0.1, below 0"),
    Edit("a score as text", put("metrics", "mean", "F1", value="0.5"), "F1 of mean is '0.5', not a number"),
    Edit("a score that is true", put("metrics", "a", "WA", value=True), "WA of {a} is True, not a number"),
    Edit("a score that is a list", put("metrics", "a", "WA", value=[0.5]), "WA of {a} is a list of 1, not a number"),
    Edit("a score of 400 digits", put("metrics", "a", "WA", value=10**400), "WA of {a} is a huge number, above 1"),
    Edit("a NaN", put("metrics", "a", "WA", value=float("nan")), "it holds NaN, which is no number"),
    Edit("an infinite score", text(lambda line: line.replace(b'"WA": ', b'"WA": 1e999, "x": ', 1)), "x, no score"),
    Edit("minus infinity", put("wall_time_s", value=float("-inf")), "it holds -Infinity"),
    Edit("another score than the counts give", put("metrics", "a", "WA", value=0.25), "WA of {a} is 0.25, its counts"),
    Edit("a better mean than its six", put("metrics", "mean", "UA", value=0.99), "UA of mean is 0.99, its counts give"),
    Edit("no score where the counts give one", put("metrics", "t", "UA", value=None), "UA of {t} is None, its counts"),
    Edit("another n than counted", put("metrics", "a", "n", value=5), "n of {a} is 5, its counts add up to 553"),
    Edit("n of half an utterance", put("metrics", "a", "n", value=0.5), "n of {a} is 0.5, not a whole number"),
    Edit("a Bayes limit of 3", put("metrics", "a", "bayes_WA", value=3), "bayes_WA of {a} is 3, above 1"),
    Edit("a score nobody knows", put("metrics", "a", "UAR", value=0.5), "metrics of {a} has UAR, no score"),
    Edit("a score too few", drop("metrics", "vt", "F1"), "F1 of {v,t} is missing"),
    Edit("a row too few", drop("metrics", "pooled"), "metrics has the rows"),
    Edit("a row too many", put("metrics", "tv", value={}), "metrics has the rows"),
    Edit("no metrics", drop("metrics"), "metrics"),
    Edit("metrics that are a list", put("metrics", value=[]), "metrics is a list of 0, not a mapping"),
    Edit("a row that is a number", put("metrics", "a", value=0.5), "metrics of {a} is 0.5, not a mapping"),
    # Counts.
    Edit("a negative count", put("confusion", "a", 0, 0, value=-1), "confusion of {a} holds a negative count"),
    Edit("half a count", put("confusion", "a", 0, 0, value=0.5), "confusion of {a} holds something else than whole"),
    Edit("a count as text", put("confusion", "a", 0, 0, value="7"), "confusion of {a} holds something else"),
    Edit("a count that is null", put("confusion", "a", 0, 0, value=None), "confusion of {a} holds something else"),
    Edit("a count of 10^30", put("confusion", "a", 0, 0, value=10**30), "confusion of {a} holds something else"),
    Edit("a count of 10^15", put("confusion", "a", 0, 0, value=10**15), "above 1000000000000"),
    Edit("a confusion of three classes", put("confusion", "a", value=[[1] * 3] * 3), "the shape [3, 3], not [4, 4]"),
    Edit("a ragged confusion", put("confusion", "a", 0, value=[1, 2]), "confusion of {a} is no array of shape [4, 4]"),
    Edit("a flat confusion", put("confusion", "a", value=[1] * 16), "the shape [16], not [4, 4]"),
    Edit("a confusion that is a number", put("confusion", "a", value=7), "the shape [], not [4, 4]"),
    Edit("a condition too few", drop("confusion", "avt"), "confusion has a, at, av, t, v, vt, not a, v"),
    Edit("no confusion", drop("confusion"), "confusion is missing"),
    Edit("a sweep of another shape", put("sweep", "0.3", value=[[1]]), "sweep of 0.3 has the shape [1, 1]"),
    Edit("a sweep at rate 1.5", put("sweep", "1.5", value=[]), "not missing rates from 0.0 to below 1"),
    Edit("a sweep at rate nan", put("sweep", "nan", value=[]), "not missing rates"),
    Edit("a sweep that is text", put("sweep", value="none"), "sweep is 'none', not a mapping"),
    Edit("a curve nobody knows", put("curves", "frame", value={}), "curves has 'frame', which is none of modalities"),
    Edit("a curve of the sweep", put("curves", "modalities", value={}), "curves has 'modalities'"),
    Edit("a curve without a rate", drop("curves", "frames", "0.3"), "curve frames has 0.0, 0.1, 0.2, 0.4"),
    Edit("a curve at rate 3", put("curves", "noise", "3.0", value=[]), "curve noise has 0.0, 0.5, 1.0, 1.5, 2.0, 3.0"),
    Edit("a curve of another shape", put("curves", "noise", "0.5", value=[1]), "curve noise of 0.5 has the shape [1]"),
    Edit("curves that are text", put("curves", value="none"), "curves is 'none', not a mapping"),
    # What was run.
    Edit("fold 0", put("fold", value=0), "fold is 0, below 1"),
    Edit("a fold that is a list", put("fold", value=[1]), "fold is a list of 1, not a whole number"),
    Edit("fold 1.0", put("fold", value=1.0), "fold is 1.0, not a whole number"),
    Edit("fold true", put("fold", value=True), "fold is True, not a whole number"),
    Edit("a seed as text", put("seed", value="0"), "seed is '0', not a whole number"),
    Edit("a negative seed", put("seed", value=-1), "seed is -1, below 0"),
    Edit("a validation split", put("split", value="val"), "split is val, not test"),
    Edit("a model without a name", put("model", value=""), "model has 0 letters"),
    Edit("a model that is null", put("model", value=None), "model is None, not text"),
    Edit("a model that clears the screen", put("model", value="\x1b[2JX"), "'\\x1b[2JX' holds control characters"),
    Edit("a model of two lines", put("model", value="A\nB"), "'A\\nB' holds control characters"),
    Edit("a name that reads from right to left", put("corpus", value="a\u202eb"), "holds control characters"),
    Edit("a name of half a pair of surrogates", put("corpus", value="\ud800"), "holds control characters"),
    Edit("a name of a megabyte", put("model", value="x" * 2**20), "model has 1048576 letters, not 1 to 1000"),
    Edit("a flag as a number", put("is_synthetic", value=1), "is_synthetic is 1, not true or false"),
    Edit("a later flag as a word", put("invented", value="no"), "invented is 'no', not true or false"),
    Edit("calibration of one row", put("calibration", value={"a": {}}), "calibration has not the rows"),
    Edit("ECE of 200 %", calibrated("a", "ECE", 2.0), "ECE of {a} in calibration is no number in its range"),
    Edit("an NLL of 400 digits", calibrated("av", "calibrated_NLL", 10**400), "calibrated_NLL of {a,v} in calibration"),
    Edit("a temperature that is true", calibrated("a", "temperature", True), "temperature of {a} in calibration"),
    Edit("calibration of another measure", calibrated("a", "x", 0.5), "calibration of {a} has not the values"),
    Edit("classes made of others", put("made_of", value={"a": ["b"]}), "made_of has a, not the class names"),
    Edit("one class", put("class_names", value=["a"]), "at least two"),
    Edit("class names in one text", put("class_names", value="abcd"), "class_names is 'abcd', not a list"),
    Edit("a class twice", put("class_names", value=["a", "a", "b", "c"]), "hold one twice"),
    Edit("a class that is a number", put("class_names", 0, value=1), "a class name is 1, not text"),
    Edit("a monitor nobody computes", put("monitor", value="loss"), "monitor 'loss' is no score of its task"),
    Edit("a task nobody knows", put("task", value={"name": "ranking"}), "task 'ranking' is not known"),
    Edit("a task that is text", put("task", value="classification"), "task is 'classification', not a mapping"),
    Edit("a scale of 10^9 levels", put("task", value={"name": "regression", "low": 0, "high": 10**9}), "high of task"),
    Edit("a scale that ends before it begins", put("task", value={"name": "regression", "low": 1, "high": 0}), "scale"),
    Edit("a scale without an end", put("task", value={"name": "regression", "low": 1}), "scale 1..None"),
    # How it was run.
    Edit("a wall time as text", put("wall_time_s", value="60 s"), "wall_time_s is '60 s', not a number"),
    Edit("a negative wall time", put("wall_time_s", value=-1), "wall_time_s is -1, below 0"),
    Edit("half a parameter", put("parameters", value=0.5), "parameters is 0.5, not a whole number"),
    Edit("no date", put("date", value="yesterday"), "date 'yesterday' is no ISO 8601 date"),
    Edit("no identity", put("identity", value=None), "identity is None, not a mapping"),
    Edit("an identity that is a list", put("identity", value=[]), "identity is a list of 0, not a mapping"),
    Edit("an identity without its code", drop("identity", "code"), "identity has config, data, threads, versions"),
    Edit("an identity with a list", put("identity", "data", value=[1]), "data of identity is a list of 1, not text"),
    Edit("a version that is a number", put("versions", "torch", value=2.13), "torch in versions is 2.13, not text"),
    Edit("versions that are text", put("versions", value="2.13"), "versions is '2.13', not a mapping"),
    Edit("a commit that is a list", put("commit", value=[]), "commit is a list of 0, not text"),
    Edit("dirty as text", put("dirty", value="no"), "dirty is 'no', not true or false"),
    Edit("devices 0", put("devices", value=0), "devices is 0, below 1"),
    Edit(
        "a run outside the board", put("run", value="../../secret"), "run '../../secret' is outside the board's folder"
    ),
    Edit("an absolute checkpoint", put("checkpoint", value="/etc/passwd"), "is outside the board's folder"),
    # Where it was trained, and what chose its epoch.
    Edit("trained on text", put("trained_on", value="IEMOCAP"), "trained_on is 'IEMOCAP', not a mapping"),
    Edit(
        "trained on fold 0", put("trained_on", value={"corpus": "A", "fold": 0, "seed": 0}), "fold of trained_on is 0"
    ),
    Edit("trained on no corpus", put("trained_on", value={"fold": 1, "seed": 0}), "corpus of trained_on is None"),
    Edit("validation of 200 %", put("validation", value=deep("a", "WA", 2.0)), "WA of {a} is 2.0, above 1"),
    Edit("validation of one row", put("validation", value={"a": {}}), "validation has the rows a, not"),
    Edit(
        "selected by 120 %", put("selected", value={"name": "val/pooled/UA", "value": 1.2}), "value of selected is 1.2"
    ),
    Edit("selected by nothing", put("selected", value={"name": "loss", "value": 0.1}), "name of selected is 'loss'"),
    Edit("selected by what validation lacks", both, "value of selected is 0.0, validation has"),
    Edit("extraction is text", put("extraction", value="hog"), "extraction is 'hog', not a mapping"),
    Edit("extraction of smell", put("extraction", value={"smell": "nose"}), "extraction has 'smell', which is no"),
    Edit("extraction by a number", put("extraction", value={"audio": 3}), "audio in extraction is 3"),
    Edit("a training set of no utterances", put("train_size", value=0), "train_size is 0, below 1"),
    Edit("a training set that is a list", put("training", value=[]), "training is a list of 0, not text"),
    # The line itself.
    Edit("not UTF-8", text(lambda line: line.replace(b"MMIN", b"M\xff", 1)), "it is not UTF-8"),
    Edit("a NUL", text(lambda line: line.replace(b"MMIN", b"M\x00", 1)), "cut short by a kill, or edited"),
    Edit("nothing but NULs", raw(b"\x00" * 4096), "cut short by a kill, or edited"),
    Edit("cut short", text(lambda line: line[:-20]), "cut short by a kill, or edited"),
    Edit("two records in a line", text(lambda line: line + line), "cut short by a kill, or edited"),
    Edit("a key twice", text(lambda line: line.replace(b'"fold": 1', b'"fold": 1, "fold": 2', 1)), "fold occurs twice"),
    Edit("a list", raw(b"[1, 2]"), "it is no record"),
    Edit("a number of 5000 digits", raw(b"9" * 5000), "cut short by a kill, or edited"),
    Edit("nested 100,000 deep", raw(b"[" * 100_000), "it is nested too deeply"),
    Edit("nested 900 deep", put("metrics", "a", value=json.loads("[" * 900 + "]" * 900)), "metrics of {a} is a list"),
    Edit("longer than any record", raw(b" " * LONGEST_LINE + b"{}"), "it is longer than 4194304 bytes"),
]


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.name)
def test_an_edited_line_is_named_and_the_others_count(edit: Edit, tmp_path: Path) -> None:
    path = tmp_path / RECORDS
    good = json.dumps(GOOD).encode()
    path.write_bytes(b"\n".join([good, edit.line(deepcopy(GOOD)), good, b""]))
    records, wrong = read_lines(path)
    assert records == [Record.from_json(GOOD)] * 2
    assert wrong.keys() == {2}
    assert edit.expected in wrong[2]
    assert wrong[2].isprintable() and len(wrong[2]) < 400


def test_every_edit_has_a_name_of_its_own() -> None:
    assert len({edit.name for edit in EDITS}) == len(EDITS)


def test_a_line_of_100_mb_takes_no_100_mb(tmp_path: Path) -> None:
    path = tmp_path / RECORDS
    with path.open("wb") as file:
        file.truncate(100 * 2**20)  # a hole: no disk is written
        file.seek(0, os.SEEK_END)
        file.write(b"\n" + json.dumps(GOOD).encode())
    tracemalloc.start()
    records, wrong = read_lines(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(records) == 1 and wrong.keys() == {1}
    assert peak < 8 * LONGEST_LINE


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(GOOD)), JSON)
def test_any_value_in_any_field_is_a_record_or_a_reason(tmp_path_factory: Any, name: str, value: Any) -> None:
    path = tmp_path_factory.getbasetemp() / RECORDS
    path.write_text(json.dumps({**GOOD, name: value}), encoding="utf-8")
    records, wrong = read_lines(path)
    assert len(records) + len(wrong) == 1
    assert all(reason.isprintable() and len(reason) < 1200 for reason in wrong.values())


def test_a_regression_of_sums_is_read_and_its_edits_named() -> None:
    counts = {}
    for condition in GOOD["confusion"]:
        sums = [2.0, 0.5, 1.0, 1.5, 0.5, 1.25, 0.75] + [0.0] * 9 + [0.0] * 8
        sums[7 + 8] = 2.0  # both are 1 when rounded
        sums[-8 + 3] = sums[-4 + 3] = 2.0
        counts[condition] = sums
    metrics = REGRESSION.summarise(torch.tensor(list(counts.values()), dtype=torch.float64))
    values = deepcopy(GOOD) | {"task": REGRESSION.spec(), "class_names": [], "sums": counts, "sweep": {}, "curves": {}}
    values |= {"monitor": "MAE", "metrics": {row: {**scores} for row, scores in metrics.items()}}
    del values["confusion"]
    assert Record.from_line(json.dumps(values).encode()).task == REGRESSION
    for path, value, expected in (
        (("metrics", "a", "Corr"), -1.5, "Corr of {a} is -1.5, below -1"),
        (("metrics", "a", "MAE"), -0.1, "MAE of {a} is -0.1, below 0"),
        (("metrics", "a", "MAE"), 0.1, "its counts give 0.25"),
        (("sums", "a", 15), -2.0, "sums of {a} holds a negative count"),
        (("sums", "a", 0), 1e300, "not finite or above"),
    ):
        with pytest.raises(InputError, match=expected.replace("{", r"\{")):
            Record.from_line(put(*path, value=value)(deepcopy(values)))


# Through the commands.

WORDS = ("--data", "Synthetic", "--data.utterances_per_speaker", "12", "--models", "MMIN", "--folds", "1")


@pytest.fixture
def edited(tmp_path: Path) -> Path:
    """A board whose lines are all wrong, each in another way."""
    lines = [edit.line(deepcopy(GOOD)) for edit in EDITS if "longer" not in edit.name]
    (tmp_path / RECORDS).write_bytes(b"\n".join(lines))
    return tmp_path


def test_the_board_names_each_line_and_goes_on(edited: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (edited / RECORDS).read_bytes()
    assert leaderboard([*WORDS, "--board", str(edited), "--report"]) == 0
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    named = [line for line in lines if line.endswith("; it is left out")]
    assert len(named) == len(EDITS) - 1
    assert all(line.isprintable() and "records.jsonl line " in line for line in lines[:-1])
    assert lines[-1] == "no run is recorded, so there is no table" and not printed.err
    assert (edited / RECORDS).read_bytes() == before


def test_what_was_trained_elsewhere_is_named_and_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    elsewhere = deepcopy(GOOD) | {"trained_on": {"corpus": "MSP-IMPROV", "fold": 1, "seed": 0}, "corpus": "Synthetic"}
    (tmp_path / RECORDS).write_text(json.dumps(elsewhere) + "\n", encoding="utf-8")
    assert leaderboard([*WORDS, "--seeds", "1", "--board", str(tmp_path), "--report"]) == 0
    assert "not used: 1 record(s) of MMIN: trained on MSP-IMPROV fold 1" in capsys.readouterr().out
    assert figures([str(tmp_path)]) == 1
    assert "models trained elsewhere, such as trained on MSP-IMPROV fold 1" in capsys.readouterr().out


def test_figures_name_each_line_and_draw_nothing(edited: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert figures([str(edited)]) == 1
    printed = capsys.readouterr()
    assert printed.out.count("; it is left out\n") == len(EDITS) - 1
    assert "no record in it" in judged(printed.err)


@pytest.mark.parametrize("kind", ["folder", "FIFO", "link to a folder", "link to /dev/zero"])
def test_records_that_are_no_file_are_one_line(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / RECORDS
    if kind == "folder":
        path.mkdir()
    elif kind == "FIFO":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero" if "zero" in kind else tmp_path)

    def command() -> int:
        if kind == "FIFO":
            return leaderboard([*WORDS, "--board", str(tmp_path), "--report"])
        return reported(lambda: len(read_lines(path)))

    codes: list[int] = []
    # In a thread, for a reader of a FIFO waits without end.
    thread = threading.Thread(target=lambda: codes.append(command()), daemon=True)
    thread.start()
    thread.join(timeout=60)
    assert codes == [1]
    assert "not a file; move it away" in judged(capsys.readouterr().err)


@pytest.mark.parametrize("what", ["{", "[]", json.dumps(GOOD)])
def test_a_record_edited_in_a_runs_folder_is_made_again(
    what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = {"MMIN": find_model("MMIN")}
    (job,) = make_jobs(models, sort_settings([], models), {1: "data"}, [0], threads=1)
    kept = tmp_path / job.folder / RECORD
    kept.parent.mkdir(parents=True)
    kept.write_text(what, encoding="utf-8")
    asked: list[str] = []

    class Nobody(Local):
        def run(self, jobs: Any, board: Path, started: Any) -> Iterator[Outcome]:
            asked.extend(map(str, jobs))
            return iter(())

    done: dict[Any, Record] = {}
    assert work([job], done, tmp_path, Nobody(1, {}), Console(soft_wrap=True)) == []
    assert "it is made again" in capsys.readouterr().out
    assert not done and not kept.exists() and asked[-1] == "MMIN fold 1 seed 0"
