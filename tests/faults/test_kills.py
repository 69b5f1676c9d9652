"""SIGKILL at random moments of a fit whose temporary folder is another file system, and its resumption.

``python -m pytest -m slow tests/faults/test_kills.py`` runs them.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ifmmin import runs
from ifmmin.cli.main import main
from ifmmin.finished import read_run
from tests.cli.running import CHECKOUT, SMALL, best, fit, metrics, same, weights

pytestmark = pytest.mark.slow

OPTIONS = [*SMALL, "--model.blocks", "2", "--model.block_dims", "[64, 16]"]
EPOCHS = 6
PROGRAM = f"import sys; sys.path.insert(0, {str(CHECKOUT)!r}); from ifmmin.cli import main; sys.exit(main())"


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """A run without a kill, and its seconds from its first file to its result, imports left out."""
    started = time.monotonic()
    run = fit(tmp_path_factory.mktemp("uninterrupted") / "run", *OPTIONS, epochs=EPOCHS)
    return run, time.monotonic() - started


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """A temporary folder on another file system than the run's."""
    shared_memory = Path("/dev/shm")
    if not shared_memory.is_dir() or shared_memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no other file system")
    folder = Path(tempfile.mkdtemp(dir=shared_memory))
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize("seed", range(10))
def test_a_killed_fit_goes_on_to_the_same_bits(
    seed: int, uninterrupted: tuple[Path, float], elsewhere: Path, tmp_path: Path
) -> None:
    whole, seconds = uninterrupted
    run = tmp_path / "run"
    words = ["fit", "--model", "IFMMIN", *OPTIONS, "--trainer.max_epochs", str(EPOCHS), "--run_dir", str(run)]
    moment = random.Random(seed).uniform(0, seconds)
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *words], cwd=tmp_path, env=os.environ | {"TMPDIR": str(elsewhere)},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        while not run.is_dir() and process.poll() is None:  # it is still importing
            time.sleep(0.02)
        time.sleep(moment)
        process.send_signal(signal.SIGKILL)
    where = "finished" if (run / runs.METRICS).exists() else "begun" if (run / runs.CONFIG).exists() else "nothing"
    print(
        f"killed after {moment:.1f} s of {seconds:.1f} s: {where}, {sorted(path.name for path in run.rglob('*.ckpt'))}"
    )
    if where == "begun":
        assert main(["fit", "--resume", str(run)]) == 0
    elif where == "nothing":
        assert main(words) == 0
    assert same(weights(run / "checkpoints/last.ckpt"), weights(whole / "checkpoints/last.ckpt"))
    assert same(weights(run / "stage1/checkpoints/last.ckpt"), weights(whole / "stage1/checkpoints/last.ckpt"))
    assert best(run).name == best(whole).name
    assert metrics(run)["confusion"] == metrics(whole)["confusion"]
    assert read_run(run).results.model == "IFMMIN"
    assert not list(run.rglob(".ifmmin-*"))
    assert not list(elsewhere.iterdir())
