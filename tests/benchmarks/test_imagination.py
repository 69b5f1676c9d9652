"""How much a model imagines, measured on models of known answers and on trained ones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from benchmarks import imagination
from datamodules.batches.batch import Batch
from datamodules.synthetic import Synthetic
from ifmmin.model import IFMMIN
from tests.cli.running import SMALL, best, fit


@dataclass
class Imagining:
    """Stands for a model that imagines ``share`` of the way from the training mean to the truth."""

    share: float
    middle: Tensor

    def __post_init__(self) -> None:
        self.teacher = SimpleNamespace(targets=self.targets)

    def eval(self) -> None:
        """Nothing to do."""

    def targets(self, batch: Batch) -> Tensor:
        torch.manual_seed(0)
        return torch.randn(1000, 3, 4)[batch.index[batch.row] % 1000]

    def imagine(self, batch: Batch) -> SimpleNamespace:
        true = self.targets(batch)
        return SimpleNamespace(imagined=(self.middle + self.share * (true - self.middle)).flatten(1))


@pytest.mark.parametrize(("share", "expected"), [(1.0, 1.0), (0.0, 0.0), (0.5, 0.75)])
def test_explained_variance(share: float, expected: float) -> None:
    data = Synthetic(utterances_per_speaker=12)
    data.setup("fit")
    probe = Imagining(share, torch.zeros(3, 4))
    train = torch.cat([probe.targets(batch.unmasked()) for batch in data.in_order("train")])
    probe.middle = train.mean(dim=0)
    for value in imagination.explained_variance(cast(Any, probe), data).values():
        assert value == pytest.approx(expected, abs=1e-5)


def test_imagination_of_a_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = fit(tmp_path / "other", *SMALL, model="FusionPretraining")
    assert imagination.main([str(best(other))]) == 1
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
