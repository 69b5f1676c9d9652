"""List the models, with their papers."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ifmmin.base import MissingModalityModule
from ifmmin.discovery import discover_models


def models_command(argv: Sequence[str]) -> int:
    """Print a table of all models; the exit code, 0."""
    parser = argparse.ArgumentParser(prog="models", description=__doc__)
    parser.parse_args(argv)
    wide = None if sys.stdout.isatty() else 160
    Console(width=wide).print(models_table(discover_models().values()))
    return 0


def models_table(models: Iterable[type[MissingModalityModule]]) -> Table:
    """Make the table of models from their cards."""
    table = Table("--model", "what it does", "family", "paper", "public code", "tasks")
    for model in models:
        card = getattr(model, "card", None)
        if card is None:
            table.add_row(model.__name__, "", "", "", "", ", ".join(model.tasks))
            continue
        source = Text(card.source, style=f"link {card.url}" if card.url else "")
        code = Text("yes" if card.code else "no", style=f"link {card.code}" if card.code else "")
        table.add_row(model.__name__, card.summary, card.family, source, code, ", ".join(model.tasks))
    return table
