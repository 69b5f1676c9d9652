"""SIGINT, SIGTERM and lost processes: one line, the right exit code, and nothing is left running."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment

from ifmmin.cli import ranks
from ifmmin.cli.main import main
from tests.benchmarks.leaderboard.small_board import CHOICE, WORDS, descendants
from tests.cli.running import CHECKOUT, SMALL, fresh, metrics

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
WORDS_OF = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
BOTH = pytest.mark.parametrize("signum", [*CODES], ids=lambda each: signal.Signals(each).name)

# A program of ours that loads no PyTorch; DO is what it does.
PROGRAM = """
import os, signal, subprocess, sys, time, threading
from ifmmin.cli import ranks, stopping
signum = int(sys.argv[1])
def stop():
    os.kill(os.getpid(), signum)
def command():
    {do}
    return 0
raise SystemExit(ranks.program(command))
"""


def python(do: str, signum: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
    program = PROGRAM.format(do=do.replace("\n", "\n    "))
    variables = {name: value for name, value in os.environ.items() if "RANK" not in name}
    return subprocess.run(
        [sys.executable, "-c", program, str(int(signum))],
        env=variables | {"PYTHONPATH": str(CHECKOUT)} | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


def line_of(done: subprocess.CompletedProcess[str]) -> str:
    (line,) = done.stderr.splitlines()
    return line


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (None, "nothing was begun; the same command starts again"),
        ([], "nothing was begun; the same command starts again"),
        (["config.yaml"], "go on with: fit --resume RUN"),
        (["config.yaml", "metrics.json"], "the run is finished: RUN/metrics.json"),
    ],
    ids=["no folder", "empty folder", "begun", "finished"],
)
@BOTH
def test_the_line_says_how_to_go_on(signum: int, files: list[str] | None, expected: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    if files is not None:
        run.mkdir()
        for name in files:
            (run / name).touch()
    shared = {} if files is None else {"IFMMIN_RUN_DIR": str(run)}
    done = python("stop(); time.sleep(30)", signum, **shared)
    assert done.returncode == CODES[signal.Signals(signum)]
    assert line_of(done) == f"{WORDS_OF[signal.Signals(signum)]}; {expected.replace('RUN', str(run))}"


def test_a_folder_with_blanks_and_escapes_is_named_so_that_the_line_can_be_pasted(tmp_path: Path) -> None:
    for name, shown in (("my run", "'my run'"), ("a\x1b[2Jb", r"a\x1b[2Jb")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").touch()
        line = line_of(python("stop(); time.sleep(30)", signal.SIGTERM, IFMMIN_RUN_DIR=str(tmp_path / name)))
        assert line.isprintable()
        assert shown.strip("'") in line


@pytest.mark.parametrize(
    "do",
    [
        "try:\n    stop(); time.sleep(30)\nexcept BaseException:\n    time.sleep(30)",
        "class A:\n    def __del__(self):\n        stop(); time.sleep(30)\nA(); time.sleep(30)",
        "import hashlib; threading.Timer(0.1, stop).start(); hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)",
        "stopping._PATIENCE = 0.2; stopping.at_stop.append(lambda: time.sleep(30)); stop(); time.sleep(30)",
        "stopping.at_stop.append(lambda: 1 / 0); stop(); time.sleep(30)",
        "stopping.at_stop.append(lambda: sys.exit(0)); stop(); time.sleep(30)",
        "sys.stdout.close(); stop(); time.sleep(30)",
        "threading.Thread(target=stop).start(); time.sleep(30)",
    ],
    ids=[
        "caught",
        "in __del__",
        "in C",
        "a hanging logger",
        "a failing logger",
        "an exiting logger",
        "no stdout",
        "from a thread",
    ],
)
def test_a_signal_is_never_swallowed(do: str) -> None:
    began = time.monotonic()
    done = python(do, signal.SIGINT)
    assert done.returncode == 130
    assert line_of(done).startswith("interrupted; nothing was begun")
    assert time.monotonic() - began < 15


def test_a_second_signal_does_not_wait_for_loggers() -> None:
    began = time.monotonic()
    done = python("stopping.at_stop.append(lambda: (stop(), time.sleep(30))); stop(); time.sleep(30)", signal.SIGTERM)
    assert done.returncode == 143
    assert time.monotonic() - began < 4


def test_what_was_printed_before_is_kept() -> None:
    done = python("print('epoch 1', end=''); stop(); time.sleep(30)", signal.SIGTERM)
    assert done.stdout == "epoch 1"


def test_an_ignored_signal_stays_ignored() -> None:
    program = "import signal, sys, runpy; signal.signal(2, signal.SIG_IGN); from ifmmin.cli import ranks; import os\n"
    program += (
        "def command():\n    os.kill(os.getpid(), 2); print('went on'); return 0\nsys.exit(ranks.program(command))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=CHECKOUT, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "went on\n", "")


def test_a_forked_worker_ends_without_a_word() -> None:
    do = "child = os.fork()\nif child == 0: stop(); time.sleep(30)\nprint(os.waitpid(child, 0)[1] >> 8)"
    done = python(do, signal.SIGTERM)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "143", "")


def test_further_ranks_are_silent() -> None:
    for name in ("RANK", "SLURM_PROCID"):
        done = python("stop(); time.sleep(30)", signal.SIGTERM, **{name: "1"})
        assert (done.returncode, done.stderr) == (143, "")


@BOTH
def test_the_script_is_stopped_before_ifmmin_is_imported(signum: int) -> None:
    program = (
        "import os, runpy, sys, time\n"
        "class Finder:\n"
        "    def find_spec(self, name, *rest):\n"
        f"        if name.startswith('ifmmin'): os.kill(os.getpid(), {int(signum)}); time.sleep(30)\n"
        "sys.meta_path.insert(0, Finder())\n"
        f"runpy.run_path({str(CHECKOUT / 'cli.py')!r}, run_name='__main__')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == CODES[signal.Signals(signum)]
    assert line_of(done) == "stopped; nothing was begun"


def test_a_host_program_keeps_its_handlers(capsys: pytest.CaptureFixture[str]) -> None:
    before = [signal.getsignal(each) for each in CODES]
    assert main(["fit"]) == 1
    assert [signal.getsignal(each) for each in CODES] == before
    assert "--model is needed" in capsys.readouterr().err


@BOTH
def test_no_empty_folder_is_left(signum: int, tmp_path: Path) -> None:
    do = "from pathlib import Path\nfrom ifmmin import runs\n"
    do += f"runs.share_run_dir(runs.new_run_dir(Path({str(tmp_path / 'runs' / 'fold1')!r})))\nstop(); time.sleep(30)"
    done = python(do, signum)
    assert line_of(done) == f"{WORDS_OF[signal.Signals(signum)]}; nothing was begun; the same command starts again"
    assert not list(tmp_path.iterdir())


# SLURM's warning that a job's time is nearly up.

GO_ON = "nothing was begun; the same command starts again"
SCONTROL = [
    (None, "not put back into the queue, as there is no scontrol; "),
    ("exit 0", "job 12 is put back into the queue; "),
    ("kill -TERM $PPID; sleep 0.2", "job 12 is put back into the queue; "),
    ("echo 'Invalid job id' >&2; exit 1", "not put back into the queue (Invalid job id); "),
    ("printf '\\033[2J' >&2; exit 1", r"not put back into the queue (\x1b[2J); "),
]


def slurm(tmp_path: Path, script: str | None, **more: str) -> dict[str, str]:
    """The environment of a job, with an scontrol that does this, or without one."""
    (tmp_path / "bin").mkdir()
    if script is not None:
        tool = tmp_path / "bin" / "scontrol"
        tool.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n{script}\n', encoding="utf-8")
        tool.chmod(0o755)
    return {"SLURM_JOB_ID": "12", "PATH": f"{tmp_path}/bin:/usr/bin:/bin"} | more


@pytest.mark.skipif(shutil.which("scontrol") is not None, reason="a cluster's scontrol is here")
@pytest.mark.parametrize(("script", "expected"), SCONTROL)
def test_a_job_is_put_back_into_the_queue(script: str | None, expected: str, tmp_path: Path) -> None:
    done = python("stop(); time.sleep(30)", signal.SIGUSR1, **slurm(tmp_path, script))
    assert done.returncode == 138
    assert line_of(done) == f"time is nearly up; {expected}{GO_ON}"
    assert script is None or (tmp_path / "asked").read_text() == "requeue 12\n"


def test_one_of_an_array_of_jobs_is_put_back(tmp_path: Path) -> None:
    environment = slurm(tmp_path, "exit 0", SLURM_ARRAY_JOB_ID="7", SLURM_ARRAY_TASK_ID="3")
    done = python("stop(); time.sleep(30)", signal.SIGUSR1, **environment)
    assert line_of(done).startswith("time is nearly up; job 7_3 is put back")
    assert (tmp_path / "asked").read_text() == "requeue 7_3\n"


def test_one_process_of_a_job_puts_it_back(tmp_path: Path) -> None:
    environment = slurm(tmp_path, "exit 0", SLURM_PROCID="1")
    done = python("stop(); time.sleep(30)", signal.SIGUSR1, **environment)
    assert (done.returncode, done.stderr) == (138, "")
    assert not (tmp_path / "asked").exists()


def test_a_child_that_was_warned_first(tmp_path: Path) -> None:
    do = CHILD.format(code="import os; os._exit(138)") + "time.sleep(30)"
    done = python(do, 0, **slurm(tmp_path, "exit 0"))
    assert done.returncode == 138
    assert line_of(done) == f"time is nearly up; job 12 is put back into the queue; {GO_ON}"


def test_without_slurm_the_signal_is_anybodys() -> None:
    done = python("stop(); time.sleep(30)", signal.SIGUSR1)
    assert (done.returncode, done.stderr) == (-signal.SIGUSR1, "")


def test_lightning_leaves_the_warning_to_us(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TORCHELASTIC_RUN_ID", "SLURM_JOB_NAME", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)
    assert ranks.without_requeue([]) == []
    monkeypatch.setenv("SLURM_NTASKS", "1")
    (ours,) = ranks.without_requeue([])
    assert isinstance(ours, SLURMEnvironment) and not ours.auto_requeue
    own = SLURMEnvironment(auto_requeue=True)
    assert ranks.without_requeue([own]) == [own]
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    assert ranks.without_requeue([]) == []


IN_SLURM = {"SLURM_NTASKS": "1", "SLURM_JOB_NAME": "train", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
IN_SLURM |= {"SLURM_NODEID": "0", "SLURM_NODELIST": "127.0.0.1", "SLURM_NNODES": "1"}


@pytest.mark.slow
@pytest.mark.parametrize("place", ["stage 1", "stage 2"])
def test_a_job_that_was_put_back_goes_on_by_the_same_words(place: str, tmp_path: Path) -> None:
    hook, where, epoch = PLACES[place]
    run = tmp_path / "run"
    words = ["fit", "--model", "MMIN", "--run_dir", str(run), "--trainer.max_epochs", "3", *SMALL]
    prelude = AT.format(hook=hook, where=where, epoch=epoch, signum=int(signal.SIGUSR1))
    environment = slurm(tmp_path, "exit 0") | IN_SLURM
    done = fresh(*words, cwd=tmp_path, prelude=prelude, **environment)
    assert done.returncode == 138
    go_on = f"go on with: fit --resume {run}"
    assert line_of(done) == f"time is nearly up; job 12 is put back into the queue; {go_on}"
    assert not list(run.rglob("hpc_ckpt*"))
    again = fresh(*words, cwd=tmp_path, **environment, SLURM_RESTART_COUNT="1")
    assert again.returncode == 0, again.stderr
    assert place == "stage 1" or metrics(run)["record"]["resumed_after_epochs"] == [1]


# Lost processes, without PyTorch.

CHILD = "child = subprocess.Popen([sys.executable, '-c', {code!r}])\nranks.watch([child])\n"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import os; os.kill(os.getpid(), 9)", "rank 1 of 2 was lost (killed by SIGKILL)"),
        ("import os; os.kill(os.getpid(), 11)", "rank 1 of 2 was lost (killed by SIGSEGV)"),
        ("import os; os.kill(os.getpid(), 15)", "rank 1 of 2 was lost (killed by SIGTERM)"),
        ("import os; os._exit(143)", "rank 1 of 2 was lost (killed by SIGTERM)"),
        ("import os; os._exit(7)", "rank 1 of 2 was lost (exit code 7)"),
    ],
)
def test_a_lost_child_ends_the_program(code: str, expected: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").touch()
    done = python(CHILD.format(code=code) + "time.sleep(30)", IFMMIN_RUN_DIR=str(tmp_path))
    assert done.returncode == 1
    assert line_of(done) == f"error: {expected}; go on with: fit --resume {tmp_path}"


def test_a_child_that_has_said_its_error_is_not_said_again() -> None:
    code = "import os; os.write(2, b'error: from rank 1\\n'); os._exit(3)"
    done = python(CHILD.format(code=code) + "time.sleep(30)")
    assert (done.returncode, done.stderr) == (1, "error: from rank 1\n")


@pytest.mark.parametrize(
    ("do", "expected"),
    [
        ("return 1", 1),
        ("stop(); time.sleep(30)", 143),
        ("time.sleep(0.1); os.kill(os.getpid(), 15); time.sleep(9)", 143),
    ],
)
def test_children_end_with_their_program(do: str, expected: int) -> None:
    done = python(
        "child = subprocess.Popen(['sleep', '60'])\nprint(child.pid, flush=True)\nranks.watch([child])\n" + do, 15
    )
    assert done.returncode == expected
    for _ in range(50):
        if not _runs(int(done.stdout)):
            return
        time.sleep(0.1)
    raise AssertionError("the child still runs")


def _runs(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().split()[2] != "Z"


@pytest.mark.parametrize("rank", ["1", "2"])
def test_a_lost_main_ends_its_children_with_one_line(rank: str) -> None:
    do = "print(os.getpid(), flush=True); time.sleep(30)"
    done = python(do, LOCAL_RANK=rank, IFMMIN_MAIN_PROCESS="1")
    assert done.returncode == 1
    expected = ["error: rank 0 was lost; nothing was begun; the same command starts again"] if rank == "1" else []
    assert done.stderr.splitlines() == expected


# Training, stopped at a named place of a real run.

AT = """
import os
from lightning.pytorch import callbacks
from lightning.pytorch.callbacks import Callback
from ifmmin.cli.memory import MemoryCap
def stop(self, trainer, module, *rest):
    if {where} and trainer.current_epoch >= {epoch}:
        os.kill(os.getpid(), {signum})
