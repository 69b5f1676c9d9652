"""A real offline run of Weights & Biases, read back from disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.running import SMALL, fit, metrics
from tests.wandb_offline import read_offline_run


def test_a_run_is_logged_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    runs = [fit(tmp_path / name, *SMALL, "--trainer.logger", "WandbLogger", epochs=2) for name in ("one", "two")]
    logged = [read_offline_run(run / "wandb") for run in runs]

    for run, found in zip(runs, logged, strict=True):
        assert found["config"]["lambda_inv"] == 100.0
        assert found["config"]["run"]["data"]["class_path"].endswith("Synthetic")
        seen = set().union(*found["history"])
        for name in ("stage1/train/cmd", "train/inv", "train/img", "val/a/UA", "val/pooled/UA"):
            assert name in seen, name
        wanted = metrics(run)["metrics"]
        assert found["summary"]["test/pooled/UA"] == pytest.approx(wanted["pooled"]["UA"])
        assert any(name.endswith(".png") for name in found["files"])
        assert any(name.endswith(".table.json") for name in found["files"])
