"""Real offline runs of Weights & Biases, read back from disk."""

from __future__ import annotations

from pathlib import Path

import pytest
import wandb

from ifmmin.discovery import discover_models
from tests.cli.running import SMALL, end_to_end, fit, metrics
from tests.wandb_offline import OfflineRun, read_offline_run

LOGGER = ["--trainer.logger", "WandbLogger"]


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    wandb.teardown()  # it reads its environment once a process, and an earlier test may have had it do so


def names_in(found: OfflineRun) -> set[str]:
    return set().union(*found["history"])


@pytest.mark.parametrize("model", end_to_end(discover_models()))
def test_every_model_is_logged_whole(model: str, tmp_path: Path) -> None:
    run = fit(tmp_path / "run", *SMALL, *LOGGER, model=model)
    found = read_offline_run(run / "wandb")
    assert found["config"]["class_names"] == ["angry", "happy", "neutral", "sad"]
    assert found["config"]["run"]["data"]["class_path"].endswith("Synthetic")
    assert any("train/" in name for name in names_in(found))
    assert any("val/avt/UA" in name for name in names_in(found))
    wanted = metrics(run)["metrics"]
    assert found["summary"]["test/pooled/UA"] == pytest.approx(wanted["pooled"]["UA"])
    assert any(name.endswith(".png") for name in found["files"])
    assert any(name.endswith(".table.json") for name in found["files"])


def test_both_stages_and_two_runs_of_one_process_are_kept_apart(tmp_path: Path) -> None:
    options = [*SMALL, *LOGGER]
    first, second = (fit(tmp_path / seed, *options, "--seed_everything", seed) for seed in ("1", "2"))
    logged = [read_offline_run(run / "wandb") for run in (first, second)]
    for found in logged:
        assert found["config"]["lambda_inv"] == 100.0
        assert {"stage1/train/cmd", "train/inv", "train/img", "val/a/UA", "val/pooled/UA"} <= names_in(found)
    assert [found["config"]["run"]["seed_everything"] for found in logged] == [1, 2]
