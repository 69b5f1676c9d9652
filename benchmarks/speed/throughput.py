"""Seconds per epoch, training and validation together, of this library and of the published loop.

    python -m benchmarks.speed.throughput [--quick] [--precision bf16-mixed] [--csv table.csv] [--plot table.png]

Both run in turns, each in a process of its own, on the same random numbers of IEMOCAP's size and from the
same weights: ours through Lightning's Trainer, as users run it, in the given precision; the published
loop (:mod:`benchmarks.published.loop`) in float32, as published, around the plain form of the model
(:mod:`benchmarks.published.forms`). Ours validates all seven conditions, the published loop the six
missing ones. What comes once per run is not counted in the epochs: the teacher's pass over the
training utterances has its own column. --quick makes two repeats instead of three and runs only a
sixth of the published loop's batches, drawn at random, and scales the time up by the utterances
they held; ours is always run in full, because its batches differ in length by design.

Peak memory is that of the whole process, Python and the features in memory included.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median

import lightning as L
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.published.forms import PLAIN_FORMS
from benchmarks.published.loop import PlainLoop
from benchmarks.speed.epochs import Stopwatch, fit, now, silence, start
from benchmarks.speed.output import (
    FEWEST_UTTERANCES,
    add_output_options,
    at_least,
    in_one_line,
    write_picture,
    write_rows,
)
from benchmarks.speed.random_corpus import UTTERANCES, RandomCorpus
from ifmmin.base import MissingModalityModule
from ifmmin.checkpoints.compatibility import model_arguments
from ifmmin.results.figures import empty_figure

QUICK_SHARE, QUICK_REPEATS, REPEATS = 1 / 6, 2, 3
WARM_UP_SHARE = 0.03
MODELS = {model.__name__: model for model in PLAIN_FORMS}


@dataclass(frozen=True)
class Epoch:
    """An epoch of one of the two.

    Attributes:
        train: seconds of training.
        val: seconds of validation.
        peak: largest resident memory of the process meanwhile, in MiB; NaN where the system does not tell.
    """

    train: float
    val: float
    peak: float

    @property
    def seconds(self) -> float:
        """Training and validation."""
        return self.train + self.val


@dataclass
class Comparison:
    """Of one model: the epochs of both in turns, without those that warmed up.

    Attributes:
        model: its class name.
        plain: of the published loop.
        ours: of this library.
        once: seconds of ours before the first epoch: the teacher's pass, loaders.
    """

    model: str
    plain: list[Epoch] = field(default_factory=list)
    ours: list[Epoch] = field(default_factory=list)
    once: float = 0.0

    @property
    def ratios(self) -> list[float]:
        """How many times as long the published loop takes, per repeat."""
        return [plain.seconds / ours.seconds for plain, ours in zip(self.plain, self.ours, strict=True)]


def restart_peak() -> None:
    """Measure the process's peak memory anew (Linux; elsewhere nothing)."""
    status = Path("/proc/self/clear_refs")
    if status.exists():
        status.write_text("5", encoding="ascii")


def peak_memory() -> float:
    """Largest resident memory since :func:`restart_peak` in MiB; NaN where the system does not tell."""
    status = Path("/proc/self/status")
    lines = status.read_text(encoding="ascii").splitlines() if status.exists() else []
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), math.nan)


def plain_epoch(loop: PlainLoop, share: float) -> Epoch:
    """Time the published loop over a share of an epoch's batches, scaled up to the whole."""
    restart_peak()
    begin = now()
    trained = loop.train(share)
    middle = now()
    validated = loop.validate(share)
    end = now()
    return Epoch((middle - begin) / trained, (end - middle) / validated, peak_memory())


