"""How long one utterance and one start take: milliseconds per prediction, CPU seconds per process.

    python -m benchmarks.speed.latency [--models IFMMIN MMIN] [--csv table.csv] [--plot table.png] [--serving]

A prediction is a call of :meth:`ifmmin.Predictor.predict` with one utterance of IEMOCAP's widths (audio
40 frames, visual 50, text 22) on one thread, checks and normalisation included; under all seven
conditions it is read once and answered seven times. Weights are random: they do not change the time.
``--serving`` takes two ratios, both sides in turns: 64 utterances of IEMOCAP's lengths one by one against
:meth:`ifmmin.Predictor.predict_many`; and at minute 10 of a stream, everything again against a push of one second
and its answer.
A start is a fresh process, in user CPU seconds, which a busy machine lengthens less than the clock.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.speed.epochs import start
from benchmarks.speed.output import add_output_options, at_least, in_one_line, write_picture, write_rows
from benchmarks.speed.random_corpus import DIMS, MEDIAN_AUDIO, SPREAD_AUDIO, TEXT_FRAMES, VISUAL_FRAMES
from datamodules.conditions import CONDITIONS, MODALITIES, present_under
from datamodules.storage.layouts import IEMOCAP_LAYOUT
from datamodules.storage.statistics import Statistics
from ifmmin.discovery import check_name, discover_models
from ifmmin.inference import Features, Predictor
from ifmmin.results.figures import empty_figure

FRAMES = (MEDIAN_AUDIO, VISUAL_FRAMES, TEXT_FRAMES)
ALL = "all seven"
WARM_UP = 10
BATCH = 64
MINUTE_10 = 600
PER_SECOND = (10, 10, 3)
RATE = {"audio": 10.0, "visual": 10.0, "text": 3.0}
CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.thread_time}

_CHECKOUT = Path(__file__).resolve().parents[2]
_CLI = "import sys; from ifmmin.cli import main; sys.exit(main())"
STARTS: dict[str, list[str]] = {
    "import torch": ["import torch"],
    "import lightning": ["import lightning"],
    "import ifmmin": ["import ifmmin"],
    "from ifmmin import IFMMIN": ["from ifmmin import IFMMIN"],
    "--help": [_CLI, "--help"],
    "fit --help": [_CLI, "fit", "--help"],
    "test, refused: no checkpoint": [_CLI, "test", "--model", "IFMMIN"],
    "check --help": [_CLI, "check", "--help"],
}
"""What is started, as the words after ``python -c``."""


@dataclass(frozen=True)
class Spread:
    """Of the repeats of one measurement.

    Attributes:
        what: ``predict``, ``batch``, ``stream`` or ``start``.
        name: the model's class name, or what is started.
        condition: of a prediction; :data:`ALL` for the seven together.
        unit: ``ms``, ``s``, or ``times`` of a ratio.
        median: over the repeats.
        least: their minimum.
        most: their maximum.
    """

    what: str
    name: str
    condition: str
    unit: str
    median: float
    least: float
    most: float

    @classmethod
    def of(cls, what: str, name: str, condition: str, unit: str, values: Sequence[float]) -> Spread:
        """Of ``values``, at least one."""
        return cls(what, name, condition, unit, median(values), min(values), max(values))


def predictor_of(name: str) -> Predictor:
    """A model for IEMOCAP's features with random weights, normalising audio."""
    torch.manual_seed(0)
    model = discover_models()[name](feature_dims=list(DIMS), class_names=list(IEMOCAP_LAYOUT.class_names))
    audio = Statistics(torch.zeros(DIMS[0]), torch.ones(DIMS[0]))
    trained_on = {"normalization": ["train", "none", "none"], "statistics": {"audio": audio._asdict()}}
    return Predictor(start(model), trained_on, source=name)


def utterance(condition: str, seed: int | None = None) -> Features:
    """Random frames of what is available under ``condition``, of the usual lengths, or random ones with a ``seed``."""
    rng = np.random.default_rng(seed or 0)
    # As in the random corpus: one utterance is some times as long as another, in every modality.
    times = 1.0 if seed is None else rng.lognormal(0.0, SPREAD_AUDIO)
    counts = [max(1, round(times * count)) for count in FRAMES]
    frames = [rng.standard_normal(shape, dtype=np.float32) for shape in zip(counts, DIMS, strict=True)]
    parts = zip(MODALITIES, frames, present_under(condition), strict=True)
    return {name: part for name, part, present in parts if present}


