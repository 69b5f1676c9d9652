"""Two processes on the CPU, talking through gloo."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ifmmin.cli.main import main
from ifmmin.discovery import discover_models
from tests.cli.running import CHECKOUT, QUICK, SMALL, best, fit, fresh, metrics

TWO = ["--trainer.accelerator", "cpu", "--trainer.devices", "2", "--trainer.strategy", "ddp"]
# 33 utterances a speaker: the test split of 33 does not divide by 2, and a speaker has two dialogues.
ODD = ["--data.utterances_per_speaker", "33", "--data.eval_batch_size", "4"]

# The quick models share a pair of processes, for most of the time of a fresh process goes into its imports.
PAIRS = [[*QUICK], *(pytest.param([name], marks=pytest.mark.slow) for name in sorted({*discover_models()} - {*QUICK}))]
PROGRAM = """
import sys
sys.path.insert(0, {checkout!r})
from ifmmin.cli import main
if __name__ == "__main__":
    for model in {models!r}:
        assert main(["fit", "--model", model, "--run_dir", model, *{options!r}]) == 0, model
"""


@pytest.mark.parametrize("models", PAIRS, ids=" ".join)
def test_two_devices_train_and_count_every_utterance_once(models: list[str], tmp_path: Path) -> None:
    program = PROGRAM.format(checkout=str(CHECKOUT), models=models, options=[*ODD, *TWO, "--trainer.max_epochs", "1"])
    (tmp_path / "program.py").write_text(program, encoding="utf-8")
    done = subprocess.run([sys.executable, "program.py"], cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    for model in models:
        run, one = tmp_path / model, tmp_path / f"{model}-one"
        two = metrics(run)
        assert two["record"]["devices"] == 2
        assert all(sum(map(sum, matrix)) == 33 for matrix in two["confusion"].values())
        words = ["test", "--model", model, *ODD, "--ckpt_path", str(best(run)), "--run_dir", str(one)]
        assert main([*words, "--trainer.accelerator", "cpu"]) == 0
        assert metrics(one)["confusion"] == two["confusion"]
        answered = [(folder / "predictions.csv").read_text(encoding="utf-8").splitlines() for folder in (run, one)]
        assert [line.split(",")[:5] for line in answered[0]] == [line.split(",")[:5] for line in answered[1]]


def test_two_devices_predict_each_row_once(tmp_path: Path) -> None:
    run = fit(tmp_path / "run", *SMALL)
    words = ["predict", "--model", "IFMMIN", *SMALL, "--ckpt_path", str(best(run)), "--output"]
    assert main([*words, str(tmp_path / "one.csv")]) == 0
    done = fresh(*words, "two.csv", *TWO, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    one, two = ((tmp_path / name).read_text(encoding="utf-8").splitlines() for name in ("one.csv", "two.csv"))
    assert [line.split(",")[:5] for line in one] == [line.split(",")[:5] for line in two]
    assert len(one) == 1 + 12 * 7
