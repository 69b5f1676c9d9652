"""How fast recordings become features: by part, by length of a video, by processes, and of one clip.

    python -m benchmarks.speed.extraction [--width 720] [--minutes 1 8] [--jobs 1 2] [--csv table.csv]

Recordings are an invented IEMOCAP of two sessions, its pictures ``--width`` pixels wide with two people in them; the
recipe is the portable one. Parts are CPU seconds of one thread per second of speech, and their inverse: 4.0 means that
an hour of speech takes a core 15 minutes. Memory is the most that a process takes for one video, which is repeated to
so many minutes, with an utterance of 3 s every 6 s. ``--jobs`` is wall time of the whole command.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from statistics import median
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.speed.output import at_least, in_one_line, write_rows
from datamodules.errors import InputError
from datamodules.extraction.extractor import Extractor
from datamodules.extraction.index import index_of
from datamodules.extraction.invented import Options, make
from datamodules.extraction.media.pictures import Film, sample
from datamodules.extraction.pipeline import Pipeline
from datamodules.extraction.recipes import RECIPES
from datamodules.extraction.recordings import Recording, Source

_CHECKOUT = Path(__file__).resolve().parents[2]
_WITH = "utterance of 3 s every 6 s"


@dataclass(frozen=True)
class Row:
    """One measurement.

    Attributes:
        what: ``part``, ``memory``, ``jobs`` or ``latency``.
        name: of the part; minutes; processes; kind of clip.
        value: in ``unit``.
        unit: ``CPU s`` per second of speech, ``MiB``, ``s``.
    """

    what: str
    name: str
    value: float
    unit: str


class _Timed:
    """Adds up the CPU seconds of its calls."""

    def __init__(self, call: Any) -> None:
        self._call, self.spent = call, 0.0

    def __call__(self, item: Any) -> Any:
        begin = time.process_time()
        try:
            return self._call(item)
        finally:
            self.spent += time.process_time() - begin

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)


def cpu_seconds(work: Callable[[], object]) -> float:
    """CPU seconds of this process."""
    begin = time.process_time()
    work()
    return time.process_time() - begin


def time_parts(recordings: Sequence[Recording], pipeline: Pipeline) -> list[Row]:
    """CPU seconds of each part of the work per second of speech, then of all of it."""
    timed: dict[str, _Timed] = {name: _Timed(each) for name, each in pipeline.extractors.items()}
    detector = _Timed(pipeline.detector)
    speech = sum(each.seconds for each in pipeline.extract(recordings))  # warms up too

    def run(*modalities: str) -> float:
        extractors: dict[str, Extractor] = {name: timed[name] for name in modalities}
        work = Pipeline(extractors, detector)  # type: ignore[arg-type]
        return cpu_seconds(lambda: [*work.extract(recordings)])

    decode = cpu_seconds(lambda: _decode(recordings))
    seen, heard = run("visual"), run("audio")
    cut = seen - decode - detector.spent - timed["visual"].spent
    run("text")
    parts = {
        "decode pictures": decode,
        "detect faces": detector.spent,
        "cut faces out": cut,
        f"visual: {timed['visual'].name}": timed["visual"].spent,
        "decode sound": heard - timed["audio"].spent,
        f"audio: {timed['audio'].name}": timed["audio"].spent,
        f"text: {timed['text'].name}": timed["text"].spent,
    }
    whole = cpu_seconds(lambda: [*pipeline.extract(recordings)])
    return [Row("part", name, spent / speech, "CPU s") for name, spent in {**parts, "all": whole}.items()]


def _decode(recordings: Sequence[Recording]) -> None:
    """Decode each video once and take its pictures."""
    spans: dict[Path, list[Source]] = {}
    for recording in recordings:
        if recording.picture is not None:
            spans.setdefault(recording.picture.path, []).append(recording.picture)
    for path, those in spans.items():
        for _ in sample(Film(path), those, 10):
            pass


def repeat(path: Path, target: Path, seconds: float) -> float:
    """Copy a video again and again into one file, without decoding it; its seconds."""
    import av

    with av.open(str(path)) as source, av.open(str(target), "w") as file:
        into = {track.index: file.add_stream_from_template(track) for track in source.streams}
        length = Fraction(source.duration or 0, 1_000_000)
        shift = Fraction(0)
        while shift < seconds:
            source.seek(0)
            for packet in source.demux():
                if packet.dts is None or packet.pts is None:
                    continue
                ticks = round(shift / packet.time_base)
                packet.dts, packet.pts = packet.dts + ticks, packet.pts + ticks
                packet.stream = into[packet.stream_index]
                file.mux(packet)
            shift += length
    return float(shift)


_MEMORY = """
import sys, torch
from pathlib import Path
from datamodules.extraction.pipeline import Pipeline
from datamodules.extraction.recipes import RECIPES
from datamodules.extraction.recordings import Recording, Source