class Turns(Stopwatch):
    """Begins each epoch when it is asked to, and answers with how long it took; first, how long what comes once took.

    Args:
        asked: the other end belongs to who asks.
    """

    def __init__(self, asked: Connection) -> None:
        super().__init__()
        self.asked = asked

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Answer that all is ready."""
        super().on_train_start(trainer, pl_module)
        self.asked.send(self.once)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Wait for the turn."""
        self.asked.recv()
        restart_peak()
        super().on_train_epoch_start(trainer, pl_module)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Answer."""
        super().on_validation_end(trainer, pl_module)
        self.asked.send(Epoch(self.train[-1], self.val[-1], peak_memory()))


def prepare(name: str, utterances: int) -> tuple[MissingModalityModule, RandomCorpus]:
    """A model and its data, the same in every process."""
    silence()
    data = RandomCorpus(utterances=utterances)
    data.setup("fit")
    L.seed_everything(0, verbose=False)
    return start(MODELS[name](**model_arguments(data))), data


def run_ours(asked: Connection, name: str, utterances: int, repeats: int, precision: str) -> None:
    """Train ours, an epoch whenever it is asked for."""
    fit(*prepare(name, utterances), 2 * repeats - 1, precision, Turns(asked))


def run_published(asked: Connection, name: str, utterances: int, repeats: int, share: float) -> None:
    """Train the published loop, an epoch whenever it is asked for, every other one a short one to warm up."""
    model, data = prepare(name, utterances)
    loop = PlainLoop(model, data, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    asked.send(0.0)
    for turn in range(2 * repeats):
        asked.recv()
        asked.send(plain_epoch(loop, share if turn % 2 else WARM_UP_SHARE))


@contextmanager
def running(run: Callable[..., None], *arguments: object) -> Iterator[tuple[Connection, float]]:
    """``run(connection, *arguments)`` in a process of its own: the other end, and its first answer."""
    context = get_context("spawn")
    ours, its = context.Pipe()
    process = context.Process(target=run, args=(its, *arguments), daemon=True)
    process.start()
    its.close()  # or nobody would notice here that the process has ended
    try:
        yield ours, ours.recv()
    except BaseException:
        process.terminate()
        raise
    finally:
        ours.close()
        process.join()


def compare(name: str, utterances: int, repeats: int, precision: str, share: float) -> Comparison:
    """Time one model in both forms, in turns."""
    try:
        with (
            running(run_published, name, utterances, repeats, share) as (published, _),
            running(run_ours, name, utterances, repeats, precision) as (ours, once),
        ):
            comparison = Comparison(name, once=once)
            for _ in range(repeats):
                for connection, epochs in ((published, comparison.plain), (ours, comparison.ours)):
                    # While it waited, the system may have taken its memory away: of two epochs the second counts.
                    for _ in range(2):
                        connection.send("an epoch")
                        epoch = connection.recv()
                    epochs.append(epoch)
    except EOFError:
        sys.exit(f"{name}: one of the two processes ended before it was done; its output is above.")
    return comparison


def spread(values: Sequence[float], digits: int) -> str:
    """Median, with the smallest and largest in brackets."""
    middle, least, most = (f"{value:.{digits}f}" for value in (median(values), min(values), max(values)))
    return f"{middle} ({least} – {most})"


def table_of(comparisons: Sequence[Comparison], title: str, caption: str) -> Table:
    """Median, minimum and maximum over the repeats."""
    table = Table(title=title, caption=caption, title_justify="left", caption_justify="left")
    table.add_column("model", no_wrap=True)
    for heading in ("published s", "ours s", "ratio", "ours once s", "published MiB", "ours MiB"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in comparisons:
        seconds = [spread([epoch.seconds for epoch in epochs], 2) for epochs in (row.plain, row.ours)]
        peaks = [f"{max(epoch.peak for epoch in epochs):.0f}" for epochs in (row.plain, row.ours)]
        table.add_row(row.model, *seconds, spread(row.ratios, 1), f"{row.once:.2f}", *peaks)
    return table


def write_csv(path: Path, comparisons: Sequence[Comparison], facts: dict[str, object]) -> None:
    """Every repeat on a line, with the facts common to all."""
    rows = [
        {"model": comparison.model, "repeat": repeat, "ratio": ratio}
        | {f"plain_{key}": value for key, value in asdict(plain).items()}
        | {f"ours_{key}": value for key, value in asdict(ours).items()}
        | {"ours_once": comparison.once, **facts}
        for comparison in comparisons
        for repeat, (plain, ours, ratio) in enumerate(
            zip(comparison.plain, comparison.ours, comparison.ratios, strict=True)
        )
    ]
    write_rows(path, rows)


def draw(path: Path, comparisons: Sequence[Comparison], title: str) -> None:
    """Seconds per epoch as bars: the median, with a whisker from the smallest to the largest."""
    figure = empty_figure(9, 1.8 + 1.1 * len(comparisons))
    axes = figure.subplots()
    for offset, label, colour in ((-0.2, "published loop", "#b0b0b0"), (0.2, "ours", "#2f6fb0")):
        for position, row in enumerate(comparisons):
            values = [epoch.seconds for epoch in (row.ours if offset > 0 else row.plain)]
            middle = median(values)
            whisker = [[middle - min(values)], [max(values) - middle]]
            axes.barh(position + offset, middle, 0.38, xerr=whisker, color=colour, label="" if position else label)
            note = f"  {middle:.2f} s" + (f", {median(row.ratios):.1f} times as fast" if offset > 0 else "")
            axes.text(max(values), position + offset, note, va="center")
    axes.set_yticks(range(len(comparisons)), [row.model for row in comparisons])
    axes.invert_yaxis()
    axes.margins(x=0.2)
    axes.set_xlabel("seconds per epoch: training and validation")
    figure.legend(loc="outside lower center", ncols=2, frameon=False)  # beside the bars it would cover a note
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(title, loc="left", fontsize=10)
    write_picture(figure, path)


def main(argv: Sequence[str] | None = None) -> None:
    """Time the models and print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument(
        "--quick", action="store_true", help="two repeats, a sixth of the published loop's batches, scaled up"
    )
    parser.add_argument("--precision", choices=("32-true", "bf16-mixed"), default="32-true", help="of ours")
    parser.add_argument("--repeats", type=at_least(1), help=f"timed epochs (default {REPEATS}, quick {QUICK_REPEATS})")
    parser.add_argument("--utterances", type=at_least(FEWEST_UTTERANCES), default=UTTERANCES)
    add_output_options(parser)
    options = parser.parse_args(argv)
    share = QUICK_SHARE if options.quick else 1.0
    repeats = options.repeats or (QUICK_REPEATS if options.quick else REPEATS)
    console, comparisons = Console(width=max(140, Console().width)), []
    for name in options.models:
        comparisons.append(compare(name, options.utterances, repeats, options.precision, share))
        console.print(f"{name}: {spread(comparisons[-1].ratios, 1)} times as fast")
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{torch.get_num_threads()} threads"
    title = f"{options.utterances} random utterances, {where}, ours in {options.precision}, published in float32"
    caption = f"median (min – max) of {repeats} epochs" + (
        f"; published: {share:.0%} of the batches, scaled up per utterance" if options.quick else ""
    )
    console.print(table_of(comparisons, title, caption))
    if options.csv:
        facts = {"precision": options.precision, "utterances": options.utterances, "where": where, "plain_share": share}
        write_csv(options.csv, comparisons, facts)
    if options.plot:
        draw(options.plot, comparisons, title)


if __name__ == "__main__":
    raise SystemExit(in_one_line(main))
