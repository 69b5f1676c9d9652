"""What is shown while a search runs: counts, the best trial, and the last line of each that runs."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from statistics import mean
from threading import Lock

from optuna.trial import FrozenTrial, TrialState
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from benchmarks.leaderboard.progress import last_line
from benchmarks.leaderboard.running import LOG
from benchmarks.live import LiveTable
from benchmarks.search.objective import place_of
from benchmarks.search.trials import COPY, REASON, SECONDS, Trials
from datamodules.text import printable, readable_time
from ifmmin.tasks import Score

WORDS = {TrialState.COMPLETE: "done", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}


def shown_score(value: float | None, score: Score) -> str:
    """A score for people, a dash where there is none."""
    if value is None:
        return "–"
    return f"{score.format(value)} %" if score.percent else score.format(value)


class Progress(LiveTable):
    """A live table on a terminal, a line per finished trial elsewhere.

    Args:
        trials: of the search.
        folder: of the search.
        at_once: how many run at the same time.
        score: that is shown.
        console: where to show it.
    """

    def __init__(self, trials: Trials, folder: Path, at_once: int, score: Score, console: Console) -> None:
        self.trials, self.folder, self.at_once, self.score = trials, folder, at_once, score
        self._missing = trials.missing()
        self._done = Counter(WORDS[each.state] for each in trials.finished())
        self._running: dict[int, float] = {}
        self._took: list[float] = []
        self._best = self._best_line()
        self._lock = Lock()
        super().__init__(console)

    def started(self, number: int) -> None:
        """A trial begins."""
        with self._lock:
            self._running[number] = time.monotonic()

    def finished(self, trial: FrozenTrial) -> None:
        """A trial has ended."""
        with self._lock:
            self._running.pop(trial.number, None)
            self._missing = max(0, self._missing - 1)
            self._done[WORDS[trial.state]] += 1
            if COPY not in trial.user_attrs:
                self._took.append(trial.user_attrs[SECONDS])
            self._best = self._best_line()
        if not self.console.is_terminal:
            how = f"as trial {trial.user_attrs[COPY]}" if COPY in trial.user_attrs else WORDS[trial.state]
            value = f" {shown_score(trial.value, self.score)}" if trial.value is not None else ""
            why = f" ({trial.user_attrs[REASON]})" if trial.state == TrialState.FAIL else ""
            seconds = readable_time(trial.user_attrs[SECONDS])
            line = f"[{sum(self._done.values())}/{self._total()}] trial {trial.number}: {how}{value} in {seconds}"
            self.console.print(printable(f"{line}{why}; {self._best}{self._left()}"), markup=False, soft_wrap=True)

    def _total(self) -> int:
        return sum(self._done.values()) + self._missing

    def _best_line(self) -> str:
        ranked = self.trials.ranked()
        if not ranked:
            return "no best yet"
        return f"best {shown_score(ranked[0].value, self.score)} (trial {ranked[0].number})"

    def _left(self) -> str:
        if not self._took or not self._missing:
            return ""
        now, usual = time.monotonic(), mean(self._took)
        running = sum(max(0.0, usual - (now - since)) for since in self._running.values())
        waiting = usual * max(0, self._missing - len(self._running))
        return f"; about {readable_time((running + waiting) / self.at_once)} left"

    def render(self) -> RenderableType:
        """Table of counts and, below it, the last line of each running trial."""
        with self._lock:
            table = Table(title=Text(f"{printable(self.folder)}: {self._best}{self._left()}"), title_justify="left")
            for heading in ("done", "pruned", "failed", "running", "waiting"):
                table.add_column(heading, justify="right")
            counts = [self._done[name] for name in WORDS.values()]
            running = list(self._running)
            waiting = max(0, self._missing - len(running))
            table.add_row(*(str(count or "–") for count in (*counts, len(running), waiting)))
        lines = [f"trial {number}: {self._line(number)}" for number in running]
        return Group(table, *(Text(printable(line), style="dim") for line in lines))

    def _line(self, number: int) -> str:
        """The last line of the run that was begun last."""
        logs = sorted((self.folder / place_of(number)).glob(f"*/{LOG}"), key=lambda path: path.stat().st_mtime)
        return last_line(logs[-1]) if logs else "stage 1"
