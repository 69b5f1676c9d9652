"""Training on one GPU: utterances per second, how busy it is, and the gain of packing runs and compiling.

    python -m benchmarks.speed.gpu [--packed 1 2 4 8] [--no-compile] [--csv table.csv] [--plot table.png]

A model on random numbers of IEMOCAP's size: the published loop (:mod:`benchmarks.published.loop`) in float32, as
published, and ours through Lightning's Trainer, in each precision, with and without ``torch.compile`` of
what follows the encoders (cuDNN has the LSTMs already), and in the last precision as several runs at once.

Every run is a process of its own. After an epoch that warms up (and compiles), the runs of a case start
together; an epoch is training and validation, and utterances per second are the training utterances of all
runs over the time until the last is done. *Busy* is the share of that time in which some kernel ran, by
nvidia-smi. --device cpu tries the program out without a GPU; its figures tell nothing about one.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from threading import Barrier, BrokenBarrierError

import lightning as L
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.published.forms import PLAIN_FORMS
from benchmarks.published.loop import PlainLoop
from benchmarks.speed.epochs import Stopwatch, fit, now, silence, start
from benchmarks.speed.output import FEWEST_UTTERANCES, add_output_options, at_least, write_picture, write_rows
from benchmarks.speed.random_corpus import UTTERANCES, RandomCorpus
from ifmmin.base import MissingModalityModule
from ifmmin.checkpoints.compatibility import model_arguments
from ifmmin.results.figures import empty_figure

MODELS = {model.__name__: model for model in PLAIN_FORMS}
PUBLISHED = "published loop"
SAMPLING_MS = 100


@dataclass(frozen=True)
class Case:
    """What is run.

    Attributes:
        form: :data:`PUBLISHED` or ``ours``.
        precision: of Lightning's Trainer.
        compiled: whether what follows the encoders is compiled.
        runs: how many at once.
    """

    form: str
    precision: str = "32-true"
    compiled: bool = False
    runs: int = 1

    @property
    def label(self) -> str:
        """The case in words."""
        return f"{self.form}, {self.precision}" + ", compiled" * self.compiled


@dataclass(frozen=True)
class Size:
    """What all cases share.

    Attributes:
        model: its class name.
        utterances: of the corpus; four fifths are trained on.
        epochs: after the one that warms up.
        device: ``cuda`` or ``cpu``.
    """

    model: str
    utterances: int
    epochs: int
    device: str


@dataclass(frozen=True)
class Lap:
    """One run of a case.

    Attributes:
        begin: seconds on a clock that all processes share.
        end: likewise.
        utterances: trained on in between.
        busy: share of the time in which a kernel ran, in [0, 1]; NaN where it was not sampled.
        memory: largest GPU memory in tensors, in MiB; NaN without a GPU.
    """

    begin: float
    end: float
    utterances: int
    busy: float
    memory: float


@dataclass(frozen=True)
class Measured:
    """The runs of a case together.

    Attributes:
        case: in words.
        runs: how many at once.
        utterances_per_second: training utterances of all runs per second of whole epochs.
        busy: see :class:`Lap`.
        memory: of all runs together, in MiB.
    """

    case: str
    runs: int
    utterances_per_second: float
    busy: float
    memory: float

    @classmethod
    def of(cls, case: Case, laps: Sequence[Lap]) -> Measured:
        """Of the laps of all runs; the first one's process sampled the GPU."""
        seconds = max(lap.end for lap in laps) - min(lap.begin for lap in laps)
        rate = sum(lap.utterances for lap in laps) / seconds
        return cls(case.label, case.runs, rate, laps[0].busy, sum(lap.memory for lap in laps))


