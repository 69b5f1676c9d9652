"""The command, with runs that are not trained: its tables, files, and what it does when it is started again."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.leaderboard.fanout import Local
from benchmarks.leaderboard.plan import Job
from benchmarks.search import finishing
from benchmarks.search.__main__ import main
from tests.benchmarks.search.searches import Fake, Formula, smooth

WORDS = ["--model", "ModalityDropout", "--data", "Synthetic", "--data.utterances_per_speaker", "12"]
Search = Callable[..., list[str]]


@pytest.fixture
def tests(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The test runs, which are not made."""
    made: list[list[str]] = []

    def run_module(words: list[str], log: Path, threads: int, environment: dict[str, str]) -> str | None:
        made.append(words)
        assert "--data.withhold_test" not in words
        scores = {row: {"UA": 0.5 + 0.01 * len(made)} for row in ("pooled", "avt")}
        folder = Path(words[words.index("--run_dir") + 1])
        folder.mkdir(parents=True)
        (folder / "metrics.json").write_text(json.dumps({"metrics": scores}), encoding="utf-8")
        return None

    monkeypatch.setattr(finishing, "run_module", run_module)
    return made


@pytest.fixture
def search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Search:
    """Search in a folder; the runs that were made."""
    formula: list[Formula] = [smooth]
    done: list[str] = []

    def worker(self: Local, board: Path) -> Fake:
        fake = Fake(board, formula[0])
        fake.done = done
        return fake

    monkeypatch.setattr(Local, "worker", worker)

    def run(*words: str, code: int = 0, score: Formula = smooth) -> list[str]:
        formula[0] = score
        done.clear()
        assert main([*WORDS, "--folder", str(tmp_path / "search"), *words]) == code
        return list(done)

    return run


