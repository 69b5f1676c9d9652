"""Processes of further devices: where one is lost, all end within seconds, and one line says which.

Lightning starts them by the program's own command line. Each watches the others without their help, because a process
that waits for a lost one in a collective answers nobody.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from datamodules.errors import InputError
from datamodules.text import printable
from ifmmin import runs
from ifmmin.cli import starting, stopping

if TYPE_CHECKING:
    import lightning as L

_MAIN = "IFMMIN_MAIN_PROCESS"  # tells the processes of further devices whose they are

_PERIOD = 0.2  # seconds between two looks at the others
_PATIENCE = 2.0  # seconds in which another process may say what is wrong before this one does

_SAID = 3
"""Exit code of a process of a further device that has printed its error."""

_OF_TORCHRUN = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "NODE_RANK", "GROUP_RANK", "MASTER_PORT")
_OF_SLURM = ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "SLURM_NODEID")

_children: list[subprocess.Popen[bytes]] = []


def program(command: Callable[[], int]) -> int:
    """Run ``command`` as a program of its own, which handles signals and lost processes.

    Args:
        command: prints its errors, and gives the exit code.

    Returns:
        the exit code.
    """
    starting.settle()
    stopping.install()
    if is_further():
        threading.Thread(target=_watch_main, daemon=True).start()
        return _SAID if command() else 0
    os.environ[_MAIN] = str(os.getpid())
    code = command()
    if not _children:
        return code
    if code:
        stopping.end(None, code)
    for child in _children:  # they have nothing left to do but to end
        child.wait()
    return code


def is_further() -> bool:
    """Whether a program of ours has started this process for a further device."""
    main = os.environ.get(_MAIN, "")
    return os.environ.get("LOCAL_RANK", "0") != "0" and main.isdecimal() and main != str(os.getpid())


def end_with(parent: int) -> None:
    """End this process when the one that started it has ended, however and however early: nobody waits for its result.

    Args:
        parent: the id of that process, as it gave it: it may have ended before this one can ask.
    """

    def watch() -> None:
        _wait_for_end(parent)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def check_environment() -> None:
    """Refuse variables about other processes that are no numbers.

    Raises:
        InputError: naming the variable.
    """
    for name in (*_OF_TORCHRUN, *_OF_SLURM):
        value = os.environ.get(name)
        if value is not None and not value.isdecimal():
            raise InputError(f"{name}={printable(value, 40)} in the environment is no number; unset it.")


def check_alone(trainer: L.Trainer) -> None:
    """Refuse to train or score in one of several processes as if there were no other.

    Raises:
        InputError: saying what to give, or which variable to unset.
    """
    if trainer.world_size > 1:
        return
    size = runs.started_from_outside()[1]
    if size > 1:
        raise InputError(
            f"{size} processes were started from outside, and each would be alone; give --trainer.devices, how many on "
            "each machine, and --trainer.strategy ddp. If there is one process, unset WORLD_SIZE and RANK."
        )
    if not runs.is_first_process():
        raise InputError("the environment says that this is not the first process, but it is alone; unset LOCAL_RANK.")


def observe() -> None:
    """Watch the processes that Lightning starts in this program, in place of Lightning, which kills without a word."""
    if not stopping.installed():
        return
    from lightning.pytorch.strategies.launchers import subprocess_script

    observer = "_launch_process_observer"
    assert hasattr(subprocess_script, observer)
    setattr(subprocess_script, observer, watch)


def watch(children: Sequence[subprocess.Popen[bytes]]) -> None:
    """End this process and all of ``children`` as soon as one of them is lost."""
    _children.extend(children)
    stopping.at_stop.insert(0, _kill_children)
    threading.Thread(target=_watch_children, daemon=True).start()


def without_requeue(plugins: list[Any]) -> list[Any]:
    """A trainer's plugins under which Lightning leaves SLURM's warning to us.

    It would save a checkpoint of its own in the run's folder, which the next stage would then start from.
    """
    from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
    from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
    from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

    given = any(isinstance(plugin, ClusterEnvironment) for plugin in plugins)
    if given or TorchElasticEnvironment.detect() or not SLURMEnvironment.detect():
        return plugins
    return [*plugins, SLURMEnvironment(auto_requeue=False)]


@contextmanager
def settled() -> Iterator[None]:
    """Let an error that the loss of another process may have caused wait for the word on that."""
    try:
        yield
    except Exception as error:
        caused_here = isinstance(error, (InputError, OSError)) and not is_further()
        if (is_further() or _children) and not caused_here:
            time.sleep(_PATIENCE)
        raise


def _kill_children() -> None:
    for child in _children:
        child.kill()


def _watch_children() -> None:
    while True:
        for rank, child in enumerate(_children, start=1):
            code = child.poll()
            if code:
                time.sleep(_PERIOD)  # Ctrl-C reaches all processes, this one too
                _lost(rank, code)
        time.sleep(_PERIOD)


def _lost(rank: int, code: int) -> None:
    if stopping.stopping():
        return
    line = None
    if code > 128 and code - 128 != signal.SIGTERM and code - 128 in stopping.handled():  # all processes get those
        stopping.stop(code - 128)
    if code != _SAID:
        signum = -code if code < 0 else code - 128 if code > 128 else 0
        how = f"killed by {signal.Signals(signum).name}" if signum else f"exit code {code}"
        line = f"error: rank {rank} of {len(_children) + 1} was lost ({how}); {stopping.how_to_go_on()}"
    stopping.end(line, 1)


def _wait_for_end(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_PERIOD)


def _watch_main() -> None:
    _wait_for_end(int(os.environ[_MAIN]))
    first = os.environ["LOCAL_RANK"] == "1"  # one line, however many are left
    stopping.end(f"error: rank 0 was lost; {stopping.how_to_go_on()}" if first else None, 1)
