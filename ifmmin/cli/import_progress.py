"""How far an import is: a line that is drawn anew on a terminal, a line every half minute elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.status import Status

from ifmmin.cli import stopping

EVERY = 30.0
"""Seconds between two lines."""

_BYTES = "SHA-256"


class ImportProgress:
    """Counts what is done of each step.

    Args:
        console: where to show it.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self._step, self._count = "", 0
        self._shown = self._drawn = time.monotonic()
        self._status = Status("import", console=console)

    def __enter__(self) -> ImportProgress:
        """Begin to draw."""
        if self.console.is_terminal:
            self._status.start()
        stopping.at_stop.append(self._status.stop)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the line."""
        stopping.at_stop.remove(self._status.stop)
        self._status.stop()

    def said(self, step: str, count: int) -> None:
        """So many more utterances, or bytes of the digest, are done in this step."""
        self._count = count + (self._count if step == self._step else 0)
        self._step = step
        now = time.monotonic()
        if self.console.is_terminal:
            if now - self._drawn > 0.1:
                self._drawn = now
                self._status.update(self.line())
        elif now - self._shown >= EVERY:
            self._shown = now
            self.console.print(f"import: {self.line()}", soft_wrap=True)

    def line(self) -> str:
        """The state in one line."""
        done = f"{self._count / 1e9:.1f} GB" if self._step == _BYTES else f"{self._count} utterances"
        return f"{self._step}: {done}"
