"""Try the contract suite on a model, rule by rule."""

from __future__ import annotations

import json
import os
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from datamodules.errors import InputError
from datamodules.files import check_writable, write_text
from datamodules.text import printable
from ifmmin.base import MissingModalityModule
from ifmmin.checkpoints.compatibility import FOLLOWS_THE_DATA
from ifmmin.cli.arguments import Parser, bad_seed, by_path, class_at, first_look
from ifmmin.cli.failures import DEBUG
from ifmmin.discovery import find_model
from ifmmin.testing import RULES, Verdict, verdicts


def check_model_command(argv: list[str]) -> int:
    """Try the rules on a model and print the verdicts.

    Args:
        argv: the words after ``check``, in order; the options of the model are those of ``fit``.

    Returns:
        exit code: 0, or 1 if a rule is broken.

    Raises:
        InputError: the model is not known or refuses its options, or an option is wrong.
    """
    named = first_look(argv)
    for option in named.follows:
        raise InputError(f"{option}: follows the data and cannot be set.")
    name = vars(named)["model.help"] if named.model is None else named.model
    if name is not None:
        argv = by_path(argv, name, find_model(name))
    parser = Parser(prog="check", description=__doc__)
    parser.add_subclass_arguments(MissingModalityModule, "model", required=True, skip=set(FOLLOWS_THE_DATA))
    parser.add_argument("--seed_everything", type=int, default=0, help="Seed of weights and utterances.")
    parser.add_argument("--json", type=str | None, default=None, help="Also write the verdicts to this file.")
    options = parser.parse_args(argv)
    if not 0 <= options.seed_everything < 2**32:
        raise InputError(bad_seed(options.seed_everything))
    if options.json is not None and Path(options.json).suffix != ".json":
        raise InputError(f"--json {printable(options.json)}: give a name that ends in .json.")
    if options.json is not None:
        check_writable(options.json)
    owner: type[MissingModalityModule] = class_at(options.model.class_path)
    found, seconds = _try(owner, options.seed_everything, options.model.init_args.as_dict())
    if os.environ.get(DEBUG, "0") not in ("", "0"):
        for verdict in found:
            if verdict.error is not None:
                traceback.print_exception(verdict.error)
    Console().print(render_verdicts(owner.__name__, found, seconds), crop=False)
    if options.json:
        write_text(options.json, json.dumps(_report(owner.__name__, found), indent=2) + "\n")
    return 0 if all(verdict.passed for verdict in found) else 1


def _try(owner: type[MissingModalityModule], seed: int, options: dict[str, Any]) -> tuple[list[Verdict], list[float]]:
    """The verdicts, and the seconds that each took; a bar on a terminal says which rule is tried."""
    found: list[Verdict] = []
    seconds: list[float] = []
    console = Console(stderr=True)
    bar = Progress(
        TextColumn("check"),
        BarColumn(),
        TextColumn("{task.completed} of {task.total} rules: {task.description}"),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    with bar:
        task, mark = bar.add_task(RULES[0].name, total=len(RULES)), time.monotonic()
        for verdict, following in zip(verdicts(owner, seed, **options), (*RULES[1:], None), strict=True):
            found.append(verdict)
            seconds.append(time.monotonic() - mark)
            mark += seconds[-1]
            bar.update(task, advance=1, description="" if following is None else following.name)
    return found, seconds


def render_verdicts(name: str, found: Sequence[Verdict], seconds: Sequence[float]) -> RenderableType:
    """Render a table of rules, then each failure with its remedy in one line."""
    table = Table("rule", "what must hold", "verdict", title=Text(f"Contract of {printable(name)}"))
    table.add_column("s", justify="right")
    for verdict, taken in zip(found, seconds, strict=True):
        if not verdict.tried:
            shown = Text("not tried", style="dim")
        else:
            shown = Text("passed", style="green") if verdict.passed else Text("failed", style="bold red")
        table.add_row(verdict.rule.name, verdict.rule.holds, shown, f"{taken:.1f}" if verdict.tried else "")
    broken = [(verdict.rule.name, failure) for verdict in found for failure in verdict.failures]
    if not broken:
        return Group(table, Text(f"All {len(found)} rules hold.", style="green"))
    count = sum(bool(verdict.failures) for verdict in found)
    lines = [Text(f"{count} of {len(found)} rules {'is' if count == 1 else 'are'} broken:", style="bold red")]
    # One line each, however long: they are searched and counted.
    lines += [Text(f"- {rule}: {failure}.", no_wrap=True, overflow="ignore") for rule, failure in broken]
    if any(verdict.error is not None for verdict in found):
        lines.append(Text(f"{DEBUG}=1 shows where it failed."))
    return Group(table, *lines)


def _report(name: str, found: Sequence[Verdict]) -> dict[str, Any]:
    """The verdicts as plain values."""
    return {
        "model": name,
        "passed": all(verdict.passed for verdict in found),
        "rules": [
            {
                "rule": verdict.rule.name,
                "holds": verdict.rule.holds,
                "verdict": "passed" if verdict.passed else "failed" if verdict.tried else "not tried",
                "failures": [failure._asdict() for failure in verdict.failures],
            }
            for verdict in found
        ],
    }
