"""What each modality gave to the answers of a run, class by class."""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.figure import Figure

from benchmarks.figures.style import fold_and_seed, model_and_corpus, plain
from benchmarks.leaderboard.looks import COLOURS
from datamodules.conditions import COMPLETE, CONDITIONS, MODALITIES
from datamodules.errors import InputError
from ifmmin.finished import FinishedRun
from ifmmin.results.figures import empty_figure
from ifmmin.results.reading import check_agree, read_predictions
from ifmmin.results.shares import modality_shares


def shares_figure(run: FinishedRun) -> Figure:
    """Draw the mean share of each modality in the true class's probability: stacked bars, class by class and of all.

    Of the complete condition. What helps is stacked upwards from 0, what misleads downwards; a mark is their sum, the
    mean probability of the true class minus 1 / C.

    Raises:
        InputError: the run has no predictions, they are of a regression or not of its result, or its model does not
            answer every condition.
    """
    task = run.results.task
    if not task.class_names:
        raise InputError(f"{run.folder}: predicts values; shares are drawn of classes.")
    path = run.folder / "predictions.csv"
    predictions = read_predictions(path, task)
    check_agree(run.results, predictions, path)
    label = torch.as_tensor(predictions.labels).long()
    rows = (torch.as_tensor(predictions.conditions) == CONDITIONS.index(COMPLETE)) & (label >= 0)
    if not bool(rows.any()):
        raise InputError(f"{run.folder}: nothing was answered with all modalities; shares are drawn of that.")
    label = label[rows]
    shares = modality_shares(predictions)[rows][torch.arange(len(label)), :, label]
    if not bool(shares.isfinite().all()):
        raise InputError(f"{run.folder}: {run.results.model} does not answer every condition, which shares rest on.")
    groups = {name: label == place for place, name in enumerate(task.class_names)} | {"all": label >= 0}
    groups = {name: chosen for name, chosen in groups.items() if bool(chosen.any())}
    means = np.stack([shares[chosen].mean(dim=0).numpy() for chosen in groups.values()])
    figure = empty_figure(max(6.5, 1.1 * len(groups) + 3.0), 4.8)
    axes = figure.subplots()
    places = np.arange(len(groups))
    up, down = np.zeros(len(groups)), np.zeros(len(groups))
    for number, modality in enumerate(MODALITIES):
        share = means[:, number]
        bottom = np.where(share >= 0, up, down)
        axes.bar(places, share, 0.62, bottom=bottom, color=COLOURS[number], label=modality)
        up, down = up + share.clip(min=0), down + share.clip(max=0)
    axes.plot(places, means.sum(axis=1), "D", color="black", markersize=5, label="sum: mean p - 1/C")
    axes.axhline(0, color="#404040", linewidth=0.8)
    names = [f"{plain(name)}\nn = {int(chosen.sum())}" for name, chosen in groups.items()]
    axes.set_xticks(places, names, parse_math=False)
    axes.tick_params(axis="x", length=0)
    axes.set_ylabel("share in the probability of the true class")
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    axes.set_title(f"What each modality gives: {model_and_corpus(run)}\n{fold_and_seed(run)}", parse_math=False)
    return figure
