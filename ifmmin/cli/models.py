"""List the models, with their papers."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.style import Style
from rich.table import Table
from rich.text import Text

from datamodules.text import printable
from ifmmin.base import MissingModalityModule
from ifmmin.cli.arguments import Parser
from ifmmin.discovery import discover_models


def models_command(argv: Sequence[str]) -> int:
    """Print a table of all models; the exit code, 0."""
    Parser(prog="models", description=__doc__).parse_args(list(argv))
    wide = None if sys.stdout.isatty() else 160
    Console(width=wide).print(models_table(discover_models().values()))
    return 0


def models_table(models: Iterable[type[MissingModalityModule]]) -> Table:
    """Make the table of models from their cards, a section for each family; models without a card are last."""
    table = Table("--model", "what it does", "family", "paper", "public code", "tasks")
    section = None
    for model in sorted(models, key=_place):
        family = _place(model)[:2]
        if section not in (None, family):
            table.add_section()
        section = family
        # Names and cards of plug-ins are somebody else's text: no markup, no escapes.
        name, tasks = Text(printable(model.__name__)), Text(printable(", ".join(model.tasks)))
        card = getattr(model, "card", None)
        if card is None:
            table.add_row(name, "", "", "", "", tasks)
            continue
        source = Text(printable(card.source), style=_link(card.url))
        code = Text("yes" if card.code else "no", style=_link(card.code))
        table.add_row(name, Text(printable(card.summary)), Text(printable(card.family)), source, code, tasks)
    return table


def _place(model: type[MissingModalityModule]) -> tuple[bool, str, str]:
    card = getattr(model, "card", None)
    return card is None, "" if card is None else str(card.family), model.__name__.casefold()


def _link(url: str | None) -> Style:
    return Style(link=url) if url and url.isprintable() else Style()
