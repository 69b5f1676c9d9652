"""A predictor in a few lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from datamodules.conditions import CONDITIONS, MODALITIES
from datamodules.text import printable
from ifmmin.base import MissingModalityModule

_MOST_CLASSES = 12


def description(
    model: MissingModalityModule, trained_on: Mapping[str, Any], normalization: Sequence[str], source: str
) -> str:
    """Model and source; task and classes; corpus, fold and seed; width and normalisation by modality; device.

    Args:
        model: it.
        trained_on: the checkpoint's record of the training data; what it lacks is left out.
        normalization: of audio, visual, text.
        source: where the model is from.
    """
    task = model.task
    spec = task.spec()
    scale = f"values from {spec['low']:g} to {spec['high']:g}" if "low" in spec else "values"
    lines = {"task": f"{task.name} of {_listed(task.class_names) if task.class_names else scale}"}
    facts = [f"{name} {trained_on[name]}" for name in ("fold", "seed") if trained_on.get(name) is not None]
    if "name" in trained_on:
        lines["trained on"] = ", ".join([printable(str(trained_on["name"]), 60), *facts])
    names = trained_on.get("feature_names") or MODALITIES
    parts = zip(MODALITIES, names, model.feature_dims, normalization, strict=True)
    lines["frames"] = ", ".join(
        f"{_called(modality, str(name))} [T, {dim}] ({_how(how)})" for modality, name, dim, how in parts
    )
    unanswered = [condition for condition in CONDITIONS if not model.answers(condition)]
    if unanswered:
        lines["answers"] = ", ".join(condition for condition in CONDITIONS if condition not in unanswered)
    lines["device"] = str(model.device)
    heading = f"Predictor: {type(model).__name__} of {printable(source)}"
    return "\n".join([heading, *(f"  {what + ':':<11} {value}" for what, value in lines.items())])


def _called(modality: str, name: str) -> str:
    return modality if name == modality else f"{modality} {printable(name, 40)}"


def _how(normalization: str) -> str:
    known = {"train": "normalised by training frames", "utterance": "normalised by themselves", "none": "as given"}
    return known.get(normalization, normalization)


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(printable(name, 40) for name in names[:_MOST_CLASSES])
    more = len(names) - _MOST_CLASSES
    return f"{shown} and {more} more" if more > 0 else shown
