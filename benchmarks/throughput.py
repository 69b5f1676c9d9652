"""Seconds per epoch, training and validation together, of this library and of the published loop.

    python -m benchmarks.throughput [--quick] [--precision bf16-mixed] [--csv table.csv] [--plot table.png]

Both run in turns in one process, on the same random numbers of IEMOCAP's size and from the same
weights: ours through Lightning's Trainer, as users run it, in the given precision; the published
loop (:mod:`benchmarks.plain`) in float32, as published, around the plain form of the model
(:mod:`benchmarks.plain_forms`). Ours validates all seven conditions, the published loop the six
missing ones. What comes once per run is not counted in the epochs: the teacher's pass over the
training utterances has its own column. --quick makes two repeats instead of three and runs only a
fifth of the published loop's batches, drawn at random, and scales the time up by the utterances
they held; ours is always run in full, because its batches differ in length by design.

Peak memory is that of the whole process while one of the two runs: Python, the features in memory,
and the some 50 MiB that the other keeps, included.
"""

from __future__ import annotations

import argparse
import ctypes
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

import lightning as L
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.epochs import Stopwatch, fit, now, silence, start
from benchmarks.output import add_output_options, empty_picture, write_picture, write_rows
from benchmarks.plain import PlainLoop
from benchmarks.plain_forms import PLAIN_FORMS
from benchmarks.random_corpus import UTTERANCES, RandomCorpus
from ifmmin.compatibility import model_facts

QUICK_SHARE, QUICK_REPEATS, REPEATS = 0.2, 2, 3
WARM_UP_SHARE = 0.05
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
    """Return freed memory to the system and measure the process's peak memory anew (Linux; elsewhere nothing)."""
    status = Path("/proc/self/clear_refs")
    if status.exists():
        ctypes.CDLL(None).malloc_trim(0)
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
    """Before each epoch of ours that is timed, runs one of the published loop.

    Args:
        loop: the published loop.
        share: of its batches that are run.
    """

    def __init__(self, loop: PlainLoop, share: float) -> None:
        super().__init__()
        self.loop = loop
        self.share = share
        self.plain: list[Epoch] = []
        self.peaks: list[float] = []

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Run the published loop, then start the clock of ours."""
        self.plain.append(plain_epoch(self.loop, self.share if self.plain else WARM_UP_SHARE))
        restart_peak()
        super().on_train_epoch_start(trainer, pl_module)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """End an epoch of ours."""
        super().on_validation_end(trainer, pl_module)
        self.peaks.append(peak_memory())


def compare(name: str, data: RandomCorpus, repeats: int, precision: str, share: float) -> Comparison:
    """Time one model in both forms, in turns."""
    L.seed_everything(0, verbose=False)
    model = start(MODELS[name](**model_facts(data)))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    turns = Turns(PlainLoop(model, data, device), share)
    fit(model, data, repeats, precision, turns)
    ours = [Epoch(*values) for values in zip(turns.train, turns.val, turns.peaks, strict=True)]
    return Comparison(name, turns.plain[1:], ours[1:], turns.once)


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
    """Every repeat on a line, with the facts that hold for all."""
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
    figure = empty_picture(9, 1.2 + 1.1 * len(comparisons))
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
    axes.legend(loc="lower right", frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(title, loc="left", fontsize=10)
    write_picture(figure, path)


def main(argv: Sequence[str] | None = None) -> None:
    """Time the models and print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument(
        "--quick", action="store_true", help="two repeats, a fifth of the published loop's batches, scaled up"
    )
    parser.add_argument("--precision", choices=("32-true", "bf16-mixed"), default="32-true", help="of ours")
    parser.add_argument("--repeats", type=int, help=f"timed epochs of each (default {REPEATS}, quick {QUICK_REPEATS})")
    parser.add_argument("--utterances", type=int, default=UTTERANCES)
    add_output_options(parser)
    options = parser.parse_args(argv)
    silence()
    data = RandomCorpus(utterances=options.utterances)
    data.setup("fit")
    share = QUICK_SHARE if options.quick else 1.0
    repeats = options.repeats or (QUICK_REPEATS if options.quick else REPEATS)
    console, comparisons = Console(width=max(140, Console().width)), []
    for name in options.models:
        comparisons.append(compare(name, data, repeats, options.precision, share))
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
    main()