def lines(folder: Path) -> list[dict[str, str]]:
    with (folder / "trials.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_search_and_its_files(
    search: Search, tests: list[list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "search"
    assert len(search("--trials", "12", "--trainer.max_epochs", "3")) == 13
    printed = capsys.readouterr().out
    table = lines(folder)
    assert [line["trial"] for line in table] == [str(number) for number in range(12)]
    best = max(table, key=lambda line: float(line["validation"]))
    for line in table:
        options = {f"--{name}": line[name] for name in ("model.learning_rate", "model.dropout")}
        assert float(line["validation"]) == smooth(options, Job("", "", 1, 0, (), (), {}))
    assert "default configuration: 71.50 %" in printed
    assert f"trial {best['trial']} of 12, UA {100 * float(best['validation']):.2f} % on validation" in printed
    assert "[12/12]" in printed and "tested once" in printed
    assert "opened once" in " ".join(printed.split()) and "too high by chance" in " ".join(printed.split())
    # The best trial and the default, once each.
    assert [Path(words[words.index("--run_dir") + 1]).name for words in tests] == [
        "best-fold1-seed0",
        "default-fold1-seed0",
    ]
    assert f"trials/{int(best['trial']):04d}/" in tests[0][tests[0].index("--ckpt_path") + 1]
    assert "51.00 %" in printed and "52.00 %" in printed
    written = yaml.safe_load((folder / "best.yaml").read_text(encoding="utf-8"))
    names = ("learning_rate", "weight_decay", "dropout")
    assert written["model"]["init_args"] == {name: float(best[f"model.{name}"]) for name in names}
    assert written["data"]["init_args"] == {"utterances_per_speaker": 12, "fold": 1}
    assert written["trainer"] == {"max_epochs": 3} and written["seed_everything"] == 0
    assert (folder / "search.png").stat().st_size > 10_000 and (folder / "search.pdf").is_file()


def test_started_again_it_neither_trains_nor_tests(
    search: Search, tests: list[list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    search("--trials", "6")
    first = capsys.readouterr().out
    before = {path: path.read_bytes() for path in (tmp_path / "search").glob("*.[cjp]*")}
    assert search("--trials", "6") == [] and len(tests) == 2
    again = capsys.readouterr().out
    assert "6 of 6 trials done" in again
    assert again[again.index("ModalityDropout: trial") :] == first[first.index("ModalityDropout: trial") :]
    assert {path: path.read_bytes() for path in before} == before


def test_more_trials_after_the_test_are_not_tested(
    search: Search, tests: list[list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    search("--trials", "3")
    first = json.loads((tmp_path / "search" / "test.json").read_text(encoding="utf-8"))
    capsys.readouterr()

    def better(options: dict[str, str], job: Job) -> float:
        return 0.95

    assert len(search("--trials", "5", score=better)) == 2 and len(tests) == 2
    printed = " ".join(capsys.readouterr().out.split())
    assert "trial 3 of 5, UA 95.00 %" in printed
    assert f"trial 3 was found after the test of trial {first['trial']}; it is not tested" in printed
    assert json.loads((tmp_path / "search" / "test.json").read_text(encoding="utf-8")) == first
    kept = {path.parents[2].name for path in (tmp_path / "search" / "trials").rglob("*.ckpt")}
    assert kept == {f"{first['trial']:04d}", "0003"}


def test_a_test_that_was_cut_short_goes_on_with_the_same_trial(
    search: Search, tests: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fine = getattr(finishing, "run_module")  # noqa: B009
    monkeypatch.setattr(finishing, "run_module", lambda *words: "killed by signal 9")
    search("--trials", "3", code=1)
    pinned = json.loads((tmp_path / "search" / "test.json").read_text(encoding="utf-8"))
    assert pinned["scores"] == {}
    monkeypatch.setattr(finishing, "run_module", fine)
    search("--trials", "3")
    done = json.loads((tmp_path / "search" / "test.json").read_text(encoding="utf-8"))
    assert done["trial"] == pinned["trial"] and len(tests) == 2 and set(done["scores"]) == {"best", "default"}


def test_without_a_test(search: Search, tests: list[list[str]], tmp_path: Path) -> None:
    search("--trials", "2", "--no-test")
    assert tests == [] and not (tmp_path / "search" / "test.json").exists()
    assert search("--trials", "2") == [] and len(tests) == 2


def test_where_the_default_fails_the_best_trial_is_tested_alone(
    search: Search, tests: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(options: dict[str, str], job: Job) -> float:
        if job.folder.startswith("default"):
            raise ValueError("the training loss is nan")
        return smooth(options, job)

    search("--trials", "3", score=fails)
    assert "default configuration: failed" in capsys.readouterr().out and len(tests) == 1


def test_where_all_trials_fail_one_line_says_why(
    search: Search, tests: list[list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(options: dict[str, str], job: Job) -> float:
        raise ValueError("the training loss is nan")

    search("--trials", "3", score=fails, code=1)
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith(
        "error: all 3 trials failed; the first: ModalityDropout fold 1 seed 0: the training loss is nan"
    )
    assert tests == [] and [each["state"] for each in lines(tmp_path / "search")] == ["failed"] * 3


def test_a_full_disk_ends_the_search_and_costs_no_trial(
    search: Search, tests: list[list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(options: dict[str, str], job: Job) -> float:
        if "0002" in job.folder:
            raise OSError("No space left on device")
        return smooth(options, job)

    search("--trials", "5", score=full, code=1)
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line == "error: trial 2: No space left on device; the same command goes on."
    assert [each["state"] for each in lines(tmp_path / "search")] == ["done", "done", "unfinished"]
    assert search("--trials", "5")[0].startswith("trials/0002/")
    assert {each["state"] for each in lines(tmp_path / "search")} == {"done"} and len(tests) == 2


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["--model", "MeanFusion"], "model, space"),
        (["--seed", "1"], "sampler seed"),
        (["--data.utterances_per_speaker", "13"], "options, data"),
        (["--model.dropout", "0.4"], "space, options"),
    ],
)
def test_the_folder_of_another_search_is_refused(
    words: list[str],
    what: str,
    search: Search,
    tests: list[list[str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    search("--trials", "1", "--no-test")
    capsys.readouterr()
    before = (tmp_path / "search" / "journal.log").read_bytes()
    assert search("--trials", "1", "--no-test", *words, code=1) == []
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "holds a search with another" in line
    differing: Any = line.partition("with another ")[2].partition(";")[0].split(", ")
    assert set(what.split(", ")) <= set(differing)
    assert (tmp_path / "search" / "journal.log").read_bytes() == before