def frames_of(count: int, dim: int) -> npt.NDArray[np.float32]:
    """Random frames [count, dim]."""
    return np.random.default_rng(0).standard_normal((count, dim), dtype=np.float32)


def time_model(name: str, repeats: int, clock: Callable[[], float]) -> list[Spread]:
    """Milliseconds of a prediction under each condition that the model answers, then under all of these together."""
    predictor = predictor_of(name)
    answered = [condition for condition in CONDITIONS if predictor.model.answers(condition)]
    complete = utterance(CONDITIONS[-1])

    @torch.inference_mode()
    def answer_all() -> None:
        batch = predictor.batch(complete)
        predictor.model.evaluate(batch, answered)[0].float().softmax(dim=1).tolist()

    calls: dict[str, Callable[[], object]] = {
        condition: partial(predictor.predict, utterance(condition)) for condition in answered
    }
    if CONDITIONS[-1] in answered:
        calls[ALL] = answer_all
    return [Spread.of("predict", name, what, "ms", timed(call, repeats, clock)) for what, call in calls.items()]


def timed(call: Callable[[], object], repeats: int, clock: Callable[[], float]) -> list[float]:
    """Milliseconds of each repeat, after a warm-up."""
    for _ in range(WARM_UP):
        call()
    times = []
    for _ in range(repeats):
        begin = clock()
        call()
        times.append(1e3 * (clock() - begin))
    return times


def time_start(words: Sequence[str]) -> float:
    """User CPU seconds of a fresh Python that runs ``words``."""
    variables = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(_CHECKOUT)}
    quiet = subprocess.DEVNULL
    with subprocess.Popen([sys.executable, "-c", *words], env=variables, stdout=quiet, stderr=quiet) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    return usage.ru_utime


def time_serving(name: str, repeats: int, clock: Callable[[], float]) -> list[Spread]:
    """How many times as fast a batch is, and a push to a stream if anything is read incrementally."""
    predictor = predictor_of(name)
    answered = [condition for condition in CONDITIONS if predictor.model.answers(condition)]
    utterances = [utterance(answered[place % len(answered)], seed=place) for place in range(BATCH)]

    def one_by_one() -> None:
        for features in utterances:
            predictor.predict(features)

    batch = ratios(one_by_one, lambda: predictor.predict_many(utterances), repeats, clock)
    found = [Spread.of("batch", name, "", "times", batch)]
    stream = predictor.stream(every=2.0 * MINUTE_10, rate=RATE)
    if stream.incremental:
        shown = [place for place, letter in enumerate("avt") if letter in answered[-1]]
        second = {MODALITIES[place]: frames_of(PER_SECOND[place], DIMS[place]) for place in shown}
        whole = {modality: np.tile(frames, (MINUTE_10, 1)) for modality, frames in second.items()}
        stream.push(**whole)

        def push() -> None:
            stream.push(**second)
            stream.answer()

        pushes = ratios(lambda: predictor.predict(whole), push, repeats, clock)
        found.append(Spread.of("stream", name, "+".join(stream.incremental), "times", pushes))
    return found


def ratios(
    slow: Callable[[], object], fast: Callable[[], object], repeats: int, clock: Callable[[], float]
) -> list[float]:
    """Time of ``slow`` by time of ``fast`` in each repeat, one after the other."""
    slow()
    fast()
    found = []
    for _ in range(repeats):
        times = []
        for call in (slow, fast):
            begin = clock()
            call()
            times.append(clock() - begin)
        found.append(times[0] / times[1])
    return found


