"""How far an extraction is: one bar on a terminal, a line every half minute elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from datamodules.text import readable_time

EVERY = 30.0
"""Seconds between two lines."""


class ExtractionProgress:
    """Counts utterances and shows them with seconds of speech, speed, time left and what is absent so far.

    Args:
        total: utterances to be there in the end.
        done: of them that are there already.
        absent: of those, by modality.
        console: where to show it.
    """

    def __init__(self, total: int, done: int, absent: Mapping[str, int], console: Console) -> None:
        self.total, self.done = total, done
        self.absent = Counter(absent)
        self.seconds = 0.0
        self.console = console
        self._before = done
        self._started = self._said = time.monotonic()
        self._bar = Progress(TextColumn("extract"), BarColumn(), TextColumn("{task.fields[line]}"), console=console)
        self._task = self._bar.add_task("", total=total, completed=done, line="")

    def __enter__(self) -> ExtractionProgress:
        """Begin to draw."""
        if self.console.is_terminal:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the last state on the screen."""
        self.stop()

    def stop(self) -> None:
        """Leave the last state on the screen."""
        if self.console.is_terminal:
            self._bar.stop()

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started

    def seen(self, seconds: float, absent: Mapping[str, str]) -> None:
        """An utterance is extracted."""
        self.done = min(self.done + 1, self.total)
        self.seconds += seconds
        self.absent.update(absent.keys())
        if self.console.is_terminal:
            self._bar.update(self._task, completed=self.done, line=self.line())
        elif time.monotonic() - self._said >= EVERY:
            self._said = time.monotonic()
            self.console.print(f"extract: {self.line()}", markup=False, highlight=False, soft_wrap=True)

    def line(self) -> str:
        """The state in one line."""
        parts = [f"{self.done} of {self.total} utterances", f"{readable_time(self.seconds)} of speech"]
        if self.seconds and self.elapsed:
            parts.append(f"{self.seconds / self.elapsed:.1f}x real time")
        if (made := self.done - self._before) and self.done < self.total:
            parts.append(f"{readable_time(self.elapsed / made * (self.total - self.done))} left")
        if self.absent:
            parts.append("absent: " + ", ".join(f"{name} {self.absent[name]}" for name in sorted(self.absent)))
        return " | ".join(parts)
