import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from benchmarks.leaderboard.__main__ import main, with_stage1
from benchmarks.leaderboard.plan import make_jobs, sort_settings
from benchmarks.leaderboard.records import RECORDS, read_records
from ifmmin.curves import CURVES
from ifmmin.discovery import discover_models
from tests.benchmarks.leaderboard.small_board import CHOICE, WORDS, descendants, results, run, start
from tests.cli.running import CHECKOUT, best, fit, metrics

MODELS = discover_models()


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("boards") / "whole"
    done = run(folder)
    assert done.returncode == 0, done.stdout
    assert "[3/3]" in done.stdout and "not a corpus result" in done.stdout
    return folder


def wait_for(what: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def test_a_record_is_what_a_fit_of_its_own_gives(board: Path, tmp_path: Path) -> None:
    mmin = read_records(board / RECORDS)[-1]
    assert mmin.model == "MMIN"
    alone = fit(tmp_path / "run", *WORDS[:4], model="MMIN", epochs=2)
    expected = metrics(alone)
    for name in ("metrics", "confusion", "corpus", "is_synthetic", "fold", "seed"):
        assert mmin.to_json()[name] == expected[name], name
    assert mmin.parameters == expected["record"]["parameters"]
    assert mmin.trained_on == expected["trained_on"] and mmin.origin == ""
    assert mmin.validation == expected["validation"] and mmin.selected == expected["monitor"]
    assert mmin.identity["data"] == expected["record"]["data_fingerprint"]
    # Bit for bit, although the board trained stage 1 in another process, for all models that share it.
    shared = torch.load(board / mmin.checkpoint, weights_only=True)["state_dict"]
    own = torch.load(best(alone), weights_only=True)["state_dict"]
    assert shared.keys() == own.keys() and all(torch.equal(shared[name], own[name]) for name in own)


def test_curves_without_anything_missing_are_the_complete_condition(board: Path) -> None:
    for record in read_records(board / RECORDS):
        assert ["modalities", *record.curves] == list(CURVES)
        for counts in (record.sweep, *record.curves.values()):
            assert counts["0.0"] == record.counts["avt"]
        assert record.curves["frames"]["1.0"] != record.counts["avt"]


def test_started_again_it_does_nothing_and_a_change_is_named(
    board: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (board / RECORDS).read_bytes()
    table = (board / "leaderboard.csv").read_bytes()
    assert main([*WORDS, *CHOICE, "--board", str(board)]) == 0
    assert (board / RECORDS).read_bytes() == before
    assert (board / "leaderboard.csv").read_bytes() == table
    assert "2 runs, 2 of them done already" in capsys.readouterr().out
    # Another configuration, asked for by itself: the old records are named, and none is mixed in.
    assert main([*WORDS[:-1], "5", *CHOICE, "--board", str(board), "--report"]) == 0
    printed = capsys.readouterr().out
    assert "not used: 1 record(s) of MMIN: config" in printed and "no run is recorded" in printed
    # Code that changed counts as well.
    monkeypatch.setattr("benchmarks.leaderboard.identity.code_version", lambda model, corpus: "another")
    assert main([*WORDS, *CHOICE, "--board", str(board), "--report"]) == 0
    assert "(now another)" in capsys.readouterr().out


def test_only_what_interrupted_runs_need_is_dropped(board: Path) -> None:
    assert not list(board.rglob("last.ckpt"))
    for record in read_records(board / RECORDS):
        assert (board / record.checkpoint).is_file()
        assert (board / record.run / "config.yaml").is_file()


def test_killed_and_continued_it_is_the_same_board(board: Path, tmp_path: Path) -> None:
    killed = tmp_path / "killed"
    process = start(killed)
    wait_for(lambda: any((killed / "runs").rglob("last.ckpt")) or process.poll() is not None)
    children = descendants(process.pid)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert children
    # Nobody waits for the runs any more, so they end too, instead of writing into the continued board.
    wait_for(lambda: not any(Path(f"/proc/{child}").exists() for child in children), seconds=20)
    assert len(read_records(killed / RECORDS)) < 2
    with (killed / RECORDS).open("ab") as file:
        file.write(b'{"model": "MMIN", "fold": 1')  # as if it had been killed while it wrote
    done = run(killed)
    assert done.returncode == 0, done.stdout
    assert "cut short by a kill" in done.stdout
    assert results(killed) == results(board)


def test_a_run_whose_board_is_gone_before_it_has_begun_ends(tmp_path: Path) -> None:
    words = ["-m", "benchmarks.leaderboard.running", "{}", str(tmp_path / "board"), "1"]  # 1 did not start it
    done = subprocess.run([sys.executable, *words], cwd=CHECKOUT, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")
    assert not (tmp_path / "board").exists()


def test_stages_1_stand_before_their_runs_and_a_cell_before(tmp_path: Path) -> None:
    models = {name: MODELS[name] for name in ("MMIN", "MMINWithoutCycle", "ModalityDropout")}
    jobs = make_jobs(models, sort_settings([], models), {1: "one", 2: "two"}, [0, 1], threads=1)
    names = [(job.name, job.fold, job.seed) for job in with_stage1(jobs, tmp_path)]
    runs = ["ModalityDropout", "MMIN", "MMINWithoutCycle"]
    cells = [(1, 0), (1, 1), (2, 0), (2, 1)]
    expected = [("FusionPretraining", 1, 0)]
    for cell, following in zip(cells, [*cells[1:], None], strict=True):
        expected += [("FusionPretraining", *following)] if following else []
        expected += [(name, *cell) for name in runs]
    assert names == expected


def test_where_stage_1_fails_its_runs_are_named_and_the_others_done(tmp_path: Path) -> None:
    done = run(tmp_path / "board", "--MMIN.pretraining.learning_rate", "1e30")
    assert done.returncode == 1 and "Traceback" not in done.stdout
    assert "failed: FusionPretraining fold 1 seed 0 (stage 1)" in done.stdout
    assert "not run, since FusionPretraining fold 1 seed 0 (stage 1) failed" in done.stdout
    assert [record.model for record in read_records(tmp_path / "board" / RECORDS)] == ["ModalityDropout"]


def test_one_run_that_fails_does_not_stop_the_others(tmp_path: Path) -> None:
    done = run(tmp_path / "board", "--MMIN.learning_rate", "1e30")
    assert done.returncode == 1
    assert "failed: MMIN fold 1 seed 0" in done.stdout and "the val loss is nan" in done.stdout
    assert "error: 1 run failed; the same command tries them again." in done.stdout
    assert [record.model for record in read_records(tmp_path / "board" / RECORDS)] == ["ModalityDropout"]
    assert "Traceback" not in done.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--models", "MMINN"], "Did you mean MMIN"),
        (["--folds", "9"], "has folds 1..5"),
        (["--seeds", "0"], "at least 1"),
        (["--data", "IEMOCAP", "--data.root", "/nowhere"], "/nowhere"),
        (["--models", "MMIN", "--reference", "MCTN"], "not among the models"),
        (["--trainer.logger", "WandbLogger"], "--wandb"),
    ],
)
def test_bad_input_is_one_line(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--board", str(tmp_path / "board")]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ") and message in line
    assert not (tmp_path / "board").exists()


@pytest.fixture
def ray_cluster() -> Iterator[None]:
    ray = pytest.importorskip("ray", reason="Ray is not installed; pip install 'ifmmin[ray]'")
    yield
    ray.shutdown()


def test_a_ray_cluster_gives_the_same_board(board: Path, tmp_path: Path, ray_cluster: None) -> None:
    done = run(tmp_path / "cluster", "--cluster", "ray")
    assert done.returncode == 0, done.stdout
    assert results(tmp_path / "cluster") == results(board)


@pytest.mark.slow
def test_a_dead_ray_worker_costs_its_run_only(board: Path, tmp_path: Path, ray_cluster: None) -> None:
    folder = tmp_path / "cluster"
    process = start(folder, "--cluster", "ray")
    wait_for(lambda: any((folder / "runs").rglob("config.yaml")) or process.poll() is not None)
    lost = next((folder / "runs").rglob("config.yaml")).parent
    os.kill(_worker_of(lost), signal.SIGKILL)
    printed, _ = process.communicate(timeout=300)
    assert process.returncode == 1, printed
    assert "its Ray worker died" in printed
    assert len(read_records(folder / RECORDS)) == 1, printed
    again = run(folder, "--cluster", "ray")
    assert again.returncode == 0, again.stdout
    assert results(folder) == results(board)


def _worker_of(run_folder: Path) -> int:
    """The Ray worker that waits for the process of a run."""
    for place in Path("/proc").glob("[0-9]*"):
        try:
            words = (place / "cmdline").read_bytes().decode(errors="replace").split("\0")
            parent = int((place / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            continue
        if "benchmarks.leaderboard.running" not in words:
            continue
        described, board = words[words.index("benchmarks.leaderboard.running") + 1 :][:2]
        job = json.loads(described)
        if run_folder.is_relative_to(board) and run_folder.name.startswith(f"{job['name']}-seed{job['seed']}-"):
            return parent
    raise AssertionError("no process runs it")
