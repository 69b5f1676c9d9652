"""Searches whose runs are not trained: their validation score is a formula of their options."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.leaderboard.plan import Job, sort_settings
from benchmarks.leaderboard.running import Outcome
from benchmarks.search.objective import Objective, Plan
from benchmarks.search.space import Parameter, Space
from benchmarks.search.trials import Trials, open_study
from ifmmin.discovery import find_model

SPACE = Space(
    Path("space.yaml"),
    (Parameter("model.learning_rate", 1e-5, 1e-1, log=True), Parameter("model.dropout", 0.0, 0.7, step=0.1)),
)

Formula = Callable[[dict[str, str], Job], float]


def smooth(options: dict[str, str], job: Job) -> float:
    """A score with its best at a rate of 1e-3 and dropout 0.3; a fold more is a tenth less."""
    distance = abs(math.log10(float(options.get("--model.learning_rate", "1e-2"))) + 3) / 4
    return 0.9 - 0.5 * distance - 0.3 * abs(float(options.get("--model.dropout", "0.5")) - 0.3) - 0.1 * (job.fold - 1)


def config_of(job: Job) -> dict[str, Any]:
    """The part of a run's configuration that its words set."""
    options = dict(zip(job.words[::2], job.words[1::2], strict=True))
    groups: dict[str, Any] = {
        "model": {"class_path": f"baselines.{job.name}", "init_args": {"not_given": 1}},
        "data": {"class_path": "datamodules.Synthetic", "init_args": {"fold": job.fold, "not_given": 1}},
        "trainer": {"callbacks": ["Pruning"], "not_given": 1},
    }
    for option, value in options.items():
        group, _, name = option.removeprefix("--").partition(".")
        if name:
            groups[group].get("init_args", groups[group])[name] = json.loads(value)
    return groups


class Fake:
    """Does a job by writing what a finished run leaves.

    Attributes:
        done: every job that was done, by folder.
    """

    def __init__(self, folder: Path, formula: Formula = smooth) -> None:
        self.folder, self.formula = folder, formula
        self.done: list[str] = []

    def __call__(self, job: Job) -> Outcome:
        self.done.append(job.folder)
        options = dict(zip(job.words[::2], job.words[1::2], strict=True))
        assert options["--data.withhold_test"] == "true" and job.logging[:2] == ("--test", "false")
        try:
            value = self.formula(options, job)
        except OSError as error:
            return Outcome(job, None, str(error), 1.0, lost=True)
        except ValueError as error:
            return Outcome(job, None, str(error), 1.0)
        run = self.folder / job.folder
        (run / "checkpoints").mkdir(parents=True)
        (run / "checkpoints" / "epoch001.ckpt").write_bytes(b"weights")
        metrics = {
            "monitor": {"name": "val/pooled/UA", "value": value, "epoch": 1},
            "record": {"checkpoint": "epoch001.ckpt"},
        }
        (run / "config.yaml").write_text(json.dumps(config_of(job)), encoding="utf-8")
        (run / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
        return Outcome(job, None, None, 1.0)


def objective(
    folder: Path,
    trials: int,
    formula: Formula = smooth,
    *,
    folds: int = 1,
    seeds: int = 1,
    model: str = "ModalityDropout",
    space: Space = SPACE,
    parallel: bool = False,
) -> tuple[Objective, Fake]:
    """A search in a folder, begun or gone on with."""
    fake = Fake(folder, formula)
    settings = sort_settings([], (), who="search")
    prints = dict.fromkeys(range(1, folds + 1), "data")
    plan = Plan(folder, model, find_model(model), settings, prints, range(seeds), threads=1, pruning=False)
    study = open_study(folder, "maximize")
    return Objective(plan, Trials(study, space, 0, trials, parallel), fake), fake


def do_all(each: Objective, most: int = 10_000) -> int:
    """Do what is missing, one trial after the other; how many were done."""
    missing = min(most, each.trials.missing())
    return sum(each.next(lambda number: None) is not None for _ in range(missing))


def outcome(each: Objective) -> list[tuple[int, str, dict[str, float], float | None]]:
    """All trials, without dates."""
    return [(trial.number, trial.state.name, trial.params, trial.value) for trial in each.trials.all()]
