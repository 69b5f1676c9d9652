"""Groups of models that ``--models`` takes beside names.

``all``; the families of the models' cards, such as ``imagination``; ``seeds``, the systems that the library grew from,
which its cards name; and ``fast``, the models whose measured runs are short.
"""

from __future__ import annotations

import csv
from pathlib import Path

from datamodules.errors import InputError
from ifmmin.base import MissingModalityModule
from ifmmin.discovery import Models
from ifmmin.pretraining.stage1 import Stage1Module
from ifmmin.pretraining.stage2 import Stage2Module

TIMES = Path(__file__).parents[1] / "speed" / "epochs.csv"
"""CPU seconds of every model's run at one size of corpus, as :mod:`benchmarks.speed.epochs` measures them."""

MEASURE = (
    "OMP_NUM_THREADS=1 python -m benchmarks.speed.epochs --utterances 640 --csv benchmarks/speed/epochs.csv --models"
)
"""The command that adds models to :data:`TIMES`."""

YARDSTICK = "ModalityDropout"
"""A fast model takes no longer than this one, which only drops modalities."""

GROUPS = ("all", "seeds", "fast")
"""Groups that every board knows; the others are families."""


def groups_of(known: Models) -> dict[str, Models]:
    """Make the groups of models that can be asked for a prediction: no stage 1 is in one.

    Args:
        known: by name.

    Returns:
        by the name of the group, none of them empty.
    """
    predicting = {name: model for name, model in known.items() if not issubclass(model, Stage1Module)}
    found: dict[str, Models] = {"all": predicting, "seeds": {}, "fast": {}}
    limit = run_seconds(known[YARDSTICK]) if YARDSTICK in known else None
    for name, model in predicting.items():
        card = getattr(model, "card", None)  # a plug-in may have none
        seconds = run_seconds(model)
        if card is not None and card.seed:
            found["seeds"][name] = model
        if limit is not None and seconds is not None and seconds <= limit:
            found["fast"][name] = model
        # A plug-in's family is somebody else's text.
        if card is not None and card.family.isidentifier() and card.family not in GROUPS:
            found.setdefault(card.family, {})[name] = model
    return {name: models for name, models in found.items() if models}


def run_seconds(model: type[MissingModalityModule]) -> float | None:
    """CPU seconds of a run and of the stage 1 that it starts from; None where one was not measured."""
    times = _times()
    names = [model.__name__, *([model.stage1_of({}).__name__] if issubclass(model, Stage2Module) else [])]
    return sum(times[name] for name in names) if all(name in times for name in names) else None


def untimed(known: Models) -> list[str]:
    """Name the models that cannot be in ``fast``, for their runs were not measured."""
    return [name for name, model in groups_of(known)["all"].items() if run_seconds(model) is None]


def _times() -> dict[str, float]:
    """CPU seconds of a run by model.

    Raises:
        InputError: the file of the measurements is not what was written.
    """
    try:
        with TIMES.open(newline="", encoding="utf-8") as file:
            return {row["model"]: float(row["run_cpu"]) for row in csv.DictReader(file)}
    except (OSError, KeyError, ValueError) as error:
        raise InputError(f"{TIMES}: not the measurements of {MEASURE.split(' --')[0]} ({error}).") from error
