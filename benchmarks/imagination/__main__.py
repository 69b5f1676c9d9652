"""What trained models imagine, and what is inside them: of a board, a run or a checkpoint, or of several.

    python -m benchmarks.imagination runs/leaderboard/Synthetic
    python -m benchmarks.imagination runs/Synthetic/fold1/IFMMIN-seed0/run-1/checkpoints/epoch040.ckpt

Measures the best checkpoint of every finished run: how much of the absent embeddings is imagined, whether features
tell their modality and the emotion, losses, gradients and dead units; "–" where a model has nothing of the kind. Prints
tables of means over folds and seeds per model and corpus, and writes imagination.csv, which has every run too, and
imagination.png and .pdf. The corpus is that of the run's config.yaml; --data CORPUS --data.root DIR name it anew.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.extras import require

if __name__ == "__main__":
    require("benchmarks.imagination", "sklearn", "jinja2", "joblib")

from rich.console import Console

from benchmarks.figures.style import write_figure
from benchmarks.imagination.entries import Run, csv_of, make_entries
from benchmarks.imagination.measures import measure
from benchmarks.imagination.picture import imagination_figure
from benchmarks.imagination.subjects import Subject, home, subjects_of
from benchmarks.imagination.tables import tables_of
from datamodules.errors import InputError
from datamodules.files import check_writable, write_text
from datamodules.text import printable
from ifmmin.cli.main import reported

NAME = "imagination"
"""Of the files, and of their folder beside the board or run."""


def main(argv: Sequence[str] | None = None) -> int:
    """Print the tables and write the files; 1 where there is nothing to measure or no place to write."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.imagination",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("paths", type=Path, nargs="+", metavar="PATH", help="a board, a run or a checkpoint")
    parser.add_argument(
        "--output", type=Path, help=f"where the files go; by default {NAME}/ in the first PATH's folder"
    )
    options, words = parser.parse_known_args(argv)
    return reported(lambda: report(options.paths, options.output, words))


def report(paths: Sequence[Path], output: Path | None, words: Sequence[str]) -> int:
    """Measure, print and write; 0.

    Raises:
        InputError: a path names no trained model of ours, or its data are not there.
        OSError: there is no place to write.
    """
    if words and words[0].partition("=")[0].partition(".")[0] != "--data":
        raise InputError(f"{printable(words[0])}: not known; --help lists the options.")
    named = {subject.checkpoint.resolve(): subject for path in paths for subject in subjects_of(path)}
    subjects = list(named.values())
    stem = (output or home(paths[0]) / NAME) / NAME
    check_writable(stem)
    console = Console(markup=False, highlight=False, soft_wrap=True)
    runs = []
    for place, subject in enumerate(subjects, start=1):
        try:
            run = run_of(subject, words)
        except InputError as reason:
            if not subject.board:
                raise
            console.print(f"[{place}/{len(subjects)}] left out: {printable(reason)}")
        else:
            runs.append(run)
            console.print(f"[{place}/{len(subjects)}] {printable(run.model)} fold {run.fold} seed {run.seed}")
    if not runs:
        raise InputError(f"{paths[0]}: none of its runs can be measured.")
    entries = make_entries(runs)
    wide = Console(
        width=max(170, console.width), markup=False, highlight=False
    )  # a narrower table would break its cells
    for table in tables_of(entries):
        wide.print(table)
    written = [write_text(stem.with_suffix(".csv"), csv_of(entries)), *write_figure(imagination_figure(entries), stem)]
    console.print("written: " + ", ".join(map(printable, written)))
    return 0


def run_of(subject: Subject, words: Sequence[str]) -> Run:
    """Load and measure one checkpoint.

    Raises:
        InputError: it is not ours, or its data are not there.
    """
    model, data = subject.load(words)
    return Run(
        model=type(model).__name__,
        options=dict(model.hparams),
        corpus=data.corpus_name,
        is_synthetic=data.synthetic,
        invented=data.invented,
        fold=data.fold,
        seed=data.seed,
        board=subject.board,
        checkpoint=str(subject.checkpoint),
        values=measure(model, data, subject),
    )


if __name__ == "__main__":
    sys.exit(main())
