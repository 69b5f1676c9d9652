"""SIGINT and SIGTERM: a program of ours ends at once, with one line and exit code 130 or 143.

SLURM's SIGUSR1, its warning before the time is up, does the same with 138, and the job is put back into the queue.

The handler ends the process itself. An exception raised from it could be swallowed by whatever runs at that moment,
and nothing needs one: files are written whole or not at all, so that a run goes on after any kill.
"""

from __future__ import annotations

import math
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from datamodules.text import printable
from ifmmin import runs

SIGNALS = (signal.SIGINT, signal.SIGTERM)

_WARNING = getattr(signal, "SIGUSR1", None)  # as in sbatch --signal=USR1@90; Windows has none

_PATIENCE = 5.0  # seconds for loggers and callbacks to finish; some wait for a network

_HANDLER = 0.5  # seconds within which Python calls a handler, unless the main thread is in C++

_TWICE = 2.0  # seconds in which one signal may be seen twice

_WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated", _WARNING: "time is nearly up"}

_SCONTROL = 20.0  # seconds for SLURM to answer

at_stop: list[Callable[[], None]] = []
"""What is done before the process ends: ending child processes, finishing loggers."""


class _State:
    """The program that owns the handlers; another process has a copy after a fork."""

    pid: int | None = None
    next_step: Callable[[], str] | None = None
    said = False
    stopping = False
    interrupted: threading.Event | None = None
    noted_at = -math.inf


def install(next_step: Callable[[], str] | None = None) -> None:
    """Handle both signals from now on. For programs only: a library leaves its host's handlers alone.

    Args:
        next_step: says how to go on, after "interrupted; "; by default the resume command of the run, if there is one.
    """
    _State.pid, _State.next_step = os.getpid(), next_step or how_to_go_on
    take_back()
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))
    threading.Thread(target=_second, args=(reading,), daemon=True).start()


def say_next(next_step: Callable[[], str]) -> None:
    """Have a program of ours say something else of how to go on; a library's host is left alone."""
    if installed():
        _State.next_step = next_step


def installed() -> bool:
    """Whether this process is a program of ours."""
    return _State.pid == os.getpid()


@contextmanager
def noted() -> Iterator[threading.Event]:
    """Have the first Ctrl-C within the block set an event, by which the program ends its work; the second ends it."""
    _State.interrupted = event = threading.Event()
    try:
        yield event
    finally:
        _State.interrupted = None


def stopping() -> bool:
    """Whether this process is about to end."""
    return _State.stopping


def take_back() -> None:
    """Handle the signals again after Lightning has put its own handlers in front.

    Those only make a note for the end of the batch, broadcast to the other devices from within the handler, and end
    with code 0.
    """
    if not installed() or threading.current_thread() is not threading.main_thread():
        return
    for signum in handled():
        if signal.getsignal(signum) is not signal.SIG_IGN:  # nohup, or a shell's background job
            signal.signal(signum, _stop)


def handled() -> list[signal.Signals]:
    """The signals that end this program: under SLURM its warning too."""
    return [*SIGNALS, _WARNING] if _WARNING is not None and "SLURM_JOB_ID" in os.environ else [*SIGNALS]


def how_to_go_on() -> str:
    """The command that goes on with this process's run, or that there is none."""
    folder = runs.shared_run_dir()
    if folder is None or not (folder / runs.CONFIG).is_file():
        return "nothing was begun; the same command starts again"
    if (folder / runs.METRICS).is_file():
        return f"the run is finished: {printable(folder / runs.METRICS)}"
    return f"go on with: fit --resume {printable(shlex.quote(str(folder)))}"


def is_first_rank() -> bool:
    """Whether this process speaks for the run: it is the only one, or the first of several devices."""
    return all(os.environ.get(name, "0") in ("", "0") for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"))


def end(line: str | None, code: int) -> None:
    """End this process and its children now, from any thread, after ``line`` on standard error."""

    def leave() -> None:
        if line is not None and not _State.said:
            _State.said = True
            with suppress(OSError):
                os.write(2, f"{line}\n".encode(errors="replace"))
        os._exit(code)

    _State.stopping = True
    watchdog = threading.Timer(_PATIENCE, leave)  # a logger may wait for a lock that the interrupted code holds
    watchdog.daemon = True
    watchdog.start()
    for action in [*at_stop, runs.leave]:
        with suppress(BaseException):
            action()
    for stream in (sys.stdout, sys.stderr):
        with suppress(BaseException):  # the signal may have come within a write
            stream.flush()
    leave()


def _second(reading: int) -> None:
    """Stop where the handler is not called, since the main thread waits in C++ for another process."""
    while signum := os.read(reading, 1)[0]:
        time.sleep(_HANDLER)
        if signum in handled() and not _State.stopping:
            stop(signum)


def stop(signum: int) -> None:
    """End as if the signal had come."""
    _stop(signum, None)


def _stop(signum: int, frame: FrameType | None) -> None:
    code = 128 + signum
    if signum == signal.SIGINT and _noted():
        return
    if not installed():  # a worker forked from the program
        os._exit(code)
    if _State.stopping:  # a second signal does not wait
        os._exit(code)
    _State.stopping = True
    line = None
    if is_first_rank():
        assert _State.next_step is not None
        requeued = _requeue() if signum == _WARNING else ""
        line = f"{_WORDS[signal.Signals(signum)]}; {requeued}{_State.next_step()}"
    end(line, code)


def _noted() -> bool:
    """Whether this Ctrl-C is only noted: the first one, which comes by the handler and by the waiting thread."""
    if time.monotonic() - _State.noted_at < _TWICE:
        return True
    event = _State.interrupted
    if event is None or event.is_set() or not installed():
        return False
    _State.noted_at = time.monotonic()
    event.set()
    return True


def _requeue() -> str:
    """Ask SLURM to start this job again; what became of it."""
    job = os.environ.get("SLURM_JOB_ID", "")
    if array := os.environ.get("SLURM_ARRAY_JOB_ID"):
        job = f"{array}_{os.environ.get('SLURM_ARRAY_TASK_ID', '')}"
    scontrol = shutil.which("scontrol")
    if scontrol is None:
        return "not put back into the queue, as there is no scontrol; "
    with suppress(ValueError):  # from another thread
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # by which SLURM ends a job that it puts back
    try:
        done = subprocess.run([scontrol, "requeue", job], capture_output=True, text=True, timeout=_SCONTROL)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"not put back into the queue ({printable(error, 200)}); "
    if done.returncode:
        return f"not put back into the queue ({printable(done.stderr.strip(), 200)}); "
    return f"job {printable(job, 40)} is put back into the queue; "
