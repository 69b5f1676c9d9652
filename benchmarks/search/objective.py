"""What a trial is: one run per fold and seed, none of which can read the test split, and the mean of their scores."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean
from threading import Lock
from typing import Any

from optuna.trial import FrozenTrial, Trial, TrialState

from benchmarks.leaderboard.fanout import Worker
from benchmarks.leaderboard.plan import Job, Settings, make_jobs
from benchmarks.leaderboard.running import best_checkpoint, read_metrics
from benchmarks.search.pruning import PRUNED, Pruning
from benchmarks.search.space import options_of
from benchmarks.search.trials import Trials
from datamodules.errors import InputError
from datamodules.files import write_text
from ifmmin.base import MissingModalityModule
from ifmmin.cli import stopping

WITHHELD = ("--data.withhold_test", "true")
UNTESTED = ("--test", "false")

DEFAULT = "default"
"""Folder of the runs of the default configuration, beside the trials' folders."""

SCORE = "score.json"
"""File in the default's folder that holds its validation score."""


class LostError(Exception):
    """The machine failed a run; the same trial may succeed another time."""


@dataclass(frozen=True)
class Plan:
    """What all trials have in common.

    Attributes:
        folder: of the search.
        name: that ``--model`` takes.
        model: the class.
        settings: options that are the same in all trials.
        fingerprints: of the data without the test split, by fold.
        seeds: of the runs.
        threads: of PyTorch in each run.
        pruning: whether runs are stopped early.
    """

    folder: Path
    name: str
    model: type[MissingModalityModule]
    settings: Settings
    fingerprints: Mapping[int, str]
    seeds: Sequence[int]
    threads: int
    pruning: bool

    def jobs(self, values: Mapping[str, Any], place: str) -> list[Job]:
        """The runs of one configuration, in folders below ``place``; what reads the test split is refused in them."""
        options = options_of(values)
        settings = replace(
            self.settings,
            data=(*self.settings.data, *(each for each in options if each[0].startswith("--data.")), WITHHELD),
            model=(*self.settings.model, *(each for each in options if each[0].startswith("--model."))),
        )
        jobs = make_jobs({self.name: self.model}, settings, self.fingerprints, self.seeds, self.threads)
        return [
            replace(
                job,
                apart=f"{place}/fold{job.fold}-seed{job.seed}",
                logging=UNTESTED,
                stage1=job.stage1 and replace(job.stage1, logging=UNTESTED),
            )
            for job in jobs
        ]


def place_of(number: int) -> str:
    """Folder of a trial, relative to the search's."""
    return f"trials/{number:04d}"


def watched(job: Job, folder: Path, number: int, earlier: Sequence[float]) -> Job:
    """The same job, which reports its epochs to a trial and may be stopped."""
    callback = f"{Pruning.__module__}.{Pruning.__qualname__}"
    options = {"folder": folder, "run": folder / job.apart, "trial": number, "earlier": json.dumps(list(earlier))}
    words = (f"--trainer.callbacks.{name}={value}" for name, value in options.items())
    return replace(job, logging=(*job.logging, f"--trainer.callbacks+={callback}", *words))


@dataclass
class Objective:
    """Does trials, in as many threads as call it.

    Attributes:
        plan: what they have in common.
        trials: what is recorded.
        do: does one run.
    """

    plan: Plan
    trials: Trials
    do: Worker
    keep: frozenset[int] = frozenset()
    stopped: str | None = None
    """Why no more trials are begun."""
    _lock: Lock = field(default_factory=Lock)
    _stages: defaultdict[str, Lock] = field(default_factory=lambda: defaultdict(Lock))

    def default(self) -> float | None:
        """The default configuration's score, trained once; None where it fails.

        Raises:
            LostError: the machine failed it.
        """
        path = self.plan.folder / DEFAULT / SCORE
        if path.is_file():
            return _read_score(path)
        jobs = self.plan.jobs({}, DEFAULT)
        try:
            value: float | None = mean([self._run(job) for job in jobs])
        except InputError as error:
            value, reason = None, str(error)
            write_text(path, json.dumps({"value": None, "reason": reason}) + "\n")
        else:
            write_text(path, json.dumps({"value": value}) + "\n")
        return value

    def next(self, started: Any) -> FrozenTrial | None:
        """Do the next trial, or finish one that was left half-done; None where there is none or the machine failed."""
        with self._lock:
            taken = None if self.stopped else self.trials.take()
            if taken is None:
                return None
            trial, values = taken
            twin = self.trials.twin(trial, values)
            if twin is not None:
                self.trials.copy(trial, twin)
                return self._record(trial)
        started(trial.number)
        began = time.monotonic()
        value, state, reason = None, TrialState.COMPLETE, None
        try:
            value = self._score(trial, values)
        except InputError as error:
            state, reason = TrialState.FAIL, str(error)
        except LostError as error:
            self.stopped = self.stopped or f"trial {trial.number}: {error}"
            return None
        with self._lock:
            if stopping.stopping():  # the run was ended by us, so it did not fail
                return None
            state = TrialState.PRUNED if value is None and state == TrialState.COMPLETE else state
            self.trials.tell(trial, value, state, time.monotonic() - began, reason)
            self._drop_checkpoints()
            return self._record(trial)

    def _record(self, trial: Trial) -> FrozenTrial:
        return self.trials.all()[trial.number]

    def _score(self, trial: Trial, values: Mapping[str, Any]) -> float | None:
        """Mean validation score over the runs of a trial, None where one was stopped early."""
        scores: list[float] = []
        for job in self.plan.jobs(values, place_of(trial.number)):
            follows = watched(job, self.plan.folder, trial.number, scores) if self.plan.pruning else job
            scores.append(self._run(follows))
            if (self.plan.folder / job.folder / PRUNED).is_file():
                return None
        return mean(scores)

    def _run(self, job: Job) -> float:
        """Validation score of a run that is done by now, its stage 1 before it.

        Raises:
            InputError: it failed, or has no score.
            LostError: the machine failed it.
        """
        folder = self.plan.folder
        if job.stage1 is not None:
            with self._stages[job.stage1.folder]:
                if best_checkpoint(folder / job.stage1.folder) is None:
                    self._do(job.stage1)
        if not (folder / job.folder / PRUNED).is_file() and best_checkpoint(folder / job.folder) is None:
            self._do(job)
        if (folder / job.folder / PRUNED).is_file():
            return math.nan
        return selected_score(folder / job.folder)

    def _do(self, job: Job) -> None:
        outcome = self.do(job)
        if outcome.error and outcome.lost:
            raise LostError(outcome.error)
        if outcome.error:
            raise InputError(f"{job}: {outcome.error}")

    def _drop_checkpoints(self) -> None:
        """Keep checkpoints of the best trial, and of those that are named, only."""
        best = self.trials.ranked()[:1]
        kept = {*self.keep, *(each.number for each in best)}
        for each in self.trials.finished():
            if each.number not in kept:
                for run in (self.plan.folder / place_of(each.number)).glob("fold*"):
                    shutil.rmtree(run / "checkpoints", ignore_errors=True)
                    shutil.rmtree(run / "stage1", ignore_errors=True)


def selected_score(run: Path) -> float:
    """The validation score of a finished run's best epoch.

    Raises:
        InputError: it has none.
    """
    value = (read_metrics(run).get("monitor") or {}).get("value")
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        raise InputError(f"{run}: no validation score; see that --data.conditions has one that the model answers.")
    return float(value)


def _read_score(path: Path) -> float | None:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))["value"]
        return None if value is None else float(value)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: damaged; delete it, and the default is scored again.") from error
