"""What a command prints and writes: its header, and the results."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console

from datamodules.base import EmotionDataModule
from ifmmin.base import MissingModalityModule
from ifmmin.cli.console import print_rank_zero
from ifmmin.pretraining.fitting import trainable_parameters
from ifmmin.results.files import write_results
from ifmmin.results.provenance import environment_record
from ifmmin.results.results import Results
from ifmmin.results.tables import results_table
from ifmmin.results.tracking import log_to_wandb


def print_header(data: EmotionDataModule, run_dir: Path) -> None:
    """Say which data are used, and where the run's files are."""
    if data.synthetic:
        place = f"{data.root} (for your own: --data IEMOCAP --data.root DIR)"
        print_rank_zero(f"data: the built-in synthetic corpus in {place}")
    else:
        print_rank_zero(f"data: {data.corpus_name}, fold {data.fold}, in {data.root}")
    print_rank_zero(f"run folder: {run_dir}")


@rank_zero_only
def report_results(
    model: MissingModalityModule,
    data: EmotionDataModule,
    trainer: L.Trainer,
    run_dir: Path,
    split: str,
    seed: int,
    record: dict[str, Any],
) -> None:
    """Print the table of a finished test or validation, and write and log its files."""
    assert model.evaluated is not None
    record |= {
        "command": sys.argv,
        "recipe": model.settings.plain(),
        "parameters": trainable_parameters(model),
        "data_fingerprint": data.fingerprint,
        "devices": trainer.world_size,
        **environment_record(),
    }
    results = Results(
        corpus=data.corpus_name,
        is_synthetic=data.synthetic,
        model=type(model).__name__,
        fold=data.fold,
        seed=seed,
        split=split,
        task=model.task,
        counts=model.evaluated,
        bayes=data.bayes_accuracy(split),
        record=record,
    )
    Console().print(results_table(results))
    paths = write_results(results, run_dir, prefix="" if split == "test" else f"{split}_")
    print_rank_zero("written: " + ", ".join(map(str, paths)))
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            log_to_wandb(results, logger.experiment, paths)
            logger.experiment.finish()  # or the next run of this process would write into this one