class Interval:
    """The time that counts: begun by all runs together, with the GPU sampled meanwhile by one of them.

    Args:
        together: at which all runs wait for each other.
        sampled: whether this one samples.
    """

    def __init__(self, together: Barrier, sampled: bool) -> None:
        self.together = together
        self.sampled = sampled
        self.begin = self.end = 0.0
        self.busy = math.nan
        self._sampler: subprocess.Popen[str] | None = None

    def open(self) -> None:
        """Wait for the others, and begin."""
        now()
        self.together.wait()
        if self.sampled:
            device = str(torch.cuda.get_device_properties(0).uuid).removeprefix("GPU-")
            query = ["nvidia-smi", f"--id=GPU-{device}", "--query-gpu=utilization.gpu"]
            words = [*query, "--format=csv,noheader,nounits", f"--loop-ms={SAMPLING_MS}"]
            self._sampler = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        self.begin = time.monotonic()

    def close(self) -> None:
        """End, once the GPU has done what it was given."""
        now()
        self.end = time.monotonic()
        if self._sampler:
            self._sampler.terminate()
            self.busy = busy_share(self._sampler.communicate()[0])


def busy_share(printed: str) -> float:
    """The mean in [0, 1] of percentages on lines, NaN where there is none (a slice of a GPU does not tell)."""
    percent = [int(line) for line in printed.split("\n") if line.strip().isdecimal()]
    return mean(percent) / 100 if percent else math.nan


class Epochs(Stopwatch):
    """Opens the interval when the epoch that warms up is over, and closes it after the last validation."""

    def __init__(self, interval: Interval) -> None:
        super().__init__()
        self.interval = interval

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """See the class."""
        if trainer.current_epoch == 1:
            self.interval.open()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """See the class."""
        if trainer.current_epoch + 1 == trainer.max_epochs:
            self.interval.close()


def train_published(loop: PlainLoop, epochs: int, interval: Interval) -> None:
    """One epoch of the published loop to warm up, then those that count."""
    for epoch in range(epochs + 1):
        if epoch == 1:
            interval.open()
        loop.train()
        loop.validate()
    interval.close()


def compile_parts(model: MissingModalityModule) -> None:
    """Compile what follows the encoders, in place; the number of rows changes from batch to batch."""
    for name, part in model.subnetworks():
        if not name.startswith("encoders"):
            part.compile(dynamic=True)


_together: Barrier


def _meet_at(barrier: Barrier) -> None:
    """Tell a process of the pool where to wait for the others."""
    global _together
    _together = barrier


def run(case: Case, size: Size, sampled: bool) -> Lap:
    """Train in this process of the pool, together with the others."""
    try:
        silence()
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // case.runs))
        L.seed_everything(0, verbose=False)
        data = RandomCorpus(utterances=size.utterances)
        data.setup("fit")
        model = start(MODELS[size.model](**model_arguments(data)))
        interval = Interval(_together, sampled and size.device == "cuda")
        if case.form == PUBLISHED:
            train_published(PlainLoop(model, data, torch.device(size.device)), size.epochs, interval)
        else:
            if case.compiled:
                compile_parts(model)
            fit(model, data, size.epochs, case.precision, Epochs(interval))
    except BaseException:
        _together.abort()  # the others would wait for this one for ever
        raise
    memory = torch.cuda.max_memory_allocated() / 2**20 if size.device == "cuda" else math.nan
    return Lap(interval.begin, interval.end, size.epochs * len(data.indices("train")), interval.busy, memory)


