"""Trained models against the best that is possible on the built-in corpus."""

from __future__ import annotations

from pathlib import Path

import pytest

from datamodules.conditions import MISSING_CONDITIONS
from tests.cli.running import fit, metrics

UTTERANCES = 400  # of the test split


@pytest.mark.parametrize("model", ["ModalityDropout", pytest.param("IFMMIN", marks=pytest.mark.slow)])
def test_a_model_comes_near_the_bayes_limit_and_not_above_it(model: str, tmp_path: Path) -> None:
    # A fifth of the schedule is enough to come near; the whole of it is what the README shows.
    rows = metrics(fit(tmp_path / "run", model=model, epochs=12))["metrics"]
    assert rows["mean"]["WA"] > rows["mean"]["bayes_WA"] - 0.05
    for condition in (*MISSING_CONDITIONS, "avt"):
        limit = rows[condition]["bayes_WA"]
        assert rows[condition]["n"] == UTTERANCES
        # Both are counts over the same utterances; three standard errors of one of them is ample.
        assert rows[condition]["WA"] <= limit + 3 * (limit * (1 - limit) / UTTERANCES) ** 0.5


@pytest.mark.slow
def test_a_model_of_values_comes_near_the_best_error_and_not_below_it(tmp_path: Path) -> None:
    rows = metrics(fit(tmp_path / "run", "--data", "SyntheticSentiment", model="ModalityDropout", epochs=12))["metrics"]
    assert rows["mean"]["MAE"] < rows["mean"]["bayes_MAE"] + 0.08
    for condition in (*MISSING_CONDITIONS, "avt"):
        # On the same utterances errors differ by some 0.3: three standard errors of the mean difference.
        assert rows[condition]["MAE"] > rows[condition]["bayes_MAE"] - 3 * 0.3 / UTTERANCES**0.5
