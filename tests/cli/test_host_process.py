"""What importing and using ifmmin does to somebody else's process, and what their folders do to ours."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.running import CHECKOUT

HOST = """
import ctypes, gc, logging, os, sys, warnings

class Watched(ctypes.CDLL):
    def __getattr__(self, name):
        if name in ("mallopt", "malloc_trim"):
            print("called", name)
        return super().__getattr__(name)

ctypes.CDLL = Watched
import torch, lightning as L  # theirs
before = (gc.isenabled(), gc.get_freeze_count(), dict(os.environ), list(warnings.filters), logging.root.level)
import ifmmin
from datamodules import Synthetic
from baselines import MeanFusion
from ifmmin import Predictor
data = Synthetic(utterances_per_speaker=6)
model = MeanFusion(feature_dims=data.feature_dims, class_names=data.class_names, corpus=data.corpus_name)
quiet = dict(logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)
trainer = L.Trainer(max_epochs=1, num_sanity_val_steps=0, accelerator="cpu", **quiet)
trainer.fit(model, datamodule=data)
Predictor(model, data.checkpoint_record()).predict({"audio": torch.ones(3, data.feature_dims[0])})
after = (gc.isenabled(), gc.get_freeze_count(), dict(os.environ), list(warnings.filters), logging.root.level)
print("as it was:", [one == other for one, other in zip(before, after)])
print("imported:", sorted({"baselines.cm_arr", "zuko", "pytorch_metric_learning"} & {*sys.modules}))
"""


def python(*words: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words], cwd=cwd, env=os.environ | environment, capture_output=True, text=True, timeout=300
    )


def test_a_host_program_stays_as_it_was(tmp_path: Path) -> None:
    done = python("-W", "ignore", "-c", HOST, cwd=tmp_path, PYTHONPATH=str(CHECKOUT))
    assert done.returncode == 0, done.stderr
    assert "called" not in done.stdout
    # Lightning and torchmetrics add filters of their own when they are imported and used.
    assert "as it was: [True, True, True, True, True]" in done.stdout
    assert "imported: []" in done.stdout


@pytest.mark.parametrize("name", ["datamodules", "baselines"])
def test_a_foreign_package_of_our_name_is_said_and_not_run(name: str, tmp_path: Path) -> None:
    theirs = tmp_path / name
    theirs.mkdir()
    (theirs / "__init__.py").write_text("print('ran foreign code')\n")
    (theirs / "errors.py").write_text("")
    path = f"{tmp_path}{os.pathsep}{CHECKOUT}"
    command = python("-m", "ifmmin", "models", cwd=tmp_path, PYTHONPATH=path)
    program = python("-c", "import ifmmin", cwd=tmp_path, PYTHONPATH=path)
    script = python(str(CHECKOUT / "cli.py"), "models", cwd=tmp_path, PYTHONSAFEPATH="1", PYTHONPATH=path)
    for done in (command, program, script):
        assert done.returncode == 1
        assert "ran foreign code" not in done.stdout + done.stderr
        last = done.stderr.splitlines()[-1]
        assert f"{theirs}" in last and f"hides the package {name}" in last and "rename it" in last
    assert command.stderr.startswith("error: ") and command.stderr.count("\n") == 1
    assert script.stderr.startswith("error: ") and script.stderr.count("\n") == 1
    script = python(str(CHECKOUT / "cli.py"), "models", cwd=tmp_path)
    assert script.returncode == 0, script.stderr  # the checkout comes before the current folder
    assert "IFMMIN" in script.stdout


def test_a_models_parser_imports_no_other_model(tmp_path: Path) -> None:
    program = (
        "import sys; sys.argv = ['cli.py', 'fit', '--model', 'MeanFusion', '--print_config']\n"
        "from ifmmin.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print(sorted({'baselines.cm_arr', 'baselines.mctn', 'baselines.mmin', 'zuko'} & {*sys.modules}))"
    )
    done = python("-c", program, cwd=tmp_path, PYTHONPATH=str(CHECKOUT))
    assert done.stdout.splitlines()[-1] == "[]", done.stdout[-2000:] + done.stderr[-2000:]
