"""A killed fit goes on and ends where an uninterrupted one does, to the bit."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from ifmmin.cli.main import main
from tests.cli.running import SMALL, fit, fresh, metrics, same, weights

# A schedule that decays within the few epochs, so that a wrong learning rate after resuming shows.
OPTIONS = [
    *SMALL,
    "--model.constant_epochs=1",
    "--model.decay_epochs=3",
    '--model.pretraining={"constant_epochs": 1, "decay_epochs": 3}',
]
EPOCHS = 4

KILL = """
import os, signal
from lightning.pytorch.callbacks import ModelCheckpoint
saved = ModelCheckpoint._save_checkpoint
def save_and_die(self, trainer, filepath):
    saved(self, trainer, filepath)
    if {place!r} in str(filepath) and str(filepath).endswith("last.ckpt") and trainer.current_epoch == 1:
        os.kill(os.getpid(), signal.SIGKILL)
ModelCheckpoint._save_checkpoint = save_and_die
"""


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fit(tmp_path_factory.mktemp("uninterrupted") / "run", *OPTIONS, epochs=EPOCHS)


@pytest.mark.parametrize("place", ["stage1/checkpoints", "run/checkpoints"])
def test_resume_equals_uninterrupted(place: str, uninterrupted: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ["fit", "--model", "IFMMIN", "--run_dir", str(run), "--trainer.max_epochs", str(EPOCHS), *OPTIONS]
    killed = fresh(*words, cwd=tmp_path, prelude=KILL.format(place=place))
    assert killed.returncode == -signal.SIGKILL
    assert not (run / "metrics.json").exists()

    assert main(["fit", "--resume", str(run)]) == 0
    for checkpoint in ("stage1/checkpoints/last.ckpt", "checkpoints/last.ckpt"):
        assert same(weights(run / checkpoint), weights(uninterrupted / checkpoint))
    assert metrics(run)["confusion"] == metrics(uninterrupted)["confusion"]
    # The curve drawn before the kill is still there.
    assert (run / "logs").is_dir()
    assert (run / "logs-2").is_dir()


def test_only_an_unfinished_run_resumes(
    uninterrupted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", "--resume", str(uninterrupted)]) == 1
    assert "finished" in capsys.readouterr().err
    assert main(["fit", "--resume", str(tmp_path)]) == 1
    assert "no run to go on with" in capsys.readouterr().err
