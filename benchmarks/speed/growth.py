"""How time and memory grow with the corpus: 1, 4 and 16 times IEMOCAP's utterances; 1, 2 and 4 times its frames.

    python -m benchmarks.speed.growth [--quick] [--model IFMMIN] [--sizes 1x1 16x1] [--csv table.csv] [--plot table.png]

Random numbers are written as a corpus in the public layout (16 GB for 16 times IEMOCAP), trained on, and deleted.
Each size is measured in a process of its own with all features on disk, and where they fit --memory, in another one
with the epochs in turns on disk and in memory, so that the ratio of the two is of the same minute. The smallest corpus
is measured anew before and after each size: growth is relative to the mean of the two, since machines drift.

That ratio is of reading alone: where both forms are in one process, it may be as large as it likes. To stay below
1.5 GB a process with its features on disk returns memory between batches, which costs time where single batches are
large (4 times the frames); that is in its own microseconds.

Microseconds per utterance are of training; validation, the teacher's one pass and setup are not in them. Processor
time is given too: on a machine that others use it repeats better than time on the clock. "cold GB" is what an epoch of
training got from the disk itself because the system's cache no longer had it; with --scratch in a memory file system
(tmpfs) that is nothing. Peak memory is that of the whole process, Python, setup, the teacher's pass and validation
included.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import lightning as L
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.speed.epochs import Stopwatch, bare_trainer, silence, start
from benchmarks.speed.output import (
    FEWEST_UTTERANCES,
    add_output_options,
    at_least,
    in_one_line,
    write_picture,
    write_rows,
)
from benchmarks.speed.random_corpus import DIMS, UTTERANCES, RandomCorpus
from benchmarks.speed.throughput import peak_memory
from datamodules.batches.batch import Batch
from datamodules.storage.corpus import Corpus
from ifmmin.checkpoints.compatibility import model_arguments
from ifmmin.discovery import check_name, discover_models
from ifmmin.results.figures import empty_figure

QUICK_UTTERANCES, QUICK_BATCHES = 500, 20
SIZES = ("1x1", "4x1", "16x1", "1x2", "1x4")
"""Factors on utterances and on frames."""

FORMS = {"disk": 0.0, "memory": float("inf")}
"""The memory budget of each form, in GB."""


@dataclass(frozen=True)
class Point:
    """One corpus in one form.

    Attributes:
        utterances: in the corpus.
        frames: factor on IEMOCAP's frames.
        gigabytes: 10^9 bytes that all features take.
        form: where they are: ``disk`` or ``memory``.
        setup: seconds to read and check them.
        clock: microseconds of an utterance of training, the median over epochs.
        processor: the same of processor time, over all threads.
        ratio: time on the clock relative to ``memory`` in the same process; NaN where that was not run.
        processor_ratio: the same of processor time.
        cold: GB of an epoch of training that came from the disk and not from the system's cache, the median over
            epochs; NaN where the system does not tell.
        peak: largest resident memory of the process, in MiB; in a process with both forms, of both.
        growth: time on the clock relative to that of the smallest corpus on disk, before and after; NaN in memory.
    """

    utterances: int
    frames: float
    gigabytes: float
    form: str
    setup: float
    clock: float
    processor: float
    ratio: float
    processor_ratio: float
    cold: float
    peak: float
    growth: float = float("nan")


def read_from_disk() -> float:
    """GB that this process had read from a disk so far; NaN where the system does not tell."""
    counters = Path("/proc/self/io")
    lines = counters.read_text(encoding="ascii").splitlines() if counters.exists() else []
    return next((int(line.split()[1]) * 1e-9 for line in lines if line.startswith("read_bytes")), math.nan)


class Turns(Stopwatch):
    """Gives the epochs of a run to several forms of one corpus in turns; the batches are the same.

    Args:
        forms: the corpus in each form.
    """

    def __init__(self, forms: Sequence[Corpus]) -> None:
        super().__init__()
        self.forms = forms
        self.processor: list[float] = []
        self.cold: list[float] = []
        self.utterances: list[int] = []

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Have every form go through the same batches, also where an epoch has only some of them."""
        super().on_train_start(trainer, pl_module)
        loader: Any = trainer.train_dataloader
        set_epoch = loader.sampler.set_epoch
        loader.sampler.set_epoch = lambda epoch: set_epoch(epoch // len(self.forms))

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Choose the form and start the clocks."""
        loader: Any = trainer.train_dataloader
        loader.dataset.corpus = self.forms[trainer.current_epoch % len(self.forms)]
        self.utterances.append(0)
        super().on_train_epoch_start(trainer, pl_module)
        self._processor_mark, self._cold_mark = time.process_time(), read_from_disk()

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        """Count utterances."""
        self.utterances[-1] += len(batch)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """End a training epoch."""
        self.processor.append(time.process_time() - self._processor_mark)
        self.cold.append(read_from_disk() - self._cold_mark)
        super().on_validation_start(trainer, pl_module)

    def middle(self, values: Sequence[float], form: int) -> float:
        """The median over the epochs of a form without the first, which warms up."""
        return median(values[form :: len(self.forms)][1:])

    def microseconds(self, seconds: Sequence[float], form: int) -> float:
        """Per utterance, of the middle epoch of a form."""
        return self.middle([1e6 * spent / count for spent, count in zip(seconds, self.utterances, strict=True)], form)


def measure(
    name: str, folder: Path, utterances: int, frames: float, forms: Sequence[str], repeats: int, batches: int
) -> list[Point]:
    """Train on a written corpus in every form in turns; to be called in a process of its own."""
    silence()
    held, setup = [], []
    for form in forms:
        begin = time.perf_counter()
        data = RandomCorpus(utterances, frames, folder=folder, memory_budget_gb=FORMS[form])
        data.setup("fit")
        held.append(data.corpus)
        setup.append(time.perf_counter() - begin)
    L.seed_everything(0, verbose=False)
    watch = Turns(held)
    trainer = bare_trainer((repeats + 1) * len(forms), watch, limit_train_batches=batches or 1.0)
    trainer.fit(start(discover_models()[name](**model_arguments(data))), datamodule=data)
    clock = [watch.microseconds(watch.train, form) for form in range(len(forms))]
    processor = [watch.microseconds(watch.processor, form) for form in range(len(forms))]
    ratios, processor_ratios = (relative(times, forms) for times in (clock, processor))
    size = sum(int(lengths.sum()) * dim for lengths, dim in zip(held[0].lengths.unbind(1), DIMS, strict=True)) * 4e-9
    peak = peak_memory()
    return [
        Point(
            utterances=utterances,
            frames=frames,
            gigabytes=size,
            form=form,
            setup=setup[i],
            clock=clock[i],
            processor=processor[i],
            ratio=ratios[i],
            processor_ratio=processor_ratios[i],
            cold=watch.middle(watch.cold, i),
            peak=peak,
        )
        for i, form in enumerate(forms)
    ]


def relative(times: Sequence[float], forms: Sequence[str]) -> list[float]:
    """Each time relative to that of ``memory``; NaN where that was not run."""
    reference = times[forms.index("memory")] if "memory" in forms else float("nan")
    return [each / reference for each in times]


def apart(*arguments: Any) -> list[Point]:
    """:func:`measure` in a fresh process, whose memory nothing else has touched."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(measure, *arguments).result()


def measure_size(
    options: argparse.Namespace, utterances: int, frames: float, scratch: Path
) -> tuple[Point, Point | None]:
    """Write a corpus and measure it: on disk alone, and where it fits in turns with memory, which gives the ratios."""
    with tempfile.TemporaryDirectory(dir=scratch, prefix="ifmmin-growth-") as folder:
        RandomCorpus(utterances, frames).write(Path(folder))
        arguments = (options.model, Path(folder), utterances, frames)
        (alone,) = apart(*arguments, ["disk"], options.repeats, options.batches)
        if alone.gigabytes > options.memory:
            return alone, None
        disk, memory = apart(*arguments, ["disk", "memory"], options.repeats, options.batches)
        return replace(alone, ratio=disk.ratio, processor_ratio=disk.processor_ratio), memory


def measure_all(options: argparse.Namespace, smallest: int) -> Iterator[tuple[Point, Point | None]]:
    """Measure each size, with the smallest corpus before and after it."""
    frames = factors(SIZES[0])[1]
    with tempfile.TemporaryDirectory(dir=options.scratch, prefix="ifmmin-growth-") as folder:
        RandomCorpus(smallest, frames).write(Path(folder))

        def reference() -> float:
            arguments = (options.model, Path(folder), smallest, frames)
            return apart(*arguments, ["disk"], options.repeats, options.batches)[0].clock

        before = reference()
        for size in options.sizes:
            times, frames_of_size = factors(size)
            disk, memory = measure_size(options, round(smallest * times), frames_of_size, options.scratch)
            after = reference()
            yield replace(disk, growth=2 * disk.clock / (before + after)), memory
            before = after


def factors(size: str) -> tuple[float, float]:
    """The factors on utterances and on frames of one of :data:`SIZES`."""
    utterances, frames = size.split("x")
    return float(utterances), float(frames)


def table_of(rows: Sequence[tuple[Point, Point | None]], title: str) -> Table:
    """A line for each size."""
    table = Table(title=title, title_justify="left")
    disk_headings = "utterances", "frames", "GB", "setup s", "cold GB", "disk: µs", "growth", "CPU µs", "MiB"
    memory_headings = "memory: µs", "CPU µs", "MiB", "ratio", "CPU ratio"
    for heading in disk_headings + memory_headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for disk, memory in rows:
        cells = [f"{disk.utterances:,}", f"{disk.frames:g}x", f"{disk.gigabytes:.2f}", f"{disk.setup:.1f}"]
        cells += [
            f"{disk.cold:.2f}",
            f"{disk.clock:.0f}",
            f"{disk.growth:.2f}",
            f"{disk.processor:.0f}",
            f"{disk.peak:.0f}",
        ]
        if memory:
            cells += [f"{memory.clock:.0f}", f"{memory.processor:.0f}", f"{memory.peak:.0f}"]
            cells += [f"{disk.ratio:.2f}", f"{disk.processor_ratio:.2f}"]
        table.add_row(*cells)
    return table


def draw(path: Path, rows: Sequence[tuple[Point, Point | None]], title: str) -> None:
    """Time per utterance over utterances and over frames, and peak memory over the size of the corpus."""
    figure = empty_figure(12, 3.6)
    over_utterances, over_frames, over_size = figure.subplots(1, 3)
    colours = {"disk": "#2f6fb0", "memory": "#b0b0b0"}
    points = [point for row in rows for point in row if point]
    for form, colour in colours.items():
        mine = [point for point in points if point.form == form]
        wide = [point for point in mine if point.frames == 1]
        long = [point for point in mine if point.utterances == min(each.utterances for each in mine)]
        label = f"features {'on' if form == 'disk' else 'in'} {form}"
        over_utterances.plot(
            [p.utterances for p in wide], [p.clock for p in wide], "o-", clip_on=False, color=colour, label=label
        )
        over_frames.plot([p.frames for p in long], [p.clock for p in long], "o-", clip_on=False, color=colour)
        for series, style in ((wide, "o-"), (long, "o--")):
            over_size.plot([p.gigabytes for p in series], [p.peak for p in series], style, clip_on=False, color=colour)
    labels = {
        over_utterances: ("utterances", "training, µs per utterance"),
        over_frames: ("factor on frames", "training, µs per utterance"),
        over_size: ("features, GB (dashed: longer utterances)", "peak memory, MiB"),
    }
    for axes, (x, y) in labels.items():
        axes.set_xscale("log", base=2)
        measured = [float(value) for line in axes.lines for value in line.get_xdata()]
        ticks = {f"{value:,.0f}" if value > 100 else f"{value:.3g}": value for value in sorted(measured)}
        axes.set_xticks([*ticks.values()], [*ticks])
        axes.set(xlabel=x, ylabel=y)
        axes.set_ylim(bottom=0)
        axes.spines[["top", "right"]].set_visible(False)
    over_utterances.legend(frameon=False)
    figure.suptitle(title, x=0.01, ha="left", fontsize=10)
    write_picture(figure, path)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure all sizes and print and write the table."""
    models = discover_models()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="IFMMIN")
    parser.add_argument("--quick", action="store_true", help="a tenth of IEMOCAP's utterances, 20 batches an epoch")
    parser.add_argument(
        "--utterances", type=at_least(FEWEST_UTTERANCES), help=f"of the smallest corpus (default: {UTTERANCES})"
    )
    parser.add_argument(
        "--sizes", nargs="+", choices=SIZES, default=SIZES, help="factors on utterances and frames (default: all)"
    )
    parser.add_argument("--batches", type=at_least(0), help="so many of an epoch's batches, drawn at random; 0: all")
    parser.add_argument("--repeats", type=at_least(1), default=2, help="epochs, after one that warms up")
    parser.add_argument("--memory", type=float, default=5.0, help="GB: up to here, features are also kept in memory")
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()), help="where corpora are written")
    add_output_options(parser)
    options = parser.parse_args(argv)
    check_name(options.model, models, "model")
    smallest = options.utterances or (QUICK_UTTERANCES if options.quick else UTTERANCES)
    if options.batches is None:
        options.batches = QUICK_BATCHES if options.quick else 0
    console, rows = Console(width=max(140, Console().width)), []
    for disk, memory in measure_all(options, smallest):
        rows.append((disk, memory))
        console.print(
            f"{disk.utterances:,} utterances, {disk.frames:g}x frames: {disk.clock:.0f} µs an utterance, "
            f"{disk.growth:.2f} of the smallest corpus's, {disk.peak:.0f} MiB"
        )
    title = f"{options.model}, {torch.get_num_threads()} threads: microseconds per utterance of training"
    console.print(table_of(rows, title))
    if options.csv:
        write_rows(options.csv, [asdict(point) for row in rows for point in row if point])
    if options.plot:
        draw(options.plot, rows, title)


if __name__ == "__main__":
    raise SystemExit(in_one_line(main))
