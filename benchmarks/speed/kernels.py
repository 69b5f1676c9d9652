"""Gain of the kernels: an epoch of a model with them against one with their plain twins, in turns.

    python -m benchmarks.speed.kernels [--utterances 5531] [--repeats 3] [--csv table.csv]

Kernels below 1.3 times are to be deleted.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import lightning as L
from rich.console import Console
from rich.table import Table

from benchmarks.speed.epochs import Stopwatch, fit, silence, start
from benchmarks.speed.output import FEWEST_UTTERANCES, at_least, in_one_line, write_rows
from benchmarks.speed.random_corpus import UTTERANCES, RandomCorpus
from ifmmin.checkpoints.compatibility import model_arguments
from ifmmin.discovery import find_model
from ifmmin.nn import kernels

CASES: tuple[tuple[tuple[str, ...], str], ...] = (
    (("winning_window",), "IFMMIN"),
    (("winning_window",), "InvariantPretraining"),
    (("attention_lstm", "linear_error"), "MCTN"),
    (("packed_layer",), "CMARR"),
)
"""Kernels with a model that they serve; MCTN's two are the two halves of its decoder."""


@dataclass(frozen=True)
class Gain:
    """Kernels in one model.

    Attributes:
        kernel: their names.
        model: the class name.
        plain: seconds of a training epoch with the plain twins, the median.
        fast: with the kernels.
        least: the smallest ratio of a pair of turns.
        most: the largest.
    """

    kernel: str
    model: str
    plain: float
    fast: float
    least: float
    most: float


def seconds(model: str, data: RandomCorpus) -> float:
    """Train two epochs and time the second."""
    L.seed_everything(0, verbose=False)
    watch = Stopwatch()
    fit(start(find_model(model)(**model_arguments(data))), data, 1, "32-true", watch)
    return watch.train[-1]


def measure(names: Sequence[str], model: str, data: RandomCorpus, repeats: int) -> Gain:
    """Time an epoch with and without kernels, in turns."""
    times: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(repeats):
        for on in (True, False):
            with nullcontext() if on else kernels.plain(*names):
                times[on].append(seconds(model, data))
    ratios = [slow / fast for fast, slow in zip(times[True], times[False], strict=True)]
    return Gain(", ".join(names), model, median(times[False]), median(times[True]), min(ratios), max(ratios))


def main(argv: Sequence[str] | None = None) -> None:
    """Measure every kernel and print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--utterances", type=at_least(FEWEST_UTTERANCES), default=UTTERANCES)
    parser.add_argument("--repeats", type=at_least(1), default=3)
    parser.add_argument("--csv", type=Path, help="also write the table to this file")
    options = parser.parse_args(argv)
    silence()
    data = RandomCorpus(utterances=options.utterances)
    table = Table("kernel", "model", title=f"{options.utterances} utterances, training epochs", title_justify="left")
    for heading in ("plain s", "kernel s", "times as fast"):
        table.add_column(heading, justify="right")
    gains = []
    for names, model in CASES:
        gain = measure(names, model, data, options.repeats)
        gains.append(gain)
        ratio = f"{gain.plain / gain.fast:.2f} ({gain.least:.2f} – {gain.most:.2f})"
        table.add_row(gain.kernel, model, f"{gain.plain:.2f}", f"{gain.fast:.2f}", ratio)
    Console(width=max(100, Console().width)).print(table)
    if options.csv:
        write_rows(options.csv, [asdict(gain) for gain in gains])


if __name__ == "__main__":
    raise SystemExit(in_one_line(main))
