"""Curves of what a run logged: L_inv over epochs, and RedCore's weights of the modalities over steps."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from baselines.redcore.model import LOGGED as ADAPTIVE_WEIGHTS
from benchmarks.figures.style import DASHES, fold_and_seed, model_and_corpus
from benchmarks.leaderboard.looks import COLOURS
from datamodules.conditions import MODALITIES
from datamodules.errors import InputError
from ifmmin.finished import FinishedRun
from ifmmin.results.figures import empty_figure

INVARIANCE_LOSS = "train/inv"
"""L_inv in the CSV logs, not weighted."""


def loss_figure(run: FinishedRun) -> Figure:
    """The curve of L_inv over epochs.

    Raises:
        InputError: the run logged none, or its logs are not there or damaged.
    """
    values = _logged(run, INVARIANCE_LOSS)
    figure, axes = _curves(run, "Invariance loss in training (not weighted)")
    epochs = sorted(values)
    axes.plot(epochs, [values[epoch] for epoch in epochs], color=COLOURS[0], marker=".")
    axes.set_ylim(bottom=0)
    axes.ticklabel_format(axis="y", scilimits=(-3, 4), useMathText=True)
    axes.yaxis.get_offset_text().set_fontsize(11)
    axes.set_xlabel("epoch", fontsize=12)
    axes.set_ylabel("$L_{inv}$, mean over the epoch", fontsize=12)
    return figure


def weights_figure(run: FinishedRun) -> Figure:
    """The curves of RedCore's β over optimiser steps, one per modality.

    Raises:
        InputError: the run logged none, or its logs are not there or damaged.
    """
    curves = {name: _logged(run, f"{ADAPTIVE_WEIGHTS}/{name}", by="step") for name in MODALITIES}
    figure, axes = _curves(run, "Weights of the modalities in the loss of generating them")
    for (name, values), colour, dashes in zip(curves.items(), COLOURS, DASHES, strict=False):
        steps = sorted(values)
        axes.plot(steps, [values[step] for step in steps], color=colour, ls=dashes, lw=1.8, label=name)
    axes.set_ylim(0, 1)
    axes.set_xlabel("optimiser step", fontsize=12)
    axes.set_ylabel("$β$", fontsize=12)
    figure.legend(loc="outside lower center", ncols=len(curves), fontsize=12, frameon=False)
    return figure


def _logged(run: FinishedRun, name: str, by: str = "epoch") -> Mapping[int, float]:
    """A logged column of a run.

    Raises:
        InputError: it logged none.
    """
    values = run.logged(name, by)
    if not values:
        raise InputError(f"{run.folder}: {run.results.model} logs no {name}.")
    return values


def _curves(run: FinishedRun, title: str) -> tuple[Figure, Axes]:
    figure = empty_figure(7, 4.5)
    axes = figure.subplots()
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axes.tick_params(labelsize=11)
    axes.grid(color="#e0e0e0", lw=0.7)
    axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"{title}\n{model_and_corpus(run)}\n{fold_and_seed(run)}", fontsize=12)
    return figure, axes
