"""The live table of a board that is being run, and the lines of one whose output is a file."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import mean
from threading import Lock

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from benchmarks.leaderboard.plan import Job
from benchmarks.leaderboard.running import LOG, Outcome
from benchmarks.live import LiveTable
from datamodules.text import printable, readable_time

_TAIL = 4096  # bytes; the last line of a log fits in them


class Progress(LiveTable):
    """Counts jobs per model and shows done, running, waiting, failed and the time left.

    Args:
        board: folder of the board.
        jobs: all that this call will do.
        done: runs on record already, per model.
        at_once: how many jobs run at the same time.
        console: where to show it; a live table on a terminal, a line per finished job elsewhere.
    """

    def __init__(self, board: Path, jobs: Sequence[Job], done: Iterable[str], at_once: int, console: Console) -> None:
        self.board = board
        self.jobs = list(jobs)
        self.at_once = at_once
        self._counts: defaultdict[str, defaultdict[str, int]] = defaultdict(lambda: defaultdict(int))
        for name in done:
            self._counts[name]["done"] += 1
        for job in self.jobs:
            self._counts[self._row(job)]["waiting"] += 1
        self._running: dict[Job, float] = {}
        self._took: defaultdict[str, list[float]] = defaultdict(list)
        self._finished = 0
        self._lock = Lock()  # jobs are started by threads
        super().__init__(console)

    @staticmethod
    def _row(job: Job) -> str:
        return f"{job.name} (stage 1)" if job.pretraining else job.name

    def started(self, job: Job) -> None:
        """A job begins."""
        with self._lock:
            self._running[job] = time.monotonic()
            self._move(job, "waiting", "running")

    def finished(self, outcome: Outcome) -> None:
        """A job has ended, one way or the other."""
        job = outcome.job
        with self._lock:
            # A run whose stage 1 failed never ran.
            source = "waiting" if self._running.pop(job, None) is None else "running"
            self._move(job, source, "failed" if outcome.error else "done")
            self._finished += 1
            if not outcome.error:
                self._took[self._row(job)].append(outcome.seconds)
        if not self.console.is_terminal:
            how = "FAILED" if outcome.error else "done"
            self.console.print(
                f"[{self._finished}/{len(self.jobs)}] {job}: {how} in {readable_time(outcome.seconds)}{self._left()}",
                markup=False,
                soft_wrap=True,
            )

    def _move(self, job: Job, source: str, target: str) -> None:
        self._counts[self._row(job)][source] -= 1
        self._counts[self._row(job)][target] += 1

    def seconds_left(self) -> float | None:
        """An estimate from what finished jobs of each model took; None before the first has finished."""
        everything = [seconds for times in self._took.values() for seconds in times]
        if not everything:
            return None
        usual = {row: mean(self._took[row] or everything) for row in self._counts}
        now = time.monotonic()
        waiting = sum(count["waiting"] * usual[row] for row, count in self._counts.items())
        running = sum(max(0.0, usual[self._row(job)] - (now - since)) for job, since in self._running.items())
        return (waiting + running) / self.at_once

    def _left(self) -> str:
        left = self.seconds_left()
        return f"; about {readable_time(left)} left" if left and self._finished < len(self.jobs) else ""

    def render(self) -> RenderableType:
        """Table of counts and, below it, the last line of each running job."""
        with self._lock:
            table = Table(
                title=Text(f"{printable(self.board)}: {self._finished} of {len(self.jobs)} jobs{self._left()}"),
                title_justify="left",
            )
            for heading in ("model", "done", "running", "waiting", "failed"):
                table.add_column(heading, justify="left" if heading == "model" else "right")
            for row, count in self._counts.items():
                shown = [str(count[state] or "–") for state in ("done", "running", "waiting", "failed")]
                table.add_row(Text(printable(row)), *shown, style="red" if count["failed"] else None)
            logs = [(job, last_line(self.board / job.folder / LOG)) for job in self._running]
        return Group(table, *(Text(printable(f"{job}: {line}"), style="dim") for job, line in logs))


def last_line(log: Path) -> str:
    """The last line of a log that is not empty; nothing where there is no log."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL))
            lines = file.read().decode(errors="replace").split("\n")
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
