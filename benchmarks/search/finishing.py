"""The end of a search: the best configuration as a file, and its one test."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import yaml

from benchmarks.leaderboard.plan import Job, Option
from benchmarks.leaderboard.running import LOG, best_checkpoint, read_metrics, run_module
from benchmarks.search.objective import DEFAULT, WITHHELD, Plan, place_of
from benchmarks.search.space import options_of
from datamodules.conditions import COMPLETE
from datamodules.errors import InputError
from datamodules.files import write_text
from datamodules.text import printable
from ifmmin import runs

TEST = "test.json"
BEST = "best.yaml"


@dataclass(frozen=True)
class Tested:
    """The one look at the test split.

    Attributes:
        trial: the trial that was the best then.
        trials: how many there were.
        scores: by ``best`` and ``default``, the selecting score and, if answered, that of complete utterances; empty
            before it is done.
    """

    trial: int
    trials: int
    scores: Mapping[str, Mapping[str, float]]


def read_test(folder: Path) -> Tested | None:
    """What was tested, None before the test was begun.

    Raises:
        InputError: the file is damaged; another test must not come of it.
    """
    path = folder / TEST
    if not path.is_file():
        return None
    try:
        written = json.loads(path.read_text(encoding="utf-8"))
        scores = {str(name): {str(k): float(v) for k, v in each.items()} for name, each in written["scores"].items()}
        return Tested(int(written["trial"]), int(written["trials"]), scores)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{printable(path)}: damaged; it says what was tested, so put back a copy. To test again is another search."
        ) from error


def _write(folder: Path, tested: Tested) -> Tested:
    write_text(folder / TEST, json.dumps(vars(tested), indent=1) + "\n")
    return tested


def test_once(plan: Plan, trial: int, values: Mapping[str, Any], trials: int, with_default: bool) -> Tested:
    """Test the best trial and the default configuration by the checkpoints of their best epochs, once.

    What is tested is written before the test split is opened: a search that is killed in between goes on with it.

    Args:
        plan: of the search.
        trial: the best one, unless another was begun with.
        values: its values.
        trials: how many there are.
        with_default: whether the default configuration was trained.

    Raises:
        InputError: a test fails.
    """
    tested = read_test(plan.folder) or _write(plan.folder, Tested(trial, trials, {}))
    if tested.scores:
        return tested
    scores = {"best": _test(plan, plan.jobs(values, place_of(tested.trial)), "best")}
    if with_default:
        scores[DEFAULT] = _test(plan, plan.jobs({}, DEFAULT), DEFAULT)
    return _write(plan.folder, Tested(tested.trial, tested.trials, scores))


def _test(plan: Plan, jobs: Sequence[Job], name: str) -> dict[str, float]:
    """Mean test scores over the runs of one configuration."""
    found: dict[str, list[float]] = {}
    for job in jobs:
        monitor = read_metrics(plan.folder / job.folder)["monitor"]["name"]
        row, _, score = str(monitor).removeprefix("val/").rpartition("/")
        metrics = _test_run(plan, job, f"test/{name}-{Path(job.apart).name}")["metrics"]
        for each in dict.fromkeys((row, COMPLETE)):
            if metrics[each][score] is not None:
                found.setdefault(each, []).append(metrics[each][score])
    return {row: mean(values) for row, values in found.items()}


def _test_run(plan: Plan, job: Job, place: str) -> dict[str, Any]:
    folder = plan.folder / place
    if not (folder / runs.METRICS).is_file():
        checkpoint = best_checkpoint(plan.folder / job.folder)
        if checkpoint is None or not checkpoint.is_file():
            raise InputError(
                f"{plan.folder / job.folder}: its checkpoint is gone, so it cannot be tested; search anew."
            )
        shutil.rmtree(folder, ignore_errors=True)
        words = ["ifmmin", "test", "--model", job.model, *_without(job.words, WITHHELD)]
        words += ["--data.fold", str(job.fold), "--seed_everything", str(job.seed)]
        words += ["--ckpt_path", str(checkpoint), "--run_dir", str(folder)]
        if error := run_module(words, plan.folder / "test" / f"{folder.name}.{LOG}", plan.threads, {}):
            raise InputError(f"test of {place}: {error}; the same command tries it again.")
    return read_metrics(folder)


def _without(words: Sequence[str], option: Option) -> list[str]:
    place = list(words).index(option[0])
    return [*words[:place], *words[place + len(option) :]]


def write_best(plan: Plan, trial: int, values: Mapping[str, Any], title: str) -> Path:
    """Write the configuration of a trial, which ``fit --config`` takes: what differs from defaults, and fold and seed.

    Args:
        plan: of the search.
        trial: its number.
        values: its values.
        title: a line for its head.
    """
    (first, *_) = plan.jobs(values, place_of(trial))
    written = yaml.safe_load((plan.folder / first.folder / runs.CONFIG).read_text(encoding="utf-8"))
    named = [*plan.settings.data, *plan.settings.trainer, *plan.settings.model, *options_of(values)]
    names = [option[0].removeprefix("--") for option in named]
    best: dict[str, Any] = {"seed_everything": first.seed}
    for group in ("model", "data"):
        given = {name.split(".")[1] for name in names if name.startswith(f"{group}.")} - {"init_args"}
        given |= {"fold"} if group == "data" else set()
        arguments = written[group].get("init_args") or {}
        chosen = {name: value for name, value in arguments.items() if name in given}
        best[group] = {"class_path": written[group]["class_path"], **({"init_args": chosen} if chosen else {})}
    of_trainer = {name.split(".")[1].rstrip("+") for name in names if name.startswith("trainer.")} - {"callbacks"}
    if trainer := {name: written["trainer"][name] for name in sorted(of_trainer) if name in written["trainer"]}:
        best["trainer"] = trainer
    text = f"# {printable(title)}\n" + yaml.safe_dump(best, sort_keys=False, allow_unicode=True)
    return write_text(plan.folder / BEST, text)