torch.set_num_threads(1)
path, seconds = Path(sys.argv[1]), float(sys.argv[2])
spans = [Source(path, start, start + 3.0) for start in range(0, int(seconds) - 3, 6)]
recordings = [Recording(f"u{number}", span, span, "Good morning.", "left") for number, span in enumerate(spans)]
found = sum(len(each.features) == 3 for each in Pipeline.from_recipe(RECIPES["portable"]).extract(recordings))
lines = Path("/proc/self/status").read_text().splitlines()
most = next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))
print(found, len(spans), most)
"""
"""Prints utterances with all modalities, utterances, and the most memory taken in MiB."""


def measure_memory(video: Path, folder: Path, minutes: Sequence[int]) -> list[Row]:
    """The most memory of a process that extracts one video."""
    rows = []
    for length in minutes:
        target = folder / f"{length}.avi"
        seconds = repeat(video, target, 60 * length)
        *_, most = _python(["-c", _MEMORY, str(target), str(seconds)]).split()
        rows.append(Row("memory", f"{length} min", float(most), "MiB"))
        target.unlink()
    return rows


def time_jobs(raw: Path, folder: Path, jobs: Sequence[int]) -> list[Row]:
    """Wall seconds of the command ``extract``."""
    rows = []
    for count in jobs:
        words = ["extract", "IEMOCAP", str(raw), str(folder / f"out{count}"), "--jobs", str(count)]
        begin = time.perf_counter()
        _python(["-m", "ifmmin", *words])
        rows.append(Row("jobs", f"{count}", time.perf_counter() - begin, "s"))
    return rows


def time_clip(video: Path, pipeline: Pipeline, repeats: int) -> list[Row]:
    """Wall and CPU seconds of a clip of 5 s that is extracted alone, extractors made."""
    span = Source(video, 0.0, 5.0)
    clip = Recording("clip", span, span, "The library opens at nine on Mondays.", "left")
    wall, cpu = [], []
    for _ in range(repeats):
        begin = time.perf_counter()
        cpu.append(cpu_seconds(lambda: [*pipeline.extract([clip])]))
        wall.append(time.perf_counter() - begin)
    return [Row("latency", "wall", median(wall), "s"), Row("latency", "CPU", median(cpu), "CPU s")]


def _python(words: Sequence[str]) -> str:
    variables = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(_CHECKOUT)}
    ended = subprocess.run([sys.executable, *words], env=variables, check=True, capture_output=True, text=True)
    return ended.stdout


def table_of(rows: Sequence[Row], title: str) -> Table:
    """A line per measurement; of parts also how many seconds of speech a CPU second is enough for."""
    table = Table("", title=title, title_justify="left")
    for heading in ("value", "× real time"):
        table.add_column(heading, justify="right")
    for row in rows:
        times = f"{1 / row.value:.1f}" if row.what == "part" and row.value > 0 else ""
        digits = 0 if row.unit == "MiB" else 3
        table.add_row(row.name, f"{row.value:.{digits}f} {row.unit}", times)
    return table


TITLES = {
    "part": "CPU seconds per second of speech, one thread",
    "memory": f"most memory of a process, one video, an {_WITH}",
    "jobs": "wall seconds of extract, by processes",
    "latency": "a clip of 5 s, one thread, after the start",
}


def main(argv: Sequence[str] | None = None) -> None:
    """Make recordings, measure, print and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--raw", type=Path, help="IEMOCAP's folder, instead of an invented one")
    parser.add_argument("--width", type=at_least(240), default=720, help="pixels of a picture; a multiple of 60")
    parser.add_argument("--syllables", type=at_least(2), default=16, help="of an utterance, 0.16 s each")
    parser.add_argument("--minutes", type=at_least(1), nargs="*", default=[1, 8], help="of the videos; none skips")
    parser.add_argument("--jobs", type=at_least(1), nargs="*", default=[1, 2], help="processes; none skips")
    parser.add_argument("--repeats", type=at_least(1), default=5, help="of the clip")
    parser.add_argument("--csv", type=Path, help="also write every measurement to this file")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    console, rows = Console(), []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        raw = options.raw or folder / "IEMOCAP_full_release"
        if options.raw is None:
            make(folder, "iemocap", Options(width=options.width, syllables=options.syllables, sessions=2))
        recordings = index_of("IEMOCAP", raw).recordings
        pipeline = Pipeline.from_recipe(RECIPES["portable"])
        if not recordings or recordings[0].picture is None:
            raise InputError(f"{raw}: no recordings of IEMOCAP.")
        video = recordings[0].picture.path
        measures: list[Callable[[], list[Row]]] = [
            lambda: time_parts(recordings, pipeline),
            lambda: time_clip(video, pipeline, options.repeats),
            lambda: measure_memory(video, folder, options.minutes),
            lambda: time_jobs(raw, folder, options.jobs),
        ]
        for measure in measures:
            if measured := measure():
                console.print(table_of(measured, TITLES[measured[0].what]))
                rows += measured
    if options.csv:
        facts = {"width": options.width, "torch": torch.__version__}
        write_rows(options.csv, [asdict(row) | facts for row in rows])


if __name__ == "__main__":
    raise SystemExit(in_one_line(main))
