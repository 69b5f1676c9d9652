"""Compare two runs of one fold: paired differences with intervals, and McNemar's test."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from datamodules.conditions import MISSING_CONDITIONS
from datamodules.errors import InputError
from datamodules.files import check_writable, write_text
from ifmmin.cli.arguments import Parser
from ifmmin.cli.console import print_table
from ifmmin.results.comparing import Difference, Scored, compare, read_scored
from ifmmin.results.csv_files import csv_text
from ifmmin.results.results import readable
from ifmmin.results.tables import interval_text
from ifmmin.results.uncertainty import LEVEL
from ifmmin.tasks import SUMMARY_ROWS


def compare_command(argv: Sequence[str]) -> int:
    """Compare two runs and print what they differ by.

    Args:
        argv: the words after ``compare``.

    Returns:
        exit code, 0.

    Raises:
        InputError: a run cannot be read, or they were not scored on the same utterances.
        OSError: the output cannot be written.
    """
    parser = Parser(prog="compare", description=__doc__)
    parser.add_argument("first", type=str, help="Folder of a fit or a test.")
    parser.add_argument("second", type=str, help="Folder of another, of the same fold.")
    parser.add_argument("--output", type=str | None, default=None, help="Also write the differences to this .csv file.")
    options = parser.parse_args(list(argv))
    output = Path(options.output).expanduser() if options.output else None
    if output is not None:
        if output.suffix.lower() != ".csv":
            raise InputError(f"{output}: differences are written as .csv; give a name that ends in it.")
        if output.exists():
            raise InputError(f"{output}: exists already; give another --output, or move it away.")
        check_writable(output)
    first, second = (read_scored(Path(name).expanduser()) for name in (options.first, options.second))
    differences = compare(first, second)
    if output is not None:
        write_text(output, csv_text(difference.columns() for difference in differences))
    print_table(comparison_table(first, second, differences))
    if output is not None:
        print(f"written: {output}")
    return 0


def comparison_table(first: Scored, second: Scored, differences: Sequence[Difference]) -> Table:
    """Make the table of the task's first two scores."""
    task = first.results.task
    scores = task.scores[:2]
    titles = [f"first: {first.results.title()}", f"second: {second.results.title()}"]
    table = Table(title=Text("\n".join(titles)), title_justify="left", caption_justify="left")
    table.add_column("condition", no_wrap=True)
    for score in scores:
        for heading in ("first", "second", "difference"):
            table.add_column(Text(f"{score.name}\n{heading}"), justify="right", no_wrap=True)
    caption = f"[ ]: {LEVEL:.0%} paired bootstrap interval over utterances of second - first"
    if task.class_names:
        table.add_column(Text("right alone\nfirst : second"), justify="right", no_wrap=True)
        table.add_column(Text("McNemar\np"), justify="right")
        caption += "; p is exact, and not corrected for seven conditions"
    table.caption = Text(caption)
    found = {(difference.row, difference.score): difference for difference in differences}
    for row in SUMMARY_ROWS:
        cells = []
        for score in scores:
            one = found[row, score.name]
            difference = score.format(one.difference) + interval_text(score, one.interval)
            cells += [score.format(one.first), score.format(one.second), difference]
        if task.class_names:
            tested = found[row, scores[0].name]
            cells += (
                ["–", "–"] if tested.p is None else [f"{tested.only_first} : {tested.only_second}", f"{tested.p:.3g}"]
            )
        table.add_row(readable(row), *cells, end_section=row in (MISSING_CONDITIONS[-1], "pooled"))
    return table
