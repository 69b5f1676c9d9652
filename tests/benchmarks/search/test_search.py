"""Real searches on a very small built-in corpus: killed, gone on with, on a cluster, and what becomes of the best."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.benchmarks.leaderboard.small_board import descendants
from tests.cli.running import CHECKOUT, metrics

pytestmark = pytest.mark.slow

WORDS = ["--data", "Synthetic", "--data.utterances_per_speaker", "12", "--trainer.max_epochs", "3", "--trials", "4"]
OUTSIDE = ("seconds",)


def start(folder: Path, *words: str, model: str = "ModalityDropout") -> subprocess.Popen[str]:
    """Begin a search in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.search", "--model", model, *WORDS, "--folder", str(folder), *words]
    return subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def run(folder: Path, *words: str, model: str = "ModalityDropout") -> str:
    """Search to the end; what was printed."""
    process = start(folder, *words, model=model)
    printed, _ = process.communicate(timeout=600)
    assert process.returncode == 0, printed
    return printed


def trials(folder: Path) -> list[dict[str, str]]:
    """All trials, without what a clock wrote."""
    with (folder / "trials.csv").open(encoding="utf-8", newline="") as file:
        return [{name: cell for name, cell in line.items() if name not in OUTSIDE} for line in csv.DictReader(file)]


def wait_for(what: Callable[[], bool], seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("searches") / "whole"
    assert "tested once" in run(folder)
    return folder


def test_the_best_configuration_is_one_that_fit_takes(whole: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "cli.py",
        "fit",
        "--config",
        str(whole / "best.yaml"),
        "--run_dir",
        str(tmp_path / "run"),
    ]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    best = max((line for line in trials(whole) if line["validation"]), key=lambda line: float(line["validation"]))
    found = metrics(tmp_path / "run")
    assert found["monitor"]["value"] == float(best["validation"])
    tested = json.loads((whole / "test.json").read_text(encoding="utf-8"))
    assert tested["trial"] == int(best["trial"])
    assert tested["scores"]["best"] == {row: found["metrics"][row]["UA"] for row in ("pooled", "avt")}
    # As if nobody had searched.
    assert found["record"]["config"]["data"]["init_args"]["withhold_test"] is False
    assert not found["record"]["config"]["trainer"]["callbacks"]


def test_killed_and_gone_on_with_it_is_the_same_search(whole: Path, tmp_path: Path) -> None:
    killed = tmp_path / "killed"
    process = start(killed)
    wait_for(lambda: any((killed / "trials" / "0001").rglob("last.ckpt")) or process.poll() is not None)
    children = descendants(process.pid)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert children
    wait_for(lambda: not any(Path(f"/proc/{child}").exists() for child in children), seconds=20)
    with (killed / "journal.log").open("ab") as file:
        file.write(b'{"op_code":6,"wor')  # as if it had been killed while it wrote
    printed = run(killed)
    assert "1 of 4 trials done" in printed and "trial 0:" not in printed
    assert trials(killed) == trials(whole)
    assert (killed / "test.json").read_bytes() == (whole / "test.json").read_bytes()


def test_a_signal_ends_it_with_one_line(tmp_path: Path) -> None:
    process = start(tmp_path / "search")
    wait_for(lambda: any((tmp_path / "search" / "trials").rglob("config.yaml")) or process.poll() is not None)
    process.terminate()
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 143
    assert printed.strip().splitlines()[-1] == "terminated; what is done is kept; the same command goes on"
    assert "failed" not in printed


def test_two_at_once_do_the_same_number_of_trials(tmp_path: Path) -> None:
    run(tmp_path / "search", "--jobs", "2", "--no-test")
    assert len([line for line in trials(tmp_path / "search") if line["state"] in ("done", "pruned")]) == 4


def test_a_model_with_a_stage_1_trains_it_once(tmp_path: Path) -> None:
    printed = run(tmp_path / "search", "--trials", "2", model="IFMMIN")
    assert "tested once" in printed
    assert len(list((tmp_path / "search" / "stage1").rglob("metrics.json"))) == 1
    for path in (tmp_path / "search").rglob("metrics.json"):  # the split is read in the test's own folders only
        tested = (tmp_path / "search" / "test") in path.parents
        assert metrics(path.parent)["split"] == ("test" if tested else "val"), path


@pytest.fixture
def ray_cluster() -> Iterator[None]:
    ray = pytest.importorskip("ray", reason="Ray is not installed; pip install 'ifmmin[ray]'")
    yield
    ray.shutdown()


def test_a_ray_cluster_gives_the_same_search(whole: Path, tmp_path: Path, ray_cluster: None) -> None:
    run(tmp_path / "search", "--cluster", "ray")
    assert trials(tmp_path / "search") == trials(whole)
