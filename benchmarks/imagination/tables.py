"""Entries as tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

from rich.box import HORIZONTALS
from rich.table import Table
from rich.text import Text

from benchmarks.imagination.dead_units import ALL
from benchmarks.imagination.entries import Entry
from benchmarks.leaderboard.summary import Cell
from datamodules.conditions import MODALITIES

NONE = "–"
"""Where a model has nothing of the kind."""

FEATURES = ("h", "H")


def tables_of(entries: Sequence[Entry]) -> Iterable[Table]:
    """Per corpus, a table of what is imagined and told, and one of losses, gradients and dead units."""
    for corpus, group in groupby(entries, key=lambda entry: entry.corpus):
        own = list(group)
        yield _inside(corpus, own)
        yield _training(corpus, own)


def meaning(entries: Iterable[Entry], spread: bool = True) -> str:
    """What a number is of: one run a model, or a mean over its runs, with their standard deviation if it is shown."""
    if all(len(entry.runs) == 1 for entry in entries):
        return "one run a model"
    return "mean ± standard deviation over folds and seeds" if spread else "mean over folds and seeds"


def _table(title: str, caption: str) -> Table:
    return Table(
        title=Text(title),
        title_justify="left",
        caption=Text(caption),
        caption_justify="left",
        box=HORIZONTALS,
        pad_edge=False,
    )


def _inside(corpus: str, entries: Sequence[Entry]) -> Table:
    modality, emotion = (_chance(entries, f"{target}_told") for target in ("modality", "emotion"))
    table = _table(
        f"What is imagined, and what features tell, on the validation split\n{corpus}\n{meaning(entries)}",
        "explained variance where a modality is absent: 1 is perfect, 0 the training mean. H/h: ratio of standard "
        "deviations over utterances. Probes: logistic regression on the features of one modality. Dead: share of "
        "ReLU and LeakyReLU units that are never positive.",
    )
    headings = ["runs", *(f"explained\n{name}" for name in MODALITIES), "std H/h"]
    for told, by_chance in (("modality", modality), ("emotion", emotion)):
        headings += [f"{told} %\nfrom {name}\n(chance {by_chance})" for name in FEATURES]
    table.add_column("model", overflow="fold", min_width=_model_width(entries))
    for heading in (*headings, "dead %"):
        table.add_column(Text(heading), justify="right", no_wrap=True)
    for entry in entries:
        cells = [share(entry.cell("explained_variance", name)) for name in MODALITIES]
        cells.append(number(entry.cell("std", "H/h"), ".3f"))
        cells += [
            percent(entry.cell(f"{target}_told", name)) for target in ("modality", "emotion") for name in FEATURES
        ]
        cells.append(percent(entry.cell("dead_units", ALL)))
        table.add_row(Text(entry.label), str(len(entry.runs)), *cells)
    return table


def _training(corpus: str, entries: Sequence[Entry]) -> Table:
    table = _table(
        f"Losses, gradients and dead units\n{corpus}\n{meaning(entries, spread=False)}",
        "start and end: mean of the first and the last epoch, not weighted. weighted, and norm of the gradient in each "
        "trained part: first training batch, dropout off.",
    )
    table.add_column("model", overflow="fold", min_width=_model_width(entries))
    table.add_column("term", overflow="fold")
    for heading in ("start", "end", "weighted"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("gradient in each trained part, where it is not 0", overflow="fold")
    for entry in entries:
        for place, term in enumerate(entry.names("weighted_loss")):
            values = [number(entry.cell(name, term), ".3g", False) for name in ("loss_start", "loss_end")]
            values.append(number(entry.cell("weighted_loss", term), ".3g", False))
            table.add_row(Text("" if place else entry.label), Text(term), *values, Text(_gradients(entry, term)))
        if entry.parts():
            shares = ", ".join(f"{part} {percent(entry.cell('dead_units', part), False)}" for part in entry.parts())
            table.add_row("", "dead %", "", "", "", Text(shares))
        table.add_section()
    return table


def _gradients(entry: Entry, term: str) -> str:
    """Norms by part, ``encoders.audio 0.12, classifier 3.4``; 0 if they all are."""
    norms = []
    for of in entry.names("gradient"):
        of_term, _, part = of.partition("/")
        cell = entry.cell("gradient", of)
        if of_term == term and cell and cell.mean:
            norms.append(f"{part} {number(cell, '.3g', False)}")
    return ", ".join(norms) or "0"


def _model_width(entries: Iterable[Entry]) -> int:
    """Characters of the longest name, at most 30."""
    return min(30, max(len(entry.label) for entry in entries))


def _chance(entries: Iterable[Entry], measure: str) -> str:
    """Chance in percent; it is the same for all models of a corpus, but for the folds they were run on."""
    cells = [cell for entry in entries if (cell := entry.cell(measure, "chance"))]
    return f"{100 * sum(cell.mean for cell in cells) / len(cells):.0f}" if cells else NONE


def number(cell: Cell | None, form: str, with_std: bool = True) -> str:
    """A mean, with its standard deviation if there is one.

    >>> number(Cell(0.5, 0.25, 2), "+.2f"), number(None, "+.2f")
    ('+0.50 ± 0.25', '–')
    """
    if cell is None:
        return NONE
    spread = f" ± {cell.std:{form.removeprefix('+')}}" if with_std and cell.std is not None else ""
    return f"{cell.mean:{form}}{spread}"


def share(cell: Cell | None) -> str:
    """An explained variance; one that is far off has no decimals.

    >>> share(Cell(-0.25, 0.5, 2)), share(Cell(-12345.6, 7.8, 2))
    ('-0.25 ± 0.50', '-1.23e+04 ± 7.8')
    """
    return number(cell, "+.2f" if cell is None or abs(cell.mean) < 100 else "+.3g")


def percent(cell: Cell | None, with_std: bool = True) -> str:
    """A share in percent.

    >>> percent(Cell(0.5, None, 1))
    '50.0'
    """
    scaled = cell and Cell(100 * cell.mean, None if cell.std is None else 100 * cell.std, cell.n)
    return number(scaled, ".1f", with_std)
