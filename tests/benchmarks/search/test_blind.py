"""A trial does not see the test split: whatever is done to it, nothing of the trial changes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from benchmarks.leaderboard.plan import Job, sort_settings
from benchmarks.search.__main__ import fold_data
from benchmarks.search.objective import Plan, selected_score
from ifmmin.cli.main import main
from ifmmin.discovery import find_model
from tests.cli.running import best, metrics
from tests.faults.cases import judged

VALUES = {"model.learning_rate": 1e-3, "model.dropout": 0.2}


def corpus(folder: Path) -> list[str]:
    return ["--data", "Synthetic", "--data.root", str(folder), "--data.utterances_per_speaker", "12"]


def plan(folder: Path, model: str) -> Plan:
    settings = sort_settings([*corpus(folder), "--trainer.max_epochs", "2"], (), who="search")
    prints = {1: fold_data(settings, 1, withhold=True).fingerprint}
    return Plan(folder, model, find_model(model), settings, prints, range(1), threads=1, pruning=False)


def trial(folder: Path, run: Path, model: str = "ModalityDropout") -> Path:
    """Do the run of a trial in this process, stage 1 within it; its folder."""
    (job,) = plan(folder, model).jobs(VALUES, "trials/0000")
    words = ["fit", "--model", job.model, *job.words, *job.logging, "--data.fold", str(job.fold)]
    assert main([*words, "--seed_everything", str(job.seed), "--run_dir", str(run)]) == 0
    return run


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("blind") / "corpus"
    fold_data(sort_settings(corpus(root), ()), 1, withhold=True)
    return root


@pytest.fixture(scope="module")
def expected(written: Path) -> Path:
    return trial(written, written.parent / "expected")


def labels_removed(root: Path) -> None:
    (root / "target" / "1" / "tst_label.npy").unlink()


def everything_removed(root: Path) -> None:
    for path in (root / "target" / "1").glob("tst_*"):
        path.unlink()


def labels_corrupted(root: Path) -> None:
    path = root / "target" / "1" / "tst_label.npy"
    labels = np.load(path)
    np.save(path, np.roll(labels, 1, axis=-1) if labels.ndim > 1 else (labels + 1) % 4)


def frames_spoilt(root: Path) -> None:
    names = np.load(root / "target" / "1" / "tst_int2name.npy").ravel()
    with h5py.File(root / "A" / "audio.h5", "r+") as file:
        for name in names:
            key = name.decode() if isinstance(name, bytes) else str(name)
            file[key][...] = np.nan


SPOIL = [labels_removed, everything_removed, labels_corrupted, frames_spoilt]


@pytest.mark.parametrize("spoil", SPOIL, ids=[each.__name__ for each in SPOIL])
def test_its_score_is_the_same_bit_for_bit(
    spoil: Callable[[Path], None], written: Path, expected: Path, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(written, tmp_path / "corpus"))
    spoil(root)
    found = trial(root, tmp_path / "after")
    assert selected_score(found) == selected_score(expected)
    assert metrics(found)["validation"] == metrics(expected)["validation"]
    left, right = (torch.load(best(run), weights_only=True)["state_dict"] for run in (found, expected))
    assert all(torch.equal(left[name], right[name]) for name in right) and left.keys() == right.keys()
    assert metrics(found)["split"] == "val"


@pytest.mark.slow
def test_of_a_model_with_a_stage_1_too(written: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(written, tmp_path / "corpus"))
    everything_removed(root)
    scores = [selected_score(trial(place, tmp_path / place.parent.name, "IFMMIN")) for place in (written, root)]
    assert scores[0] == scores[1]


def test_its_score_is_that_of_a_plain_fit(written: Path, expected: Path, tmp_path: Path) -> None:
    words = ["fit", "--model", "ModalityDropout", *corpus(written), "--trainer.max_epochs", "2", "--data.fold", "1"]
    own = [f"--{name}={value!r}" for name, value in VALUES.items()]
    assert main([*words, *own, "--run_dir", str(tmp_path / "plain")]) == 0
    assert metrics(expected)["monitor"] == metrics(tmp_path / "plain")["monitor"]
    assert metrics(tmp_path / "plain")["split"] == "test"


def test_a_trial_that_would_test_is_refused(
    written: Path, expected: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs: list[Job] = plan(written, "ModalityDropout").jobs({}, "trials/0000")
    words = ["--model", "ModalityDropout", *jobs[0].words, "--data.fold", "1"]
    assert main(["fit", *words, "--run_dir", str(tmp_path / "run")]) == 1
    assert "withhold_test keeps the test split from being read" in judged(capsys.readouterr().err)
    assert not (tmp_path / "run").exists()
    assert main(["test", *words, "--ckpt_path", str(best(expected)), "--run_dir", str(tmp_path / "test")]) == 1
    assert "withhold_test keeps the test split from being read" in judged(capsys.readouterr().err)
