"""What lost and noisy frames cost: CPU milliseconds of a batch, and their share of a training step.

    python -m benchmarks.speed.patterns [--models ModalityDropout EMT] [--csv table.csv]

A batch is 128 training utterances of IEMOCAP's sizes and lengths, gathered, normalised and masked; a step is the
forward pass, backward pass and update of a model on it. Every pattern is taken in turns with none, in one process.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.speed.output import at_least, in_one_line, write_rows
from benchmarks.speed.random_corpus import RandomCorpus
from datamodules.batches.batch import Batch
from datamodules.batches.loading import Request
from datamodules.batches.patterns import frame_pattern
from ifmmin.checkpoints.compatibility import model_arguments
from ifmmin.discovery import find_model

UTTERANCES = 1_000
BATCH = 128
PATTERNS = ("frames:0.3", "bursts:0.3", "noise:0.5")


@dataclass(frozen=True)
class Cost:
    """One pattern with one model.

    Attributes:
        model: whose step is timed, and which says what a batch stores.
        pattern: as an option gives it.
        batch_ms: of a batch without a pattern.
        added_ms: that the pattern adds, the median over repeats.
        step_ms: of a training step.
        share: added time as a share of batch and step together.
    """

    model: str
    pattern: str
    batch_ms: float
    added_ms: float
    step_ms: float
    share: float


def cpu_ms(work: Callable[[], Any]) -> float:
    """CPU milliseconds of a call, which a busy machine lengthens less than the clock."""
    started = time.process_time()
    work()
    return 1_000 * (time.process_time() - started)


def measure(name: str, data: RandomCorpus, repeats: int) -> list[Cost]:
    """Time each pattern on batches of a model, in turns with none."""
    torch.manual_seed(0)
    model = find_model(name)(**model_arguments(data)).train()
    data.serve(model.needs, BATCH)
    optimizer = torch.optim.Adam(model.parameters())
    request = Request(data.indices("train")[:BATCH], 0)
    # Reading the spreads once, as a run does, is no part of a batch.
    datasets = {text: data._dataset(True, frame_pattern(text)) for text in (None, *PATTERNS)}

    def step(batch: Batch) -> None:
        optimizer.zero_grad()
        model.total_loss(model.losses(batch)).backward()
        optimizer.step()

    taken: dict[str | None, list[float]] = {text: [] for text in datasets}
    steps: list[float] = []
    for repeat in range(repeats + 1):
        for text, dataset in datasets.items():
            taken[text].append(cpu_ms(partial(dataset.__getitem__, request)))
        steps.append(cpu_ms(lambda: step(datasets[None][request])))
        if not repeat:  # a warm-up
            taken, steps = {text: [] for text in datasets}, []
    whole, plain = median(steps), median(taken[None])
    costs = []
    for text in PATTERNS:
        added = median(with_it - without for with_it, without in zip(taken[text], taken[None], strict=True))
        costs.append(Cost(name, text, plain, added, whole - plain, added / whole))
    return costs


def main(argv: Sequence[str] | None = None) -> None:
    """Measure every pattern and print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["ModalityDropout", "EMT"])
    parser.add_argument("--repeats", type=at_least(1), default=9)
    parser.add_argument("--csv", type=Path, help="also write the table to this file")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    data = RandomCorpus(utterances=UTTERANCES)
    data.setup("fit")
    table = Table("model", "pattern", title=f"a batch of {BATCH}, CPU milliseconds", title_justify="left")
    for heading in ("batch", "pattern adds", "training step", "pattern / (batch + step)"):
        table.add_column(heading, justify="right")
    costs = [cost for name in options.models for cost in measure(name, data, options.repeats)]
    for cost in costs:
        numbers = (f"{value:.1f}" for value in (cost.batch_ms, cost.added_ms, cost.step_ms))
        table.add_row(cost.model, cost.pattern, *numbers, f"{100 * cost.share:.1f} %")
    Console(width=max(100, Console().width)).print(table)
    if options.csv:
        write_rows(options.csv, [asdict(cost) for cost in costs])


if __name__ == "__main__":
    raise SystemExit(in_one_line(main))
