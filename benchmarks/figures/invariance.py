"""What a model with invariant features has learnt: figure 3a of the IF-MMIN paper, of one run, and by class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.figures.style import fold_and_seed, model_and_corpus, plain
from benchmarks.leaderboard.looks import COLOURS, MARKERS
from datamodules.base import EmotionDataModule
from datamodules.batches.masks import random_bits, utterance_keys
from datamodules.batches.visible import under_conditions
from datamodules.conditions import CONDITIONS, MISSING_CONDITIONS
from datamodules.errors import InputError
from ifmmin.base import MissingModalityModule
from ifmmin.finished import FinishedRun
from ifmmin.results.figures import empty_figure
from ifmmin.results.results import readable

UTTERANCES = 100
"""Drawn under each condition, as in the paper."""

_PERPLEXITY = 30.0


@dataclass(frozen=True)
class Points:
    """Predicted invariant features under the six missing conditions.

    Attributes:
        features: float32 [n, D], H'.
        condition: int64 [n], positions in :data:`~datamodules.conditions.CONDITIONS`.
        label: [n], true classes as int64 class numbers, or true values as float32.
        utterances: ids of the utterances, each of which occurs under every condition.
    """

    features: npt.NDArray[np.float32]
    condition: npt.NDArray[np.int64]
    label: npt.NDArray[Any]
    utterances: tuple[str, ...]


def chosen_utterances(data: EmotionDataModule, split: str, count: int = UTTERANCES) -> npt.NDArray[np.int64]:
    """Positions in the corpus of ``count`` utterances of a split, or of all where it has fewer.

    The choice is a fixed random one and depends on the ids alone, not on their order.
    """
    rows = data.indices(split)
    bits = random_bits(utterance_keys([data.corpus.utterances[row] for row in rows]), 0)
    return rows[np.argsort(bits, kind="stable")[:count]]


@torch.no_grad()
def predicted_invariant_points(model: MissingModalityModule, data: EmotionDataModule, split: str) -> Points:
    """H' of some utterances of a split under each of the six missing conditions.

    Raises:
        InputError: the model predicts no invariant features.
    """
    chosen = torch.from_numpy(chosen_utterances(data, split))
    features, conditions, labels = [], [], []
    for batch in data.in_order(split):
        rows, condition = under_conditions(batch, MISSING_CONDITIONS)
        kept = torch.isin(batch.index[rows.row], chosen)
        if kept.any():
            H = model.invariant_features(replace(rows, row=rows.row[kept], present=rows.present[kept]))
            if H is None:
                raise InputError(f"{type(model).__name__} predicts no invariant features.")
            features.append(H.flatten(1))
            conditions.append(condition[kept])
            labels.append(rows.label[kept])
    names = tuple(data.corpus.utterances[row] for row in chosen.tolist())
    return Points(torch.cat(features).float().numpy(), torch.cat(conditions).numpy(), torch.cat(labels).numpy(), names)


def embed(features: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """t-SNE of ``features`` [n, D], n at least 4, in the plane: float32 [n, 2], the same every time.

    Raises:
        InputError: scikit-learn is not installed, or the features do not vary.
    """
    try:
        from sklearn.manifold import TSNE
        from threadpoolctl import threadpool_limits
    except ImportError as error:
        raise InputError('t-SNE needs scikit-learn: pip install "ifmmin[benchmarks]".') from error
    if not float(features.std(axis=0).max()) > 0:
        raise InputError("the features are the same for all utterances and conditions, so there is nothing to draw.")
    perplexity = min(_PERPLEXITY, (len(features) - 1) / 3)
    method = TSNE(perplexity=perplexity, init="pca", random_state=0)
    with threadpool_limits(1):  # threads would add in another order each time
        points: npt.NDArray[np.float32] = method.fit_transform(features)
    return points


def features_figure(run: FinishedRun) -> Figure:
    """t-SNE of H' under the six missing conditions, by condition and by class.

    Raises:
        InputError: the model predicts no invariant features; or its data, its checkpoint or
            scikit-learn are not there.
    """
    model, data = run.load()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # t-SNE would enlarge the last bits in which other numbers of threads differ
    try:
        points = predicted_invariant_points(model, data, run.results.split)
    finally:
        torch.set_num_threads(threads)
    return draw_features(run, points, embed(points.features))


def draw_features(run: FinishedRun, points: Points, places: npt.NDArray[Any]) -> Figure:
    """One mark per utterance and condition at ``places`` [n, 2]: by condition on the left, by class or value right.

    Invariant features mix the conditions and part the classes.
    """
    figure = empty_figure(13, 7.4)
    left, right = figure.subplots(1, 2)
    of_condition = [CONDITIONS.index(condition) for condition in MISSING_CONDITIONS]
    _scatter(left, places, points.condition, of_condition, [readable(name) for name in MISSING_CONDITIONS])
    left.set_title("by what is available", fontsize=12)
    task = run.results.task
    if task.class_names:
        classes = list(range(len(task.class_names)))
        _scatter(right, places, points.label, classes, [plain(name) for name in task.class_names])
    else:
        drawn = right.scatter(places[:, 0], places[:, 1], s=22, c=points.label, cmap="viridis", alpha=0.8, lw=0)
        figure.colorbar(drawn, ax=right, orientation="horizontal", shrink=0.7, pad=0.02)
    right.set_title("by class" if task.class_names else "by true value", fontsize=12)
    # t-SNE hides the scale: features that have collapsed look as rich as others.
    spread = float(points.features.std(axis=0).mean())
    figure.supxlabel(f"t-SNE (no unit); H' itself has a standard deviation of {spread:.2g} per coordinate", fontsize=11)
    size = f"{fold_and_seed(run)} · {run.results.split} · {len(points.utterances)} utterances under each condition"
    figure.suptitle(f"Predicted invariant features H'\n{model_and_corpus(run)}\n{size}", fontsize=12)
    return figure


def _scatter(
    axes: Axes, places: npt.NDArray[Any], group: npt.NDArray[Any], groups: Sequence[int], names: Sequence[str]
) -> None:
    """Points of each group in a colour and shape of its own, named below."""
    for place, (number, name) in enumerate(zip(groups, names, strict=True)):
        here = places[group == number]
        look: dict[str, Any] = {"c": COLOURS[place % len(COLOURS)], "marker": MARKERS[place % len(MARKERS)]}
        axes.scatter(here[:, 0], here[:, 1], s=22, alpha=0.8, lw=0, label=name, **look)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_aspect("equal", adjustable="datalim")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.01), ncols=6, fontsize=11, frameon=False, markerscale=1.6)
