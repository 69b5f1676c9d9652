"""The scores of the run that a model came out of, for its folder and card."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datamodules.errors import InputError
from datamodules.files import expanded
from datamodules.text import printable
from ifmmin.results.reading import read_result
from ifmmin.runs import METRICS
from ifmmin.sharing.folder import RESULTS

if TYPE_CHECKING:
    from ifmmin.base import MissingModalityModule

_SHARED = ("date", "versions", "commit", "dirty", "parameters", "data_fingerprint", "recipe")
"""What is kept of a result's record: nothing that names a path or a machine."""


def scores_of(
    model: MissingModalityModule, data: Mapping[str, Any] | None, run: str | Path | None
) -> dict[str, Any] | None:
    """Read the scores of a model's run, in the form of ``metrics.json``.

    Args:
        model: trained.
        data: the record of its training data.
        run: folder of a fit or a test, or its ``metrics.json``; None takes what is beside the checkpoint or in the
            folder that the model was loaded from.

    Returns:
        the scores, None if there are none.

    Raises:
        InputError: they cannot be read, or are of another model or training.
    """
    path = _beside(model.loaded_from) if run is None else _named(run)
    if path is None:
        return None
    shown, name = printable(path), type(model).__name__
    results = read_result(path)
    written: dict[str, Any] = json.loads(path.read_bytes())
    if results.model != name:
        raise InputError(f"{shown}: of {printable(results.model, 60)}, not of {name}; give the model's own run.")
    trained = results.trained_on or {"corpus": results.corpus, "fold": results.fold, "seed": results.seed}
    known = None if data is None else {"corpus": data["name"], "fold": data["fold"], "seed": data["seed"]}
    if known is not None and {key: trained[key] for key in known} != known:
        theirs, ours = ("{corpus} fold {fold} seed {seed}".format(**each) for each in (trained, known))
        raise InputError(f"{shown}: trained on {printable(theirs)}, but this model on {printable(ours)}; give its run.")
    kept = results.record.get("checkpoint")
    source = None if model.loaded_from is None else model.loaded_from.name
    if run is not None and isinstance(kept, str) and source and source.endswith(".ckpt") and Path(kept).name != source:
        raise InputError(f"{shown}: of {printable(kept)}, but this model is of {printable(source)}; give its run.")
    written["record"] = {key: results.record[key] for key in _SHARED if key in results.record}
    return written


def _named(run: str | Path) -> Path:
    path = expanded(run)
    return path / METRICS if path.is_dir() else path


def _beside(source: Path | None) -> Path | None:
    """The scores of what a model was loaded from: a checkpoint's run tested it only if it names it."""
    if source is None:
        return None
    if source.suffix != ".ckpt":
        return source / RESULTS if (source / RESULTS).is_file() else None
    path = source.absolute().parent.parent / METRICS
    if not path.is_file():
        return None
    kept = read_result(path).record.get("checkpoint")
    return path if isinstance(kept, str) and Path(kept).name == source.name else None
