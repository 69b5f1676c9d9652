"""Running the command line, in this process or in a fresh one."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ifmmin.cli.main import main

CHECKOUT = Path(__file__).parents[2]
DATA = CHECKOUT / "tests" / "data"
SAMPLES = {"IEMOCAP": DATA / "sample_iemocap", "MSPIMPROV": DATA / "sample_msp"}
SMALL = ["--data.utterances_per_speaker", "12"]


def sample(corpus: str) -> list[str]:
    """The options for a sample corpus."""
    return ["--data", corpus, "--data.root", str(SAMPLES[corpus])]


def fit(folder: Path, *options: str, model: str = "IFMMIN", epochs: int = 1) -> Path:
    """Fit in this process; the run's folder."""
    words = ["fit", "--model", model, "--run_dir", str(folder), "--trainer.max_epochs", str(epochs), *options]
    assert main(words) == 0
    return folder


def fresh(*words: str, cwd: Path, prelude: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a fresh process, after some Python of the test's own."""
    import os

    program = f"import sys; sys.path.insert(0, {str(CHECKOUT)!r}); {prelude}\nfrom ifmmin.cli import main\n"
    script = cwd / "program.py"
    script.write_text(program + "if __name__ == '__main__':\n    raise SystemExit(main())\n", encoding="utf-8")
    return subprocess.run(
        [sys.executable, str(script), *words],
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


def metrics(run: Path, name: str = "metrics.json") -> dict[str, Any]:
    """What a run wrote."""
    found: dict[str, Any] = json.loads((run / name).read_text(encoding="utf-8"))
    return found


def best(run: Path) -> Path:
    """The checkpoint of a run's best epoch."""
    (path,) = (run / "checkpoints").glob("epoch*.ckpt")
    return path


def weights(path: Path) -> dict[str, Tensor]:
    """The parameters in a checkpoint."""
    state: dict[str, Tensor] = torch.load(path, weights_only=True)["state_dict"]
    return state


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    """Whether two state dicts hold the same bits."""
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


QUICK = ("IFMMIN", "MeanFusion")
"""Models that end-to-end tests run every time; the others are marked slow: ``pytest -m ""`` runs them."""


def end_to_end(names: Iterable[str]) -> list[Any]:
    """Parameters of an end-to-end test that trains each model."""
    return [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in sorted(names)]
