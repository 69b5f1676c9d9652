"""Tables and page of a board as its records have them, whatever code made them.

    python -m benchmarks.leaderboard.report benchmarks/every_model_board/privileged
    python -m benchmarks.leaderboard.report runs/leaderboard/IEMOCAP --reference MMIN --output tables

Nothing is run and no corpus is needed. Of each model the records like its last one are shown; how many others there
are is said. A board that is being made can be looked at.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from benchmarks.leaderboard.records import latest_records
from benchmarks.leaderboard.report.writing import report_board
from benchmarks.leaderboard.summary import summarise_board
from ifmmin.cli import starting
from ifmmin.cli.main import reported


def main(argv: Sequence[str] | None = None) -> int:
    """Print and write the tables; 1 where there is no board or no place to write."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.leaderboard.report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("board", type=Path, metavar="BOARD")
    parser.add_argument("--reference", metavar="MODEL", help="the model that the others are tested against")
    parser.add_argument("--output", type=Path, help="where the files go; by default BOARD")
    options = parser.parse_args(argv)
    return reported(lambda: _report(options.board, options.output or options.board, options.reference))


def _report(board: Path, output: Path, reference: str | None) -> int:
    summary = summarise_board(latest_records(board), reference)
    output.mkdir(parents=True, exist_ok=True)
    report_board(summary, output, Console(soft_wrap=not sys.stdout.isatty(), markup=False, highlight=False))
    return 0


if __name__ == "__main__":
    starting.settle()
    raise SystemExit(main())
