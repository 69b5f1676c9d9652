"""Tables, CSV and picture of a search."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter
from optuna.trial import FrozenTrial, TrialState
from rich.table import Table
from rich.text import Text

from benchmarks.figures.style import plain, write_figure
from benchmarks.leaderboard.looks import COLOURS
from benchmarks.search.finishing import Tested
from benchmarks.search.objective import DEFAULT
from benchmarks.search.progress import WORDS, shown_score
from benchmarks.search.space import Space
from benchmarks.search.trials import COPY, REASON, SECONDS, Trials
from datamodules.conditions import COMPLETE
from datamodules.files import write_text
from datamodules.text import csv_cell, printable
from ifmmin.tasks import Score

SHOWN = 10
"""Trials of the table."""

PANELS = 6
"""Parameters of the picture."""

_ENOUGH = 4  # complete trials for an importance


def trials_table(trials: Trials, score: Score, title: str) -> Table:
    """The best ten trials, with their values."""
    ranked = trials.ranked()
    counts = [each.state for each in trials.finished()]
    caption = (
        f"{len(counts)} trials: {counts.count(TrialState.COMPLETE)} complete, {counts.count(TrialState.PRUNED)} "
        f"pruned, {counts.count(TrialState.FAIL)} failed. {score.name} on validation: the best of many is too high by "
        "chance."
    )
    table = Table(title=Text(printable(title)), caption=caption, title_justify="left", caption_justify="left")
    names = [parameter.name for parameter in trials.space.parameters]
    for heading in ("", "trial", "validation", *(name.removeprefix("model.") for name in names)):
        table.add_column(Text(heading), justify="right", no_wrap=True)
    for rank, each in enumerate(ranked[:SHOWN], start=1):
        values = (short(each.params.get(name)) for name in names)
        table.add_row(str(rank), str(each.number), shown_score(each.value, score), *map(Text, values))
    return table


def test_table(tested: Tested, best: float, default: float | None, row: str, score: Score) -> Table:
    """Validation beside the one test, of the best trial and of the default configuration."""
    caption = (
        f"Validation chose trial {tested.trial} out of {tested.trials}, so its own score is too high by chance. The "
        "test split was opened once, afterwards, for these rows alone; nothing was chosen by it, so its scores need no "
        "correction for the number of trials. A second test would be a choice."
    )
    table = Table(title="tested once", caption=caption, title_justify="left", caption_justify="left")
    headings = ["configuration", f"validation {row}", f"test {row}", *([f"test {COMPLETE}"] if row != COMPLETE else [])]
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "configuration" else "right")
    validation = {"best": best, DEFAULT: default}
    for name, found in tested.scores.items():
        shown = f"trial {tested.trial}" if name == "best" else name
        cells = [shown_score(found.get(each), score) for each in dict.fromkeys((row, COMPLETE))]
        table.add_row(shown, shown_score(validation[name], score), *cells)
    return table


def short(value: Any) -> str:
    """A value in a table, to three digits.

    >>> short(0.00031234), short(64), short("[64, 64]"), short(None)
    ('0.000312', '64', '[64, 64]', '–')
    """
    if value is None:
        return "–"
    return f"{value:.3g}" if isinstance(value, float) else printable(value, 40)


def write_csv(trials: Trials, path: Path) -> Path:
    """Write all trials, one a line, with every digit."""
    names = [parameter.name for parameter in trials.space.parameters]
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["trial", "state", "validation", "epochs", "seconds", "copy_of", *names, "reason"])
    for each in trials.all():
        epochs = len(each.intermediate_values) or ""
        noted = each.user_attrs
        # The last intermediate value of a pruned trial is no score of a whole run.
        value = each.value if each.state == TrialState.COMPLETE else None
        state = WORDS.get(each.state, "unfinished")
        cells = [
            each.number,
            state,
            "" if value is None else value,
            epochs,
            noted.get(SECONDS, ""),
            noted.get(COPY, ""),
        ]
        params = [csv_cell(str(each.params[name])) if name in each.params else "" for name in names]
        lines.writerow([*cells, *params, csv_cell(noted.get(REASON, ""))])
    return write_text(path, text.getvalue())


def importances(trials: Trials) -> dict[str, float]:
    """Share of the variance over complete trials that each parameter explains (fANOVA), greatest first."""
    ranked = trials.ranked()
    if len(ranked) < _ENOUGH or len({each.value for each in ranked}) < 2:
        return {}
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    try:
        return dict(optuna.importance.get_param_importances(trials.study, evaluator=evaluator))
    except (ValueError, RuntimeError):  # all trials have the same values of all parameters
        return {}


def write_picture(trials: Trials, default: float | None, score: Score, title: str, stem: Path) -> list[Path]:
    """Draw the history of the search, and validation over the values of the parameters that matter most.

    Returns:
        the paths of the PNG and the PDF.
    """
    found = importances(trials)
    space = {parameter.name: parameter for parameter in trials.space.parameters}
    names = sorted(space, key=lambda name: -found.get(name, 0.0))[:PANELS]
    columns = min(3, len(names))
    rows = math.ceil(len(names) / columns)
    figure = Figure(figsize=(9.0, 3.2 + 2.4 * rows), layout="constrained")
    grid = figure.add_gridspec(rows + 1, columns, height_ratios=[1.25, *[1.0] * rows])
    figure.suptitle(plain(title), fontsize=11)
    scale = 100.0 if score.percent else 1.0
    _history(figure.add_subplot(grid[0, :]), trials, default, score, scale)
    for place, name in enumerate(names):
        axes = figure.add_subplot(grid[1 + place // columns, place % columns])
        share = f" ({found[name]:.0%} of the variance)" if name in found else ""
        _slice(axes, trials.ranked(), trials.space, name, scale)
        axes.set_xlabel(plain(name.removeprefix("model.")) + share.replace("%", r"%"), fontsize=8)
        if place % columns == 0:
            axes.set_ylabel(_label(score), fontsize=8)
        axes.tick_params(labelsize=7)
    return write_figure(figure, stem)


def _label(score: Score) -> str:
    return f"validation {score.name}" + (" in %" if score.percent else "")


def _history(axes: Axes, trials: Trials, default: float | None, score: Score, scale: float) -> None:
    maximise = trials.study.direction == optuna.study.StudyDirection.MAXIMIZE
    complete = [each for each in trials.all() if each.state == TrialState.COMPLETE]
    pruned = [each for each in trials.all() if each.state == TrialState.PRUNED and each.value is not None]
    axes.plot(*_points(complete, scale), "o", color=COLOURS[0], markersize=5, label="complete")
    if pruned:
        axes.plot(*_points(pruned, scale), "x", color=COLOURS[6], markersize=5, label="stopped early, score then")
    best: list[float] = []
    for each in complete:
        value = scale * each.values[0]
        best.append(value if not best else (max if maximise else min)(best[-1], value))
    axes.step([each.number for each in complete], best, where="post", color=COLOURS[1], label="best so far")
    if default is not None:
        axes.axhline(scale * default, color=COLOURS[2], linestyle="--", linewidth=1, label="default configuration")
    if complete:  # a diverged trial would flatten the rest
        values = [scale * each.values[0] for each in (*complete, *pruned)]
        values += [] if default is None else [scale * default]
        margin = 0.06 * (max(values) - min(values)) or 1e-3 * scale
        axes.set_ylim(min(values) - margin, max(values) + margin)
    axes.set_xlabel("trial", fontsize=8)
    axes.set_ylabel(_label(score), fontsize=8)
    axes.tick_params(labelsize=7)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(fontsize=7, loc="best")


def _points(trials: Sequence[FrozenTrial], scale: float) -> tuple[list[int], list[float]]:
    return [each.number for each in trials], [scale * float(each.value or 0.0) for each in trials]


def _slice(axes: Axes, ranked: Sequence[FrozenTrial], space: Space, name: str, scale: float) -> None:
    """Validation of the complete trials over one parameter; the best trial is filled."""
    parameter = next(each for each in space.parameters if each.name == name)
    labels = parameter.labels
    places: Mapping[str, int] = {str(label): number for number, label in enumerate(labels)}
    for each in reversed(ranked):
        value = each.params[name]
        first = each is ranked[0]
        axes.plot(
            places[str(value)] if labels else value,
            scale * each.values[0],
            "o",
            markersize=6 if first else 4,
            color=COLOURS[1] if first else COLOURS[0],
            markerfacecolor=COLOURS[1] if first else "white",
        )
    if labels:
        axes.set_xticks(range(len(labels)), [plain(str(label)) for label in labels])
        axes.set_xlim(-0.5, len(labels) - 0.5)
        return
    low, high = float(parameter.low or 0.0), float(parameter.high or 0.0)
    if parameter.log:
        axes.set_xscale("log")
        axes.xaxis.set_minor_formatter(NullFormatter())
        margin = (high / low) ** 0.04
        axes.set_xlim(low / margin, high * margin)
    else:
        margin = 0.04 * (high - low)
        axes.set_xlim(low - margin, high + margin)
