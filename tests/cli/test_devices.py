"""Two processes on the CPU, talking through gloo."""

from __future__ import annotations

from pathlib import Path

from ifmmin.cli import main
from tests.cli.running import SMALL, best, fresh, metrics

TWO = ["--trainer.accelerator", "cpu", "--trainer.devices", "2", "--trainer.strategy", "ddp"]


def test_two_devices_train_and_count_every_utterance_once(tmp_path: Path) -> None:
    # 13 utterances a speaker: the test split of 13 does not divide by 2.
    small = ["--data.utterances_per_speaker", "13", "--data.eval_batch_size", "4"]
    words = ["--model", "IFMMIN", *small, "--trainer.max_epochs", "2", "--run_dir", "run", *TWO]
    done = fresh("fit", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "run"
    two = metrics(run)
    assert two["record"]["devices"] == 2
    assert all(sum(map(sum, matrix)) == 13 for matrix in two["confusion"].values())

    words = ["test", "--model", "IFMMIN", *small, "--ckpt_path", str(best(run)), "--run_dir", str(tmp_path / "one")]
    assert main([*words, "--trainer.accelerator", "cpu"]) == 0
    assert metrics(tmp_path / "one")["confusion"] == two["confusion"]


def test_two_devices_predict_each_row_once(tmp_path: Path) -> None:
    from tests.cli.running import fit

    run = fit(tmp_path / "run", *SMALL)
    words = ["predict", "--model", "IFMMIN", *SMALL, "--ckpt_path", str(best(run)), "--output"]
    assert main([*words, str(tmp_path / "one.csv")]) == 0
    done = fresh(*words, "two.csv", *TWO, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    one, two = ((tmp_path / name).read_text(encoding="utf-8").splitlines() for name in ("one.csv", "two.csv"))
    assert [line.split(",")[:5] for line in one] == [line.split(",")[:5] for line in two]
    assert len(one) == 1 + 12 * 7