def table_of_models(spreads: Sequence[Spread], title: str) -> Table:
    """A line per model: the median under each condition, and the spread under the slowest and under all."""
    table = Table(title=title, title_justify="left")
    table.add_column("model", no_wrap=True)
    for heading in (*CONDITIONS, "slowest (min – max)", f"{ALL} (min – max)"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name in dict.fromkeys(row.name for row in spreads):
        found = {row.condition: row for row in spreads if row.name == name}
        alone = [f"{found[condition].median:.2f}" if condition in found else "–" for condition in CONDITIONS]
        slowest = max((row for what, row in found.items() if what != ALL), key=lambda row: row.median)
        table.add_row(name, *alone, _in_words(slowest), _in_words(found.get(ALL)))
    return table


def table_of_serving(spreads: Sequence[Spread], title: str) -> Table:
    """A line per model: how many times as fast a batch and a push are."""
    table = Table(
        "model",
        "batch (min – max)",
        "push at minute 10 (min – max)",
        "read incrementally",
        title=title,
        title_justify="left",
    )
    for name in dict.fromkeys(row.name for row in spreads):
        found = {row.what: row for row in spreads if row.name == name}
        read = found["stream"].condition if "stream" in found else "–"
        table.add_row(name, _in_words(found["batch"]), _in_words(found.get("stream")), read)
    return table


def table_of_starts(spreads: Sequence[Spread], title: str) -> Table:
    """A line per start."""
    table = Table("start", title=title, title_justify="left")
    table.add_column("user CPU s (min – max)", justify="right")
    for row in spreads:
        table.add_row(row.name, _in_words(row))
    return table


def _in_words(row: Spread | None) -> str:
    """Median, with the smallest and largest in brackets."""
    return "–" if row is None else f"{row.median:.2f} ({row.least:.2f} – {row.most:.2f})"


def draw(path: Path, spreads: Sequence[Spread]) -> None:
    """Both kinds of measurements as bars: the median, with a whisker from the smallest to the largest."""
    slowest: dict[str, Spread] = {}
    for row in spreads:
        if row.what == "predict" and row.condition != ALL:
            slowest[row.name] = max(slowest.get(row.name, row), row, key=lambda one: one.median)
    starts = [row for row in spreads if row.what == "start"]
    kinds = {"one utterance, slowest condition: ms": [*slowest.values()], "one start: user CPU s": starts}
    kinds = {label: rows for label, rows in kinds.items() if rows}
    figure = empty_figure(6 * len(kinds), 4.5)
    for axes, (label, rows) in zip(figure.subplots(1, len(kinds), squeeze=False)[0], kinds.items(), strict=True):
        whiskers = [[row.median - row.least for row in rows], [row.most - row.median for row in rows]]
        axes.barh(range(len(rows)), [row.median for row in rows], xerr=whiskers, color="#2f6fb0", ecolor="#606060")
        for position, row in enumerate(rows):
            axes.text(row.most, position, f"  {row.median:.2f}", va="center")
        axes.set_yticks(range(len(rows)), [row.name for row in rows])
        axes.invert_yaxis()
        axes.margins(x=0.2)
        axes.set_xlabel(label)
        axes.spines[["top", "right"]].set_visible(False)
    write_picture(figure, path)


def main(argv: Sequence[str] | None = None) -> None:
    """Time the models and the starts, and print and write the tables."""
    models = discover_models()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", default=sorted(models), help="none times the starts alone")
    parser.add_argument("--repeats", type=at_least(1), default=200, help="of each prediction")
    parser.add_argument("--starts", type=at_least(0), default=5, help="of each process; 0 times the models alone")
    parser.add_argument(
        "--clock", choices=list(CLOCKS), default="wall", help="cpu: what a busy machine would not delay"
    )
    parser.add_argument("--serving", action="store_true", help="take the ratios of batches and streams too")
    add_output_options(parser)
    options = parser.parse_args(argv)
    for name in options.models:
        check_name(name, models, "model")
    if not options.models and not options.starts:
        parser.error("nothing to time: name a model, or give --starts")
    torch.set_num_threads(1)
    console, spreads = Console(width=max(140, Console().width)), []
    for name in options.models:
        spreads += time_model(name, options.repeats, CLOCKS[options.clock])
    if options.models:
        title = f"one utterance, one thread, {options.clock} milliseconds, median of {options.repeats}"
        console.print(table_of_models(spreads, title))
    served: list[Spread] = []
    for name in options.models if options.serving else ():
        served += time_serving(name, max(1, options.repeats // 10), CLOCKS[options.clock])
    if served:
        title = f"how many times as fast, one thread, {options.clock} time, median of {max(1, options.repeats // 10)}"
        console.print(table_of_serving(served, title))
    spreads += served
    starts = []
    for name, words in STARTS.items() if options.starts else ():
        starts.append(Spread.of("start", name, "", "s", [time_start(words) for _ in range(options.starts)]))
    if starts:
        console.print(table_of_starts(starts, f"fresh processes, median of {options.starts}"))
    spreads += starts
    if options.csv:
        facts = {"clock": options.clock, "torch": torch.__version__}
        write_rows(options.csv, [asdict(spread) | facts for spread in spreads])
    if options.plot:
        draw(options.plot, spreads)


if __name__ == "__main__":
    raise SystemExit(in_one_line(main))
