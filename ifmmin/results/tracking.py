"""A result in Weights & Biases."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import wandb
from ifmmin.results.results import Results


def log_to_wandb(results: Results, experiment: wandb.Run, paths: Iterable[Path]) -> None:
    """Send the table, its values and the confusion matrices to a Weights & Biases run.

    Args:
        results: what to send.
        experiment: the run, for instance ``WandbLogger().experiment``.
        paths: what :func:`write_results` returned; the PNG among them are sent as images.

    The table is logged as ``test/table``, the images under their names, such as ``test/confusion``; every value
    goes to the run's summary, under a name such as ``test/pooled/UA``, in [0, 1]. ``val`` replaces ``test`` if that
    is the split.
    """
    import wandb

    rows = [row.columns() for row in results.rows()]
    columns: list[str | int] = list(rows[0])
    table = wandb.Table(columns=columns, data=[list(row.values()) for row in rows])
    pictures = [path for path in paths if path.suffix == ".png"]
    images = {
        f"{results.split}/{path.stem.removeprefix(f'{results.split}_')}": wandb.Image(str(path)) for path in pictures
    }
    experiment.log({f"{results.split}/table": table, **images})
    for row in rows:
        for name, value in row.items():
            if name not in ("condition", "n") and value is not None:
                experiment.summary[f"{results.split}/{row['condition']}/{name}"] = value