def measure(case: Case, size: Size) -> Measured:
    """Run a case in fresh processes; what one of them raises is raised here."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(case.runs)
    with ProcessPoolExecutor(case.runs, context, initializer=_meet_at, initargs=(barrier,)) as pool:
        laps = [pool.submit(run, case, size, sampled=number == 0) for number in range(case.runs)]
        errors = [error for lap in laps if (error := lap.exception())]
        if errors:  # that a run was left waiting is not why
            raise next((error for error in errors if not isinstance(error, BrokenBarrierError)), errors[0])
        return Measured.of(case, [lap.result() for lap in laps])


def cases(precisions: Sequence[str], packed: Sequence[int], compiled: bool) -> list[Case]:
    """The published loop, ours in each precision, compiled too where wanted, and packed in the last precision."""
    alone = [Case("ours", precision, part) for precision in precisions for part in (False, True)[: 1 + compiled]]
    several = [Case("ours", precisions[-1], runs=runs) for runs in packed if runs > 1]
    return [Case(PUBLISHED), *alone, *several]


def table_of(rows: Sequence[Measured], title: str) -> Table:
    """A line per case; ratios are to the first."""
    table = Table(title=title, title_justify="left")
    table.add_column("case", no_wrap=True)
    for heading in ("runs", "utterances/s", "ratio", "GPU busy", "GPU MiB"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        rate, ratio = row.utterances_per_second, row.utterances_per_second / rows[0].utterances_per_second
        busy = "–" if math.isnan(row.busy) else f"{row.busy:.0%}"
        memory = "–" if math.isnan(row.memory) else f"{row.memory:.0f}"
        table.add_row(row.case, str(row.runs), f"{rate:.0f}", f"{ratio:.1f}", busy, memory)
    return table


def draw(path: Path, rows: Sequence[Measured], title: str) -> None:
    """Utterances per second as bars, with the busy share beside them."""
    figure = empty_figure(9, 1.2 + 0.5 * len(rows))
    axes = figure.subplots()
    colours = ["#b0b0b0" if row.case.startswith(PUBLISHED) else "#2f6fb0" for row in rows]
    axes.barh(range(len(rows)), [row.utterances_per_second for row in rows], color=colours)
    for position, row in enumerate(rows):
        busy = "" if math.isnan(row.busy) else f", GPU busy {row.busy:.0%}"
        axes.text(row.utterances_per_second, position, f"  {row.utterances_per_second:.0f}{busy}", va="center")
    axes.set_yticks(range(len(rows)), [f"{row.case}" + f", {row.runs} runs" * (row.runs > 1) for row in rows])
    axes.invert_yaxis()
    axes.margins(x=0.3)
    axes.set_xlabel("training utterances per second, validation included")
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(title, loc="left", fontsize=10)
    write_picture(figure, path)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure the cases and print and write the table.

    Returns:
        the exit code: 0, or 1 where there is no GPU.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=list(MODELS), default="IFMMIN")
    parser.add_argument("--precisions", nargs="+", choices=("32-true", "bf16-mixed"), default=["32-true", "bf16-mixed"])
    parser.add_argument("--packed", type=at_least(1), nargs="*", default=[2, 4, 8], help="numbers of runs at once")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True, help="try torch.compile")
    parser.add_argument("--utterances", type=at_least(FEWEST_UTTERANCES), default=UTTERANCES)
    parser.add_argument("--epochs", type=at_least(1), default=5)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    add_output_options(parser)
    options = parser.parse_args(argv)
    on_gpu = options.device == "cuda"
    if on_gpu and not torch.cuda.is_available():
        print("error: there is no GPU here; --device cpu tries the program out without one.", file=sys.stderr)
        return 1
    where = torch.cuda.get_device_name() if on_gpu else "CPU (says nothing about a GPU)"
    # The processes that are started see one GPU, or none: Lightning would take all there are.
    os.environ["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0] if on_gpu else ""
    size = Size(options.model, options.utterances, options.epochs, options.device)
    console, rows = Console(width=max(110, Console().width)), []
    for case in cases(options.precisions, options.packed, options.compile):
        rows.append(measure(case, size))
        console.print(f"{case.label}, runs: {case.runs}: {rows[-1].utterances_per_second:.0f} utterances/s")
    title = f"{options.model}, {options.utterances} random utterances, {where}"
    console.print(table_of(rows, title))
    if options.csv:
        facts = {"model": options.model, "utterances": options.utterances, "where": where}
        write_rows(options.csv, [asdict(row) | facts for row in rows])
    if options.plot:
        draw(options.plot, rows, title)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
