"""Names that the README of 0.1.0 showed still work, and warn."""

from __future__ import annotations

import importlib
import subprocess
import sys
from typing import Any

import pytest

from datamodules.needs import DataNeeds
from tests.batches import random_batch
from tests.cli.running import CHECKOUT
from tests.ifmmin.models import Small


@pytest.mark.parametrize(
    ("module", "name", "home"),
    [
        ("ifmmin.encoders", "LSTMEncoder", "ifmmin.nn.encoders"),
        ("ifmmin.imagination", "InvariantImagination", "ifmmin.nn.imagination"),
        ("ifmmin.losses", "central_moment_discrepancy", "ifmmin.nn.losses"),
        ("datamodules.batch", "Batch", "datamodules.batches.batch"),
        ("datamodules.missing", "visible", "datamodules.batches.visible"),
    ],
)
def test_an_old_import_path_warns_and_works(module: str, name: str, home: str) -> None:
    with pytest.warns(FutureWarning, match=f"{module}.{name} is now {home}.{name}"):
        found = getattr(importlib.import_module(module), name)
    assert found is getattr(importlib.import_module(home), name)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = importlib.import_module(module).nothing


def test_old_names_of_the_contract_warn_and_work() -> None:
    batch = random_batch(3)
    with pytest.warns(FutureWarning, match=r"now Batch\.unmasked"):
        assert batch.complete().present.equal(batch.unmasked().present)
    with pytest.warns(FutureWarning, match="needs = DataNeeds"):
        old: Any = type("Old", (Small,), {"reads_complete": False, "reads_steps": 7})
    assert old.needs == DataNeeds(hidden_frames=False, steps=7)


@pytest.mark.parametrize("name", ["throughput", "growth", "latency", "epochs", "gpu"])
def test_a_moved_program_answers_with_its_new_name(name: str) -> None:
    done = subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], cwd=CHECKOUT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == f"error: benchmarks.{name} is now: python -m benchmarks.speed.{name}\n"
