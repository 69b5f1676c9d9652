"""Print the tables of a board, and write them and its page."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from benchmarks.leaderboard.report.page import write_page
from benchmarks.leaderboard.report.tables import terminal_tables, write_tables
from benchmarks.leaderboard.summary import Summary
from datamodules.text import printable


def report_board(summary: Summary, folder: Path, console: Console) -> list[Path]:
    """Print the tables; write them, and the page, into ``folder``.

    Args:
        summary: of the board.
        folder: of the files.
        console: to print on.

    Returns:
        the paths of the files.

    Raises:
        OSError: the folder cannot be written or the disk is full.
    """
    wide = Console(width=max(200, console.width), markup=False)  # a narrower table would lose the names of its models
    for table in terminal_tables(summary):
        wide.print(table)
    paths = [*write_tables(summary, folder), write_page(summary, folder / "leaderboard.html")]
    console.print("written: " + ", ".join(map(printable, paths)), soft_wrap=True)
    return paths