MemoryCap.{hook} = stop
"""
PLACES = {
    "stage 1": ("on_train_batch_end", "module.log_prefix", 1),
    "stage 2": ("on_train_batch_end", "not module.log_prefix", 1),
    "validation": ("on_validation_batch_end", "not module.log_prefix", 1),
    "while a checkpoint is written": ("on_save_checkpoint", "not module.log_prefix", 1),
    "final test": ("on_test_batch_end", "True", 0),
}


@BOTH
@pytest.mark.parametrize("place", [pytest.param(each, marks=pytest.mark.slow) for each in PLACES])
def test_a_stopped_fit_goes_on(place: str, signum: int, tmp_path: Path) -> None:
    hook, where, epoch = PLACES[place]
    run = tmp_path / "run"
    words = ["fit", "--model", "IFMMIN", "--run_dir", str(run), "--trainer.max_epochs", "3", *SMALL]
    prelude = AT.format(hook=hook, where=where, epoch=epoch, signum=int(signum))
    done = fresh(*words, cwd=tmp_path, prelude=prelude)
    assert done.returncode == CODES[signal.Signals(signum)], done.stderr
    assert line_of(done) == f"{WORDS_OF[signal.Signals(signum)]}; go on with: fit --resume {run}"
    assert not (run / "metrics.json").exists()
    assert main(["fit", "--resume", str(run)]) == 0
    assert metrics(run)["confusion"]


TWO = ["--trainer.accelerator", "cpu", "--trainer.devices", "2", "--trainer.strategy", "ddp"]


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM], ids=["SIGKILL", "SIGTERM"])
def test_a_lost_rank_of_a_fit(rank: int, signum: int, tmp_path: Path) -> None:
    run = tmp_path / "run"
    where = f"trainer.global_rank == {rank}"
    prelude = AT.format(hook="on_train_batch_end", where=where, epoch=1, signum=int(signum))
    words = ["fit", "--model", "MeanFusion", "--run_dir", str(run), "--trainer.max_epochs", "3", *SMALL, *TWO]
    done = fresh(*words, cwd=tmp_path, prelude=prelude)
    go_on = f"go on with: fit --resume {run}"
    if rank:
        assert done.returncode == 1
        assert line_of(done) == f"error: rank 1 of 2 was lost (killed by {signal.Signals(signum).name}); {go_on}"
    elif signum == signal.SIGTERM:
        assert (done.returncode, line_of(done)) == (143, f"terminated; {go_on}")
    else:
        assert (done.returncode, line_of(done)) == (-9, f"error: rank 0 was lost; {go_on}")
    assert fresh("fit", "--resume", str(run), cwd=tmp_path).returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("ranks", ["== 1", "== 0", ">= 0"], ids=["rank 1", "rank 0", "both"])
def test_an_error_of_a_rank_is_said_once(ranks: str, tmp_path: Path) -> None:
    prelude = (
        "from ifmmin.cli.memory import MemoryCap\nfrom datamodules.errors import InputError\n"
        "def fail(self, trainer, *rest):\n"
        f"    if trainer.global_rank {ranks}: raise InputError('utterance 7 is wrong')\n"
        "MemoryCap.on_train_batch_end = fail"
    )
    words = [
        "fit",
        "--model",
        "MeanFusion",
        "--run_dir",
        str(tmp_path / "run"),
        "--trainer.max_epochs",
        "2",
        *SMALL,
        *TWO,
    ]
    done = fresh(*words, cwd=tmp_path, prelude=prelude)
    assert (done.returncode, line_of(done)) == (1, "error: utterance 7 is wrong")


@pytest.mark.slow
@BOTH
def test_a_stopped_board_keeps_what_is_done(signum: int, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.leaderboard", *WORDS, *CHOICE, "--board", str(tmp_path / "board")]
    process = subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not (running := descendants(process.pid)) and process.poll() is None:
        time.sleep(0.1)
    process.send_signal(signum)
    _, err = process.communicate(timeout=60)
    assert process.returncode == CODES[signal.Signals(signum)]
    assert err == f"{WORDS_OF[signal.Signals(signum)]}; what is done is kept; the same command goes on\n"
    within = time.monotonic() + 20  # a run that has just begun must first be Python
    while any(map(_runs, running)) and time.monotonic() < within:
        time.sleep(0.1)
    assert not [pid for pid in running if _runs(pid)]
