"""What a run reports of its epochs, and when it is stopped."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
import torch
from optuna.trial import TrialState

from baselines import MeanFusion
from benchmarks.search.pruning import PRUNED, STRIDE, Pruning
from benchmarks.search.trials import open_study
from ifmmin.checkpoints.keeping import BestEpoch

MODEL = MeanFusion(feature_dims=[2, 2, 2], class_names=["a", "b"])


def others(folder: Path, curves: list[list[float]]) -> optuna.Study:
    """A study with complete trials of these scores by epoch, and one that runs."""
    study = open_study(folder, "maximize")
    for curve in curves:
        trial = study.ask()
        for epoch, value in enumerate(curve, start=1):
            trial.report(value, epoch)
        study.tell(trial, max(curve))
    study.ask()
    return study


def train(folder: Path, number: int, scores: list[float], earlier: list[float], first: int = 1) -> int:
    """Go through the epochs of a run with these scores; the epoch after which it was stopped, 0 if it was not."""
    callback = Pruning(str(folder), str(folder), number, earlier)
    keeper = BestEpoch(folder, MODEL.monitor_key, MODEL.monitor_mode)
    trainer: Any = SimpleNamespace(
        sanity_checking=False, is_global_zero=True, should_stop=False, checkpoint_callbacks=[keeper], max_epochs=8
    )
    for epoch, score in enumerate(scores, start=1):
        if epoch >= first:
            trainer.current_epoch, trainer.callback_metrics = epoch - 1, {MODEL.monitor_key: torch.tensor(score)}
            if epoch == first:
                callback.on_fit_start(trainer, MODEL)
            callback.on_validation_end(trainer, MODEL)
        best = keeper.best_model_score
        keeper.best_model_score = torch.tensor(score if best is None else max(score, float(best)))
        if trainer.should_stop:
            return epoch
    return 0


def reported(folder: Path, number: int) -> dict[int, float]:
    values: dict[int, float] = open_study(folder).trials[number].intermediate_values
    return values


def test_the_best_so_far_is_reported(tmp_path: Path) -> None:
    others(tmp_path, [])
    assert train(tmp_path, 0, [0.5, 0.3, 0.6, 0.4], []) == 0
    assert reported(tmp_path, 0) == pytest.approx({1: 0.5, 2: 0.5, 3: 0.6, 4: 0.6})


def test_of_several_runs_the_mean_so_far(tmp_path: Path) -> None:
    others(tmp_path, [])
    train(tmp_path, 0, [0.5, 0.7], [0.2, 0.6])
    assert reported(tmp_path, 0) == pytest.approx({2 * STRIDE + 1: 1.3 / 3, 2 * STRIDE + 2: 0.5})


def test_a_run_that_goes_on_does_not_report_an_epoch_twice(tmp_path: Path) -> None:
    others(tmp_path, [])
    train(tmp_path, 0, [0.5, 0.3, 0.6], [])
    train(tmp_path, 0, [0.5, 0.3, 0.6, 0.7], [], first=3)
    assert reported(tmp_path, 0) == pytest.approx({1: 0.5, 2: 0.5, 3: 0.6, 4: 0.7})


@pytest.mark.parametrize(
    ("scores", "stopped"),
    [
        # Medians of the others by epoch: 0.3, 0.4, 0.5, 0.6, ...
        ([0.9, 0.1, 0.1, 0.1, 0.1, 0.1], 0),  # its best is above them
        ([0.1, 0.2, 0.2, 0.2], 2),  # a quarter of eight epochs is waited for
        ([0.1, 0.45, 0.45, 0.45], 3),
        ([0.45, 0.45, 0.55, 0.55], 4),
    ],
)
def test_a_run_below_the_median_is_stopped(scores: list[float], stopped: int, tmp_path: Path) -> None:
    middle = [0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.88]
    curves = [[value + shift for value in middle] for shift in (-0.02, -0.01, 0.0, 0.01, 0.02)]
    others(tmp_path, curves)
    expected = next((e for e in range(2, len(scores) + 1) if max(scores[:e]) < middle[e - 1]), 0)
    assert stopped == expected  # by the rule itself
    assert train(tmp_path, 5, scores, []) == stopped
    assert (tmp_path / PRUNED).is_file() == bool(stopped)
    if stopped:
        assert json.loads((tmp_path / PRUNED).read_text(encoding="utf-8"))["epoch"] == stopped


def test_with_few_trials_none_is_stopped(tmp_path: Path) -> None:
    others(tmp_path, [[0.9] * 8] * 4)
    assert train(tmp_path, 4, [0.1] * 8, []) == 0


def test_the_last_epoch_is_not_stopped(tmp_path: Path) -> None:
    others(tmp_path, [[0.1] * 7 + [0.9]] * 5)
    assert train(tmp_path, 5, [0.2] * 8, []) == 0
    assert open_study(tmp_path).trials[5].state == TrialState.RUNNING
