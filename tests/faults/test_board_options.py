"""Words given to the board that it cannot do: one line before anything is run or written."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.leaderboard.__main__ import main
from benchmarks.leaderboard.plan import chosen_models, make_jobs, sort_settings
from benchmarks.leaderboard.records import RECORDS, Record, append, read_lines
from benchmarks.leaderboard.running import _last_words
from datamodules.errors import InputError
from datamodules.text import printable
from ifmmin.discovery import discover_models
from tests.benchmarks.leaderboard.boards import board_records
from tests.cli.running import CHECKOUT
from tests.faults.cases import judged

PROJECT = "a project's name has 1 to 128 letters"
WORDS: list[tuple[list[str], str]] = [
    (["--folds", "0"], "--folds 0: Synthetic has folds 1..5"),
    (["--folds", "-1"], "--folds -1: Synthetic has folds 1..5"),
    (["--folds", "x"], "--folds x: Synthetic has folds 1..5"),
    (["--folds", "1", "6"], "--folds 6: Synthetic has folds 1..5"),
    (["--folds", "1.0"], "--folds 1.0"),
    (["--folds", "all", "1"], "--folds all"),
    (["--folds", "9" * 5000], "--folds 999"),
    (["--folds", "\x1b[2J"], "\\x1b[2J"),
    (["--folds"], "argument --folds: expected at least one argument"),
    (["--seeds", "0"], "--seeds 0: it must be at least 1"),
    (["--seeds", "-1"], "--seeds -1: it must be at least 1"),
    (["--seeds", "x"], "argument --seeds: invalid int value: 'x'"),
    (["--seeds", "1000000000"], "--seeds 1000000000: it must be at least 1 and at most 10000"),
    (["--jobs", "0"], "--jobs 0: it must be at least 1"),
    (["--jobs", "-1"], "--jobs -1: it must be at least 1"),
    (["--jobs", "1.5"], "argument --jobs: invalid int value"),
    (["--jobs", "100000"], "at most 1024"),
    (["--threads", "0"], "--threads 0: it must be at least 1"),
    (["--gpus", "nan"], "--gpus nan: it must be at least 0"),
    (["--gpus", "-1"], "--gpus -1.0: it must be at least 0"),
    (["--cluster", "slurm"], "argument --cluster: invalid choice: 'slurm'"),
    (["--job", "2"], "--job: not known"),
    (["--models", "MMINN"], "Did you mean MMIN?"),
    (["--models", "all", "MMINN"], "Did you mean MMIN?"),
    (["--models", "imaginations"], "model or group 'imaginations' is not known. Did you mean imagination?"),
    (["--models", "seed"], "Did you mean seeds?"),
    (["--models", "pretraining"], "model or group 'pretraining' is not known"),
    (["--models", "seeds", "--reference", "EMT"], "--reference EMT: not among the models, "),
    (["--models", "nowhere.Mine"], "model nowhere.Mine: cannot be imported"),
    (["--models", "os.path"], "not a subclass of MissingModalityModule"),
    (["--models", "torch.nn.Linear"], "not a subclass of MissingModalityModule"),
    (["--models", "a\x1b[2Jb"], "x1b[2Jb' is not known"),
    (["--models", "MMIN", "--reference", "MCTN"], "--reference MCTN: not among the models, MMIN"),
    (["--data", "IEMOCUP"], "corpus 'IEMOCUP' is not known"),
    (["--data", "nowhere.Six"], "corpus nowhere.Six: cannot be imported"),
    (["--data", "pathlib.Path"], "not a subclass of EmotionDataModule"),
    (["--data", "IEMOCAP", "--data.root", "/nowhere"], "/nowhere"),
    (["--data.fold", "2"], "--data.fold: the board sets it itself: the board runs all folds, or those of --folds"),
    (["--data.fold=2"], "the board runs all folds"),
    (["--data.seed", "2"], "the seeds of --seeds"),
    (["--seed_everything", "7"], "the seeds of --seeds"),
    (["--model", "MMIN"], "the models are those of --models"),
    (["--run_dir", "x"], "a folder of its own in --board"),
    (["--resume", "x"], "--resume: the board sets it itself: the same command goes on"),
    (["--test", "false"], "--test: the board sets it itself: every run is tested"),
    (["--intervals", "speakers"], "over folds and seeds"),
    (["--ckpt_path", "x.ckpt"], "each run starts anew"),
    (["--config", "x.yaml"], "--config: the board sets it itself: give options"),
    (["-c", "x.yaml"], "-c: the board sets it itself: give options"),
    (["--print_config"], "each run's config.yaml"),
    (
        ["--trainer.devices", "2"],
        "--trainer.devices 2: each run of a board is on one device; leave it out, and give --",
    ),
    (["--trainer.devices=0,1"], "--trainer.devices 0,1: each run of a board is on one device"),
    (["--trainer.devices"], "--trainer.devices: each run of a board is on one device"),
    (["--trainer.num_nodes", "2"], "--trainer.num_nodes 2: each run of a board is on one device"),
    (["--trainer.logger", "WandbLogger"], "see --wandb"),
    (["--trainer.logger.project", "x"], "see --wandb"),
    (["--trainer.logger+=CSVLogger"], "see --wandb"),
    (["--trainer.default_root_dir", "x"], "a folder of its own in --board"),
    (["--data.predict_split", "all"], "the test split"),
    (["--IFMIN.lambda_inv", "1"], "--IFMIN.lambda_inv: not known. Did you mean --IFMMIN.lambda_inv?"),
    (["--traner.max_epochs", "1"], "Did you mean --trainer.max_epochs?"),
    (["--nonsense"], "--nonsense: not known"),
    (["word"], "word: belongs to no option"),
    ([""], "an empty word: belongs to no option"),
    (["--data.nonsense", "1"], "nonsense"),
    (["--wandb", ""], PROJECT),
    (["--wandb", " "], PROJECT),
    (["--wandb", "a/b"], PROJECT),
    (["--wandb", "../../x"], PROJECT),
    (["--wandb", "a\nb"], PROJECT),
    (["--wandb", "x" * 300], PROJECT),
    (["--wandb", "50%"], PROJECT),
    (["--wandb"], "argument --wandb: expected one argument"),
]


@pytest.mark.parametrize(("words", "expected"), WORDS, ids=lambda part: printable(part, 50))
def test_words_the_board_cannot_do(
    words: list[str], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--board", str(tmp_path / "board")]) == 1
    assert expected in judged(capsys.readouterr().err)
    assert not (tmp_path / "board").exists()


# What `fit` refuses, refused before the first run.

OF_FIT: list[tuple[str, str]] = [
    ("--MMIN.nonsense 1", "--MMIN.nonsense is not known. See: fit --model.help MMIN."),
    ("--MMIN.nonsense=1 --MMIN.learning_rate 0.1", "--MMIN.nonsense is not known."),
    ("--MMIN.learning_rat 2", "--MMIN.learning_rat is not known. Did you mean --MMIN.learning_rate?"),
    ("--MMIN.learning_rate -1", "MMIN: learning_rate -1.0: it must be above 0."),
    ("--MMIN.batch_size x", "--MMIN.batch_size: Expected a int. Got value: x"),
    ("--MMIN.feature_dims 3", "--MMIN.feature_dims: follows the data and cannot be set."),
    ("--MMIN.pretraining.nonsense 1", "MMIN: pretraining 'nonsense': FusionPretraining has no such option."),
    ("--MMIN.pretraining.dropout 2", "MMIN: pretraining: FusionPretraining: dropout 2"),
    ("--MMIN.pretrained nowhere.ckpt", "MMIN: nowhere.ckpt: there is no such checkpoint file."),
    ("--MMIN.lambda_cycle much", "--MMIN.lambda_cycle: Expected a float"),
    ("--model.lambda_cycle 1 --models MMIN MeanFusion", "MeanFusion: --model.lambda_cycle is not known."),
    ("--model.learning_rate 0", "MMIN: learning_rate 0.0: it must be above 0."),
    ("--trainer.max_epoch 2", "--trainer.max_epoch is not known. Did you mean --trainer.max_epochs?"),
    ("--trainer.max_epochs x", "--trainer.max_epochs: Expected a int. Got value: x"),
    ("--trainer.max_epochs 0", "--trainer.max_epochs 0: trains nothing"),
    ("--trainer.accelerator quantum", "--trainer.accelerator quantum: not known"),
    ("--trainer.limit_val_batches 0.01", "--trainer.limit_val_batches 0.01: less than one of the 1 batch(es)"),
    ("--trainer.val_check_interval 99", "--trainer.val_check_interval 99: more than the 1 batch(es) of an epoch"),
    ("--trainer.callbacks+=EarlyStoping", "there is no class EarlyStoping. Did you mean EarlyStopping?"),
]


@pytest.mark.parametrize(("words", "expected"), OF_FIT, ids=[words for words, _ in OF_FIT])
def test_settings_that_every_run_would_refuse(
    words: str, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    models = [] if "--models" in words else ["--models", "MMIN"]
    assert main([*BOARD, *models, *words.split(), "--board", "board"]) == 1
    assert expected in judged(capsys.readouterr().err)
    assert not list(tmp_path.iterdir())


BOARD = ("--data.utterances_per_speaker", "12", "--folds", "1", "--seeds", "1")
SMALL = (*BOARD, "--models", "MMIN", "--report")


@pytest.mark.parametrize("place", ["/proc/board", "a file", "/dev/null/board", "NUL\0"])
def test_a_board_where_nothing_can_be_written(place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if place == "a file":
        (tmp_path / "file").touch()
        place = str(tmp_path / "file")
    assert main([*SMALL, "--board", place]) == 1
    line = judged(capsys.readouterr().err)
    assert place in line or "null" in line


def test_a_full_disk_names_the_records_and_keeps_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = Record.from_json(board_records(["M"], [1], [0])[0])
    append(tmp_path / RECORDS, record)

    def full(number: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=RECORDS):
        append(tmp_path / RECORDS, record)
    assert read_lines(tmp_path / RECORDS) == ([record], {})


def test_a_terminal_without_the_letters_of_a_name(tmp_path: Path) -> None:
    board = tmp_path / "börd ─"
    board.mkdir()
    (board / RECORDS).write_text("torn\n", encoding="utf-8")
    command = [sys.executable, "-m", "benchmarks.leaderboard", *SMALL, "--board", str(board)]
    variables = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, cwd=CHECKOUT, env=variables, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert r"b\xf6rd \u2500/records.jsonl line 1: " in done.stdout


def test_one_device_may_be_said() -> None:
    words = ["--trainer.devices", "1", "--trainer.num_nodes=1", "--trainer.strategy", "auto"]
    assert sort_settings(words, {}).trainer[0] == ("--trainer.devices", "1")
    assert sort_settings(["--trainer.devices=auto"], {}).trainer == (("--trainer.devices", "auto"),)


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        (b"epoch 1\nerror: \x1b[2Jno such file\nresume: fit\n", "\\x1b[2Jno such file (exit code 1;"),
        (b"Traceback\n  File x\nValueError: 3\n\n", "ValueError: 3 (exit code 1;"),
        (b"", "no word (exit code 1;"),
        (b"\xff" * 1_000_000, "(exit code 1;"),
    ],
    ids=["an error", "a traceback", "nothing", "no text"],
)
def test_a_run_that_fails_says_why_in_one_line(log: bytes, expected: str, tmp_path: Path) -> None:
    (tmp_path / "output.log").write_bytes(log)
    line = _last_words(tmp_path / "output.log", 1)
    assert expected in line and line.isprintable() and len(line) < 1000


def test_temporaries_of_a_killed_board_are_swept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    left = tmp_path / ".ifmmin-leaderboard.xyz.html"
    left.write_text("<half", encoding="utf-8")
    assert main([*SMALL, "--board", str(tmp_path)]) == 0
    assert not left.exists()


@pytest.fixture
def own_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A model and a corpus in a module of the current folder."""
    source = "from baselines import MeanFusion\nfrom datamodules import Synthetic\n"
    source += "class Mine(MeanFusion):\n    '''A model.'''\nclass Six(Synthetic):\n    '''A corpus.'''\n"
    (tmp_path / "tokens_of_mine.py").write_text(source, encoding="utf-8")
    (tmp_path / "twins_of_mine.py").write_text(source, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield
    for name in ("tokens_of_mine", "twins_of_mine"):
        sys.modules.pop(name, None)


def test_class_paths_of_models_and_corpora(own_classes: None) -> None:
    models = chosen_models(["tokens_of_mine.Mine", "MMIN"], discover_models())
    assert list(models) == ["Mine", "MMIN"]
    words = ["--data", "tokens_of_mine.Six", "--Mine.learning_rate", "1"]
    jobs = make_jobs(models, sort_settings(words, models), {1: "data"}, [0], threads=1)
    assert [(job.name, job.model) for job in jobs] == [("Mine", "tokens_of_mine.Mine"), ("MMIN", "MMIN")]
    assert jobs[0].words[-2:] == ("--model.learning_rate", "1") and "--model.learning_rate" not in jobs[1].words
    assert jobs[0].data == ("--data", "tokens_of_mine.Six")
    with pytest.raises(InputError, match="another model of the board is named Mine"):
        chosen_models(["tokens_of_mine.Mine", "twins_of_mine.Mine"], discover_models())


@pytest.mark.slow
def test_a_board_of_own_classes_runs(
    own_classes: None, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--models", "tokens_of_mine.Mine", "--data", "tokens_of_mine.Six", "--data.utterances_per_speaker", "12"]
    words += ["--trainer.max_epochs", "1", "--folds", "1", "--seeds", "1", "--board", str(tmp_path / "board")]
    monkeypatch.setenv("PYTHONPATH", str(CHECKOUT))
    assert main(words) == 0, capsys.readouterr().err
    (record,) = read_lines(tmp_path / "board" / RECORDS)[0]
    assert (record.model, record.origin) == ("Mine", "")
