"""The search's memory: which trials there are, in Optuna's journal, and which search it is, in ``search.json``."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from benchmarks.search.space import Space
from datamodules.errors import InputError
from datamodules.files import write_text
from datamodules.text import printable

JOURNAL = "journal.log"
SEARCH = "search.json"

STUDY = "search"
"""Name of the study in the journal."""

RANDOM_TRIALS = 10
"""Finished trials before the sampler learns from them."""

SPREAD = 5
"""Complete trials before the pruner compares with their median."""

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)

REASON, SECONDS, COPY = "reason", "seconds", "copy_of"
"""Names of what is noted of a trial besides its value."""

Direction = Literal["minimize", "maximize"]


def quiet() -> None:
    """Keep Optuna from logging each trial: the progress does."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


def open_study(folder: Path, direction: Direction | None = None) -> optuna.Study:
    """Open the study of a search's folder.

    Args:
        folder: it.
        direction: of a study that is to be made where there is none; None: it is there.

    Raises:
        InputError: the journal is damaged.
    """
    quiet()
    path = folder / JOURNAL
    pruner = optuna.pruners.MedianPruner(n_startup_trials=SPREAD)
    try:
        storage = JournalStorage(JournalFileBackend(str(path)))
        if direction is None:
            return optuna.load_study(study_name=STUDY, storage=storage, pruner=pruner)
        return optuna.create_study(
            study_name=STUDY, storage=storage, pruner=pruner, direction=direction, load_if_exists=True
        )
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{printable(path)}: damaged ({printable(error, 80)}); name another --folder, or delete it and {SEARCH}."
        ) from error


def mend_journal(folder: Path) -> None:
    """Cut off a line that a kill or a full disk left half-written, and the lock of a killed writer.

    Only for the folder's one user: a line that others are writing looks the same.
    """
    path = folder / JOURNAL
    (folder / f"{JOURNAL}.lock").unlink(missing_ok=True)
    if not path.is_file():
        return
    with path.open("rb+") as file:
        content = file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            file.truncate(whole)


def claim(folder: Path, identity: Mapping[str, Any]) -> None:
    """Write which search a folder is of, or check that it is of this one.

    Raises:
        InputError: it is of another; it says in what they differ.
    """
    path = folder / SEARCH
    plain = json.loads(json.dumps(identity))
    if not path.is_file():
        if (folder / JOURNAL).is_file():
            raise InputError(
                f"{printable(folder)}: has trials but no {SEARCH}, so of what is unknown; name another --folder."
            )
        write_text(path, json.dumps(plain, indent=1) + "\n")
        return
    try:
        written = json.loads(path.read_text(encoding="utf-8"))
        different = [name for name in plain if written.get(name) != plain[name]]
    except (ValueError, AttributeError, RecursionError) as error:
        raise InputError(f"{printable(path)}: damaged; name another --folder.") from error
    if different:
        raise InputError(
            f"{printable(folder)}: holds a search with another {', '.join(different)}; name another --folder, or "
            "repeat the words it was begun with."
        )


@dataclass
class Trials:
    """The trials of a search.

    Attributes:
        study: Optuna's.
        space: what is searched.
        seed: of the sampler.
        wanted: how many trials there are to be in all.
        parallel: whether several run at once; the sampler then keeps away from those that run.
    """

    study: optuna.Study
    space: Space
    seed: int
    wanted: int
    parallel: bool

    def __post_init__(self) -> None:
        """Find the trials that a killed search left half-done."""
        self._left = [trial for trial in self.all() if trial.state not in FINISHED]

    def all(self) -> list[FrozenTrial]:
        """All trials, by number."""
        return self.study.get_trials(deepcopy=False)

    def finished(self) -> list[FrozenTrial]:
        """Those that need no more work: complete, pruned or failed."""
        return [trial for trial in self.all() if trial.state in FINISHED]

    def missing(self) -> int:
        """How many are to be made or finished."""
        return max(len(self._left), self.wanted - len(self.finished()))

    def take(self) -> tuple[Trial, dict[str, Any]] | None:
        """The next trial and its values, None when there are enough: first those that were left half-done.

        Each value is drawn by a sampler seeded by the seed, the trial's number and the place of its parameter, so that
        a search that was killed, even between two values, draws what it would have drawn.
        """
        if not self._left and len(self.all()) >= self.wanted:
            return None
        self._seed_sampler(len(self.all()))
        trial = Trial(self.study, self._left.pop(0)._trial_id) if self._left else self.study.ask()
        values = {}
        for place, parameter in enumerate(self.space.parameters):
            self._seed_sampler(trial.number, place)
            values[parameter.name] = parameter.suggest(trial)
        return trial, values

    def _seed_sampler(self, *place: int) -> None:
        seed = int(np.random.SeedSequence([self.seed, *place]).generate_state(1)[0])
        self.study.sampler = optuna.samplers.TPESampler(
            seed=seed, n_startup_trials=RANDOM_TRIALS, constant_liar=self.parallel
        )

    def twin(self, trial: Trial, values: Mapping[str, Any]) -> FrozenTrial | None:
        """The first finished trial of the same values, which need not be tried again."""
        return next((each for each in self.finished() if each.params == values and each.number != trial.number), None)

    def tell(self, trial: Trial, value: float | None, state: TrialState, seconds: float, reason: str | None) -> None:
        """Record what became of a trial; a pruned one keeps its last intermediate value."""
        trial.set_user_attr(SECONDS, round(seconds, 3))
        if reason is not None:
            trial.set_user_attr(REASON, reason)
        self.study.tell(trial, value if state == TrialState.COMPLETE else None, state)

    def copy(self, trial: Trial, twin: FrozenTrial) -> None:
        """Record that a trial is another one again."""
        trial.set_user_attr(COPY, twin.number)
        for step, value in twin.intermediate_values.items():
            trial.report(value, step)
        self.tell(trial, twin.value, twin.state, 0.0, twin.user_attrs.get(REASON))

    def ranked(self) -> list[FrozenTrial]:
        """Complete trials, best first, each configuration once; equal values by number."""
        sign = -1.0 if self.study.direction == optuna.study.StudyDirection.MAXIMIZE else 1.0
        complete = [each for each in self.all() if each.state == TrialState.COMPLETE and COPY not in each.user_attrs]
        return sorted(complete, key=lambda each: (sign * each.values[0], each.number))


def frozen(trials: Sequence[FrozenTrial], number: int) -> FrozenTrial:
    """The trial of this number."""
    return next(each for each in trials if each.number == number)


def writable(folder: Path) -> None:
    """Refuse a folder without room for the journal's next lines.

    Raises:
        OSError: the disk is full or the folder cannot be written; it names the journal.
    """
    path = folder / JOURNAL
    try:
        with path.open("ab") as file:
            os.fsync(file.fileno())
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
