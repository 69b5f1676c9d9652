"""Seconds per training and validation epoch of every model at IEMOCAP's size, on random numbers.

    python -m benchmarks.speed.epochs [--models IFMMIN MMIN] [--utterances 5531] [--epochs 3] [--precision bf16-mixed]

Loading, the first epoch (which warms up) and stage 1 are not counted; the teacher's one pass over
the training utterances, made once per run, has its own column. The CPU time of a whole run, stage 1 again apart, is
one epoch's times the epochs of its schedule; ``epochs.csv`` keeps it for the board's ``--models fast``:

    OMP_NUM_THREADS=1 python -m benchmarks.speed.epochs --utterances 640 --csv benchmarks/speed/epochs.csv
"""

from __future__ import annotations

import argparse
import csv
import logging
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import lightning as L
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.speed.output import FEWEST_UTTERANCES, at_least, in_one_line, write_rows
from benchmarks.speed.random_corpus import UTTERANCES, RandomCorpus
from ifmmin.base import MissingModalityModule
from ifmmin.checkpoints.compatibility import model_arguments
from ifmmin.checkpoints.parts import split_parts
from ifmmin.cli.memory import MemoryCap
from ifmmin.discovery import check_name, discover_models
from ifmmin.pretraining.stage2 import Stage2Module


@dataclass(frozen=True)
class Timing:
    """Of one model: seconds, the smallest and the median over epochs.

    Attributes:
        model: its class name.
        parameters: those that are trained.
        train_min: fastest training epoch.
        train_median: of the training epochs.
        val_min: fastest validation epoch.
        val_median: of the validation epochs.
        once: what precedes the first epoch: the teacher's pass, loaders.
        epochs: of its schedule.
        run_cpu: CPU seconds of a whole run: those epochs, validated, and what precedes them.
    """

    model: str
    parameters: int
    train_min: float
    train_median: float
    val_min: float
    val_median: float
    once: float
    epochs: int
    run_cpu: float


def now() -> float:
    """Seconds on a clock, once a GPU has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


class Stopwatch(L.Callback):
    """Times training and validation epochs apart, the CPU's seconds, which other programs disturb less, together."""

    def __init__(self) -> None:
        self.train: list[float] = []
        self.val: list[float] = []
        self.cpu: list[float] = []
        self.once = self.once_cpu = 0.0
        self._mark, self._cpu_mark = now(), time.process_time()

    def _lap(self) -> float:
        mark = now()
        elapsed, self._mark = mark - self._mark, mark
        return elapsed

    def _cpu_lap(self) -> float:
        mark = time.process_time()
        elapsed, self._cpu_mark = mark - self._cpu_mark, mark
        return elapsed

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Start the clocks."""
        self._lap()
        self._cpu_lap()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """What had to be done once is done."""
        self.once, self.once_cpu = self._lap(), self._cpu_lap()

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start a training epoch."""
        self._lap()

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Validation runs at the end of a training epoch."""
        self.train.append(self._lap())

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """End a validation epoch."""
        self.val.append(self._lap())
        self.cpu.append(self._cpu_lap())


def silence() -> None:
    """Keep Lightning's remarks out of the tables."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore")


def start(model: MissingModalityModule) -> MissingModalityModule:
    """Give a stage-2 model an untrained stage 1: how well it was trained does not change how long stage 2 takes."""
    if isinstance(model, Stage2Module):
        model.load_stage1(split_parts(model.stage1_module().state_dict()))
    return model


def bare_trainer(epochs: int, watch: L.Callback, **settings: Any) -> L.Trainer:
    """A trainer without logs and checkpoints, which only ``watch`` watches."""
    return L.Trainer(
        max_epochs=epochs,
        logger=False,
        callbacks=[watch, MemoryCap()],  # as the command line
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **settings,
    )


def fit(model: MissingModalityModule, data: RandomCorpus, epochs: int, precision: Any, watch: Stopwatch) -> None:
    """Train ``epochs + 1`` epochs, the first to warm up, as users do."""
    bare_trainer(epochs + 1, watch, precision=precision).fit(model, datamodule=data)


def time_model(model: MissingModalityModule, data: RandomCorpus, epochs: int, precision: Any) -> Timing:
    """Train ``epochs + 1`` epochs and time all but the first."""
    watch = Stopwatch()
    fit(start(model), data, epochs, precision, watch)
    count = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    train, val = watch.train[1:], watch.val[1:]
    whole = model.scheduled(data).epochs
    run_cpu = round(whole * min(watch.cpu[1:]) + watch.once_cpu, 1)
    train_min, train_median, val_min, val_median = (
        round(value, 3) for value in (min(train), median(train), min(val), median(val))
    )
    once = round(watch.once, 3)
    return Timing(type(model).__name__, count, train_min, train_median, val_min, val_median, once, whole, run_cpu)


def table_of(timings: Sequence[Timing], title: str) -> Table:
    """The timings as people compare them."""
    table = Table(title=title, title_justify="left")
    table.add_column("model")
    for heading in (
        "parameters",
        "train s (min)",
        "(median)",
        "val s (min)",
        "(median)",
        "once s",
        "epochs",
        "run CPU s",
    ):
        table.add_column(heading, justify="right")
    for row in timings:
        seconds = (row.train_min, row.train_median, row.val_min, row.val_median, row.once)
        shown = (*(f"{value:.2f}" for value in seconds), str(row.epochs), f"{row.run_cpu:.0f}")
        table.add_row(row.model, f"{row.parameters:,}", *shown)
    return table


def _rows(path: Path) -> list[dict[str, Any]]:
    """Lines of an earlier table, none where there is no file."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def main(argv: Sequence[str] | None = None) -> None:
    """Time the models and print and write the table."""
    models = discover_models()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=sorted(models))
    parser.add_argument("--utterances", type=at_least(FEWEST_UTTERANCES), default=UTTERANCES)
    parser.add_argument("--frames", type=float, default=1.0, help="factor on the frames of every modality")
    parser.add_argument("--epochs", type=at_least(1), default=3)
    parser.add_argument("--precision", default="32-true")
    parser.add_argument("--csv", type=Path, help="also write the table to this file, where lines of other models stay")
    options = parser.parse_args(argv)
    for name in options.models:
        check_name(name, models, "model")
    silence()
    data = RandomCorpus(utterances=options.utterances, frames=options.frames)
    console, timings = Console(width=max(125, Console().width)), []
    for name in options.models:
        L.seed_everything(0, verbose=False)
        timings.append(time_model(models[name](**model_arguments(data)), data, options.epochs, options.precision))
        console.print(f"{name}: {timings[-1].train_median:.2f} s a training epoch")
        if options.csv:
            rows = {row["model"]: row for row in [*_rows(options.csv), *map(asdict, timings)]}
            write_rows(options.csv, [rows[name] for name in sorted(rows)])
    threads = torch.get_num_threads()
    console.print(table_of(timings, f"{options.utterances} utterances, {threads} threads, {options.precision}"))


if __name__ == "__main__":
    raise SystemExit(in_one_line(main))
