"""What a program finds around it: closed streams, a deleted folder, variables of other processes, a full terminal."""

from __future__ import annotations

import errno
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from datamodules.files import write_text
from ifmmin.cli.failures import reported
from ifmmin.cli.main import main
from tests.cli.running import CHECKOUT, SMALL
from tests.faults.cases import judged, one_line

PROGRAM = """
import os, sys
from ifmmin.cli import ranks
def command():
    with open({path!r}, "wb") as file:
        file.write(b"whole")
        for number in (1, 2):
            os.write(number, b"noise")
        print("more noise", flush=True)
        print("an error", file=sys.stderr, flush=True)
        assert sys.stdin.read() == ""
    return 0
raise SystemExit(ranks.program(command))
"""


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams_lead_nowhere(closed: str, tmp_path: Path) -> None:
    path, program = tmp_path / "file", tmp_path / "program.py"
    program.write_text(PROGRAM.format(path=str(path)), encoding="utf-8")
    command = f"{shlex.quote(sys.executable)} {shlex.quote(str(program))} {closed}"
    environment = {"PYTHONPATH": str(CHECKOUT), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        command, shell=True, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert path.read_bytes() == b"whole"
    assert ("more noise" in done.stdout) == (">&-" not in closed.replace("2>&-", ""))
    assert ("an error" in done.stderr) == ("2>&-" not in closed)


def test_a_current_folder_that_was_deleted(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    command = f"rmdir {shlex.quote(str(gone))}; {shlex.quote(sys.executable)} {CHECKOUT}/cli.py fit --model IFMMIN"
    done = subprocess.run(command, shell=True, cwd=gone, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert judged(done.stderr) == "the current folder was deleted; go to another one."


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="no /dev/full")
def test_what_is_printed_to_where_there_is_no_space(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def command() -> int:
        print("a table", flush=True)
        return 0

    with Path("/dev/full").open("w", encoding="utf-8") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert reported(command) == 1
    assert judged(capsys.readouterr().err).startswith("standard output: No space left on device; see")


def test_a_file_that_cannot_be_made_is_named_and_not_its_temporary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*, dir: Any, prefix: str, suffix: str) -> None:
        raise OSError(errno.EROFS, "Read-only file system", f"{dir}/{prefix}xyz{suffix}")

    monkeypatch.setattr(tempfile, "mkstemp", refuse)
    with pytest.raises(OSError, match="Read-only file system") as caught:
        write_text(tmp_path / "report.json", "{}")
    assert caught.value.filename == str(tmp_path / "report.json")


VARIABLES: list[tuple[dict[str, str], str]] = [
    ({"RANK": "abc"}, "RANK=abc in the environment is no number; unset it."),
    ({"LOCAL_RANK": ""}, "LOCAL_RANK= in the environment is no number"),
    ({"WORLD_SIZE": "2.0"}, "WORLD_SIZE=2.0 in the environment is no number"),
    ({"NODE_RANK": "-1"}, "NODE_RANK=-1 in the environment is no number"),
    ({"MASTER_PORT": "\x1b[2J"}, r"MASTER_PORT=\x1b[2J in the environment is no number"),
    ({"SLURM_PROCID": "x"}, "SLURM_PROCID=x in the environment is no number"),
    ({"LOCAL_RANK": "1"}, "this is not the first process, but it is alone; unset LOCAL_RANK."),
    (
        {"RANK": "0", "WORLD_SIZE": "2"},
        "2 processes were started from outside, and each would be alone; give --trainer.",
    ),
    (
        {"RANK": "1", "WORLD_SIZE": "2"},
        "2 processes were started from outside, and each would be alone; give --trainer.",
    ),
]


@pytest.mark.parametrize(("variables", "expected"), VARIABLES, ids=lambda part: str(part)[:40])
def test_variables_of_other_processes(
    variables: dict[str, str],
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "NODE_RANK", "GROUP_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    words = ["fit", "--model", "MeanFusion", *SMALL, "--trainer.max_epochs", "1", "--run_dir", "run"]
    assert expected in one_line(capsys, words)
    assert not list(tmp_path.iterdir())


def test_a_process_that_is_told_of_itself_alone_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}.items():  # torchrun --nproc-per-node 1
        monkeypatch.setenv(name, value)
    words = ["fit", "--model", "MeanFusion", *SMALL, "--trainer.fast_dev_run", "true", "--run_dir", str(tmp_path / "r")]
    assert main(words) == 0
