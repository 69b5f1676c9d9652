"""A finished run: its result, its trained model, its data and its curves."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datamodules.base import EmotionDataModule
from datamodules.errors import InputError
from ifmmin import runs
from ifmmin.base import MissingModalityModule
from ifmmin.checkpoints import load_model
from ifmmin.discovery import check_name, corpus_names, find_corpus, model_names
from ifmmin.results.reading import read_result
from ifmmin.results.results import Results


@dataclass(frozen=True)
class FinishedRun:
    """A folder that ``fit`` made.

    Attributes:
        folder: its path.
        results: content of ``metrics.json``; ``results.record`` has the configuration.
    """

    folder: Path
    results: Results

    def load(self) -> tuple[MissingModalityModule, EmotionDataModule]:
        """Load the model of the best epoch, ready for evaluation, and its data, set up as for its test.

        Raises:
            InputError: the checkpoint is not there, unreadable, or of another model; or the data are
                not there any more, or have changed.
        """
        check_name(self.results.model, model_names(), f"{self.folder}: model")
        kept = self.results.record.get("checkpoint")
        if kept is None:
            raise InputError(f"{self.folder}: the run kept no checkpoint; fit again with checkpointing.")
        # Recorded as seen from where fit was started; the folder may have been moved since.
        path = str(self.folder / "checkpoints" / Path(kept).name)
        model, trained_on = load_model(path)
        if type(model).__name__ != self.results.model:
            raise InputError(f"{path}: a checkpoint of {type(model).__name__}, not of {self.results.model}.")
        data = configured_data(self.results.record["config"]["data"])
        set_up_as_trained(data, trained_on, path)
        data.serve(model.needs, model.settings.batch_size)
        return model, data

    def logged(self, name: str, by: str = "epoch") -> dict[int, float]:
        """See :func:`logged`."""
        return logged(self.folder, name, by)


def configured_data(settings: Mapping[str, Any]) -> EmotionDataModule:
    """Make the data that a configuration names under ``data``.

    Raises:
        InputError: the corpus is unknown or not there, or refuses its options.
    """
    name = str(settings["class_path"])
    leaf = name.rpartition(".")[2]
    return find_corpus(leaf if leaf in corpus_names() else name)(**(settings.get("init_args") or {}))


def set_up_as_trained(data: EmotionDataModule, trained_on: Mapping[str, Any], source: str) -> None:
    """Read data as for a test, with the seed and the normalisation of a model's training data.

    Args:
        data: to be set up; a run's configuration has its seed outside of ``data``.
        trained_on: the checkpoint's record of its training data.
        source: the checkpoint, for messages.

    Raises:
        InputError: these are not the data that it was trained on.
    """
    data.seed = trained_on["seed"]
    data.setup("test")
    if data.fingerprint != trained_on["fingerprint"]:
        raise InputError(f"{data.root}: not the data that {source} was trained on; put those back.")
    data.adopt_preprocessing(trained_on)


def logged(folder: Path, name: str, by: str = "epoch") -> dict[int, float]:
    """Read a logged value of a run by epoch or step, counted from 1; the columns of the CSV logs count from 0.

    Where a run was interrupted and went on, the epochs after its last checkpoint were logged
    twice; the later value counts.

    Args:
        folder: of the run.
        name: of a column of the CSV logs, for instance ``"train/inv"``.
        by: ``epoch`` or ``step``.

    Raises:
        InputError: there are no CSV logs, or one is damaged.
    """
    paths = [path for path in folder.glob("logs*/metrics.csv") if _log_number(path) > 0]
    if not paths:
        raise InputError(f"{folder / 'logs' / 'metrics.csv'}: not there; fit with the default loggers.")
    values: dict[int, float] = {}
    for path in sorted(paths, key=_log_number):
        with path.open(newline="", encoding="utf-8") as file:
            try:
                values |= {int(row[by]) + 1: float(row[name]) for row in csv.DictReader(file) if row.get(name)}
            except (KeyError, ValueError) as error:
                raise InputError(f"{path}: damaged ({error}); take another copy.") from error
    return values


def _log_number(path: Path) -> int:
    """Which of its run's logs this is: 1 for ``logs``, N for ``logs-N``, 0 for any other folder."""
    match = re.fullmatch(r"logs(?:-(\d+))?", path.parent.name)
    return int(match[1] or 1) if match else 0


def read_run(folder: Path) -> FinishedRun:
    """The run in ``folder``.

    Raises:
        InputError: there is none, it is not finished, or its ``metrics.json`` is damaged.
    """
    if not (folder / runs.CONFIG).is_file():
        raise InputError(f"{folder}: no {runs.CONFIG} there, so no run; name the folder a fit printed.")
    path = folder / runs.METRICS
    if not path.is_file():
        raise InputError(f"{path}: not there, so the run is not finished; go on with: fit --resume {folder}")
    results = read_result(path)
    checkpoint, data = results.record.get("checkpoint"), (results.record.get("config") or {}).get("data")
    if not isinstance(checkpoint, (str, type(None))) or not isinstance(data, dict) or "class_path" not in data:
        raise InputError(f"{path}: its record names no checkpoint or no corpus, as no fit writes; take another copy.")
    return FinishedRun(folder, results)
