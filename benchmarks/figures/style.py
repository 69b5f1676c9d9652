"""What all figures share: colours, and writing them as PNG and PDF with the same bytes every time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from benchmarks.leaderboard.looks import COLOURS, MARKERS, look_of
from datamodules.files import atomic_path
from datamodules.text import printable
from ifmmin.finished import FinishedRun
from ifmmin.results.results import corpus_title

DASHES = ("-", "--", ":", "-.")
"""Of lines, by a model's look."""

HATCHES = ("", "///", "...", "xxx")
"""Of bars, likewise."""


def marks_of(model: str, size: float) -> dict[str, Any]:
    """Colour and mark of a model, as matplotlib takes them."""
    look = look_of(model)
    colour = COLOURS[look.colour]
    return {
        "color": colour,
        "marker": MARKERS[look.marker],
        "markersize": size * (1.3 if MARKERS[look.marker] == "*" else 1.0),
        "markerfacecolor": "white" if look.hollow else colour,
        "markeredgecolor": colour,
    }


def plain(text: str) -> str:
    r"""Text that a legend shows as it is: no formula, and not left out for its underscore.

    >>> print(plain("$x$"), plain("_Mine"))
    \$x\$  _Mine
    """
    shown = printable(text).replace("$", r"\$")
    return f" {shown}" if shown.startswith("_") else shown


def model_and_corpus(run: FinishedRun) -> str:
    """Line of a title."""
    results = run.results
    return plain(f"{results.model} on {corpus_title(results.corpus, results.is_synthetic, results.invented)}")


def fold_and_seed(run: FinishedRun) -> str:
    """Line of a title."""
    return f"fold {run.results.fold} · seed {run.results.seed}"


def write_figure(figure: Figure, stem: Path) -> list[Path]:
    """Write ``stem``.png (200 dots per inch) and ``stem``.pdf, each whole or not at all.

    Returns:
        the two paths.

    Raises:
        OSError: the folder cannot be written or the disk is full.
    """
    png, pdf = (stem.with_name(f"{stem.name}{suffix}") for suffix in (".png", ".pdf"))
    with atomic_path(png) as temporary:
        figure.savefig(temporary, dpi=200)
    # Type 42: publishers refuse matplotlib's default, Type 3. No date: the same figure has the same bytes.
    with matplotlib.rc_context({"pdf.fonttype": 42}), atomic_path(pdf) as temporary:
        figure.savefig(temporary, metadata={"CreationDate": None})
    return [png, pdf]
