"""A table that is drawn anew while work goes on, on a terminal."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console, RenderableType
from rich.live import Live

from ifmmin.cli import stopping

if TYPE_CHECKING:
    from typing_extensions import Self


class LiveTable(ABC):
    """Draws :meth:`render` every second while it is open, and nothing where the output is a file.

    Args:
        console: where to show it.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self._live = Live(console=console, get_renderable=self.render, refresh_per_second=1)

    @abstractmethod
    def render(self) -> RenderableType:
        """What is shown now."""

    def __enter__(self) -> Self:
        """Begin to draw."""
        if self.console.is_terminal:
            self._live.start()
            stopping.at_stop.append(self._live.stop)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the last state on the screen."""
        if self.console.is_terminal:
            self._live.stop()
            stopping.at_stop.remove(self._live.stop)
