"""The programs that make tables of finished runs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from benchmarks import imagination, summary
from datamodules.batch import Batch
from datamodules.synthetic import Synthetic
from ifmmin.model import IFMMIN
from tests.cli.running import SMALL, best, fit, metrics


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    for seed in ("0", "1", "2"):
        fit(folder / seed, *SMALL, "--seed_everything", seed, model="FusionPretraining")
    return folder


def test_mean_and_spread_over_seeds(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert summary.main([str(runs), "--csv", str(tmp_path / "table.csv")]) == 0
    values = [100 * metrics(runs / seed)["metrics"]["t"]["WA"] for seed in "012"]
    shown = capsys.readouterr().out
    assert f"{mean(values):.2f} ± {stdev(values):.2f}" in shown
    assert "not a corpus result" in shown
    assert len((tmp_path / "table.csv").read_text(encoding="utf-8").splitlines()) == 1 + 3 * 9


def test_runs_on_other_data_are_refused(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, change in enumerate(({}, {"data_fingerprint": "other"})):
        (tmp_path / str(number)).mkdir()
        record = metrics(runs / "0")
        record["record"] |= change
        (tmp_path / str(number) / "metrics.json").write_text(json.dumps(record), encoding="utf-8")
        (tmp_path / str(number) / "config.yaml").touch()
    assert summary.main([str(tmp_path)]) == 1
    assert "not those of the other runs" in capsys.readouterr().err
    assert summary.main([str(tmp_path / "nothing")]) == 1


@dataclass
class Imagining:
    """Stands for a model that imagines ``share`` of the way from the training mean to the truth."""

    share: float
    middle: Tensor

    def __post_init__(self) -> None:
        self.teacher = SimpleNamespace(complete=self.complete)

    def eval(self) -> None:
        """Nothing to do."""

    def complete(self, batch: Batch) -> Tensor:
        torch.manual_seed(0)
        return torch.randn(1000, 3, 4)[batch.index[batch.row] % 1000]

    def imagine(self, batch: Batch) -> SimpleNamespace:
        true = self.complete(batch)
        return SimpleNamespace(imagined=(self.middle + self.share * (true - self.middle)).flatten(1))


@pytest.mark.parametrize(("share", "expected"), [(1.0, 1.0), (0.0, 0.0), (0.5, 0.75)])
def test_explained_variance(share: float, expected: float) -> None:
    data = Synthetic(utterances_per_speaker=12)
    data.setup("fit")
    probe = Imagining(share, torch.zeros(3, 4))
    train = torch.cat([probe.complete(batch.complete()) for batch in data.in_order("train")])
    probe.middle = train.mean(dim=0)
    for value in imagination.explained_variance(cast(Any, probe), data).values():
        assert value == pytest.approx(expected, abs=1e-5)


def test_imagination_of_a_checkpoint(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert imagination.main([str(best(runs / "0"))]) == 1
    assert "imagines no embedding" in capsys.readouterr().err
    run = fit(tmp_path / "run", *SMALL)
    assert imagination.main([str(best(run))]) == 0
    assert IFMMIN.__name__ in capsys.readouterr().out

    model = IFMMIN.load_from_checkpoint(best(run))
    data = Synthetic(utterances_per_speaker=12)
    data.setup("fit")
    norms = imagination.gradient_norms(model, data)
    # The invariance loss does not pass through imagination or classifier; all terms reach the encoders.
    assert norms["inv"]["imagination"] == norms["inv"]["classifier"] == norms["img"]["classifier"] == 0
    assert all(terms["encoders.text"] > 0 for terms in norms.values())
    model.zero_grad()
    model.losses(next(iter(data.train_dataloader())))["cls"].backward()
    naive = sum(float(p.grad.square().sum()) for p in model.classifier.parameters() if p.grad is not None) ** 0.5
    assert norms["cls"]["classifier"] == pytest.approx(naive, rel=1e-4)
