"""The trained IF-MMIN against the best that is possible on the built-in corpus."""

from __future__ import annotations

from pathlib import Path

from datamodules.conditions import MISSING_CONDITIONS
from tests.cli.running import fit, metrics

UTTERANCES = 400  # of the test split


def test_ifmmin_comes_near_the_bayes_limit_and_not_above_it(tmp_path: Path) -> None:
    # A fifth of the schedule is enough to come near; the whole of it is what the README shows.
    rows = metrics(fit(tmp_path / "run", epochs=12))["metrics"]
    assert rows["mean"]["WA"] > rows["mean"]["bayes_WA"] - 0.05
    for condition in (*MISSING_CONDITIONS, "avt"):
        limit = rows[condition]["bayes_WA"]
        assert rows[condition]["n"] == UTTERANCES
        # Both are counts over the same utterances; three standard errors of one of them is ample.
        assert rows[condition]["WA"] <= limit + 3 * (limit * (1 - limit) / UTTERANCES) ** 0.5
