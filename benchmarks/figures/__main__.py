"""Pictures of a finished run or of a leaderboard, as PNG and PDF.

    python -m benchmarks.figures runs/leaderboard/Synthetic
    python -m benchmarks.figures runs/Synthetic/fold1/IFMMIN-seed0/run-1 --output pictures

Of a board: WA, UA and F1 per condition as bars, of more than eight models as dots; the missing-rate curves, and
below them what others published, each protocol in a panel of its own; the other rate curves with their areas; the
confusion matrices of all models together and of each. Of a run: its confusion matrices, and the shares of the
modalities in its answers; for a model with invariant features, t-SNE of the predicted ones (H') and the curve of
L_inv; of RedCore the curves of its adaptive weights. A board shows these of its best such model, first fold, first
seed. A picture that cannot be drawn is named with the reason.
"""

from __future__ import annotations

import argparse
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from matplotlib.figure import Figure

from baselines.redcore import RedCore
from benchmarks.figures.conditions import conditions_figure
from benchmarks.figures.confusion import confusion_figure as confusions_of
from benchmarks.figures.confusion import pooled_confusion_figure
from benchmarks.figures.curves import loss_figure, weights_figure
from benchmarks.figures.invariance import features_figure
from benchmarks.figures.missing_rate import missing_rate_figure
from benchmarks.figures.rate_curves import rate_curves_figure
from benchmarks.figures.shares import shares_figure
from benchmarks.figures.style import write_figure
from benchmarks.leaderboard.records import RECORDS, latest_records
from benchmarks.leaderboard.summary import Summary, summarise_board
from datamodules.errors import InputError
from datamodules.text import printable
from ifmmin.base import MissingModalityModule
from ifmmin.cli import starting
from ifmmin.cli.main import reported
from ifmmin.discovery import discover_models
from ifmmin.finished import FinishedRun, read_run
from ifmmin.results.figures import confusion_figure
from ifmmin.runs import CONFIG

Drawing = tuple[str, Callable[[], Figure]]
"""A figure's name, which is its file's, and what draws it; InputError where it cannot be drawn."""


def drawings_of_run(run: FinishedRun) -> Iterator[Drawing]:
    """The figures of one run."""
    yield "confusion", partial(confusion_figure, run.results)
    yield "shares", partial(shares_figure, run)
    yield from _invariance(lambda: run)
    if run.results.model in _with_adaptive_weights():
        yield "adaptive_weights", partial(weights_figure, run)


def drawings_of_board(folder: Path, summary: Summary) -> Iterator[Drawing]:
    """The figures of a board in ``folder``."""
    for metric in summary.score_names:
        yield f"conditions_{metric}", partial(conditions_figure, summary, metric)
    for metric in summary.score_names:
        yield f"missing_rate_{metric}", partial(missing_rate_figure, summary, metric)
    for metric in summary.score_names:
        yield f"rate_curves_{metric}", partial(rate_curves_figure, summary, metric)
    yield "confusion", partial(pooled_confusion_figure, summary)
    for entry in summary.entries:
        yield f"confusion_{file_name(entry.model)}", partial(confusions_of, summary, entry)
    yield from _invariance(partial(best_run_with_invariant_features, folder, summary))
    adaptive = _with_adaptive_weights()
    if best := next((entry.model for entry in summary.entries if entry.model in adaptive), None):
        yield "adaptive_weights", lambda: weights_figure(first_run(folder, summary, best))


def file_name(model: str) -> str:
    """A model's name as part of a file's: the same where it is one word, without separators and dots where not.

    >>> file_name("IFMMIN"), file_name("../x") == file_name("/.x")
    ('IFMMIN', False)
    """
    plain = re.sub(r"[^\w-]", "-", model)[:60]
    # Names that became alike are told apart.
    return plain if plain == model else f"{plain}-{zlib.crc32(model.encode()):08x}"


def _invariance(run: Callable[[], FinishedRun]) -> Iterator[Drawing]:
    yield "invariant_features", lambda: features_figure(run())
    yield "invariance_loss", lambda: loss_figure(run())


def best_run_with_invariant_features(folder: Path, summary: Summary) -> FinishedRun:
    """The first fold and seed of the best-ranked model that predicts invariant features.

    Raises:
        InputError: no model does, or the run's folder is not there.
    """
    models = discover_models()
    for entry in summary.entries:
        if entry.model in models and _has_invariant_features(models[entry.model]):
            return first_run(folder, summary, entry.model)
    raise InputError(f"{folder}: no model of this board predicts invariant features.")


def first_run(folder: Path, summary: Summary, model: str) -> FinishedRun:
    """The first fold and seed of a model of a board.

    Raises:
        InputError: the run's folder is not there.
    """
    own = (record for record in summary.records if record.model == model)
    return read_run(folder / min(own, key=lambda record: record.key).run)


def _with_adaptive_weights() -> set[str]:
    """Names of the models whose logs have RedCore's weights."""
    return {name for name, model in discover_models().items() if issubclass(model, RedCore)}


def _has_invariant_features(model: type[MissingModalityModule]) -> bool:
    return model.invariant_features is not MissingModalityModule.invariant_features


def drawings(folder: Path) -> Iterator[Drawing]:
    """Figures of whatever is in ``folder``.

    Raises:
        InputError: it has neither a board nor a finished run.
    """
    if (folder / RECORDS).is_file():
        return drawings_of_board(folder, summarise_board(latest_records(folder)))
    if (folder / CONFIG).is_file():
        return drawings_of_run(read_run(folder))
    raise InputError(
        f"{folder}: neither a board ({RECORDS}) nor a run ({CONFIG}) there; "
        "name a folder that a leaderboard or a fit printed."
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Write the figures and print their paths; 1 where there is nothing to draw from or no place to write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="RUN_OR_BOARD")
    parser.add_argument("--output", type=Path, help="where the figures go; by default RUN_OR_BOARD/figures")
    options = parser.parse_args(argv)
    return reported(lambda: draw_all(options.folder, options.output or options.folder / "figures"))


def draw_all(folder: Path, output: Path) -> int:
    """Draw what can be drawn, name what cannot, and return 0.

    Raises:
        InputError: ``folder`` has nothing to draw from.
        OSError: there is no place to write.
    """
    for name, draw in drawings(folder):
        try:
            figure = draw()
        except InputError as reason:
            print(f"left out: {name}: {printable(reason)}")
        else:
            print("\n".join(map(str, write_figure(figure, output / name))), flush=True)
    return 0


if __name__ == "__main__":
    starting.settle()
    raise SystemExit(main())
