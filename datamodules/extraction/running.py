"""Extracting the groups of a corpus in several processes, each with one thread."""

from __future__ import annotations

import os
import shutil
import signal
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import TracebackType

from datamodules.errors import InputError
from datamodules.extraction.groups import Group, Sizes, sources_of
from datamodules.extraction.parts import FOLDER, Finding, part_path, read_part, recipe_digest
from datamodules.extraction.recordings import Recording
from datamodules.extraction.worker import At, Done, Failed, Feature, Make, Message, Note, Ready, Seen, Task, work
from datamodules.text import printable

_SPAWN = get_context("spawn")
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
_PATIENCE = 5.0  # seconds for a killed process to end

MEMORY_OF_A_WORKER = 10**9
"""Bytes that a process is reckoned with; one with the portable recipe holds half of it."""


class WorkerError(Exception):
    """Where a worker's error was raised, as its traceback."""


def usual_jobs() -> int:
    """Processes that this machine has cores and memory for."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, available_memory() // MEMORY_OF_A_WORKER))


def available_memory() -> int:
    """Bytes of memory that can be had without swapping, as far as the system tells."""
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return min(int(line.split()[1]) * 1024, _limit())
    with suppress(OSError, ValueError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return 4 * MEMORY_OF_A_WORKER


def _limit() -> int:
    """Bytes of memory that a container may take."""
    with suppress(OSError, ValueError):
        return int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii"))
    return 2**62


class _Worker:
    """A process, and what is known of it."""

    def __init__(self, make: Make, log: Path) -> None:
        self.connection: Connection[Task, Message]
        self.connection, theirs = _SPAWN.Pipe()
        self.process = _SPAWN.Process(target=work, args=(theirs, make, log), daemon=True)
        with _surroundings():
            self.process.start()
        theirs.close()
        self.task: Task | None = None
        self.at: str | None = None
        self.left: list[str] = []

    def give(self, task: Task) -> None:
        self.task, self.at, self.left = task, None, list(task.group.utterances)
        with suppress(BrokenPipeError):  # it has ended, which is found at the next message
            self.connection.send(task)

    def receive(self) -> Message:
        """The next message.

        Raises:
            InputError: the process has ended, or its pipeline failed.
            OSError: it could not write.
        """
        try:
            message = self.connection.recv()
        except (EOFError, OSError):
            raise InputError(self._ended()) from None
        if isinstance(message, Failed):
            cause = WorkerError(message.trace)
            if message.os_error is not None:
                raise OSError(*message.os_error) from cause
            where = f"{self._where()}: " if self.task and not message.known else ""
            raise InputError(f"{where}{message.line}") from cause
        if isinstance(message, At):
            self.at = message.utterance
        elif isinstance(message, Seen):
            self.left.remove(message.utterance)
            self.at = None if self.at == message.utterance else self.at
        elif isinstance(message, Done):
            self.task = None
        return message

    def _ended(self) -> str:
        self.process.join(_PATIENCE)
        code = self.process.exitcode
        how = f"killed by signal {-code}" if code is not None and code < 0 else f"exit code {code}"
        doing = f"{self._where()}: the process that extracted it" if self.task else "a process that extracts"
        want = ", perhaps for want of memory: give fewer --jobs" if code == -9 else ""
        return f"{doing} ended ({how}{want}); what is done is kept."

    def _where(self) -> str:
        """The utterance that it was at, as far as it said."""
        first = self.at or (self.left[0] if self.left else "")
        return f"utterance {printable(first, 80)}" if first else "writing a part"


@contextmanager
def _surroundings() -> Iterator[None]:
    """What a process inherits as it is started: one thread, and no SIGINT, which a terminal sends to all."""
    before = {name: os.environ.get(name) for name in _ONE_THREAD}
    os.environ.update(_ONE_THREAD)
    blocks = hasattr(signal, "pthread_sigmask")
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT}) if blocks else set()
    try:
        yield
    finally:
        if blocks:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


class Workers:
    """Processes that extract; use it in a ``with`` block, after which none is left.

    Args:
        make: makes the pipeline, in each process.
        jobs: processes at most.
        out: folder of the corpus.
    """

    def __init__(self, make: Make, jobs: int, out: Path) -> None:
        self.jobs = jobs
        self._make = make
        self._out = out
        self._workers: list[_Worker] = []
        self.notes: list[str] = []

    def __enter__(self) -> Workers:
        """Start the first."""
        (self._out / FOLDER).mkdir(parents=True, exist_ok=True)
        self._start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End all."""
        self.stop()

    def features(self) -> dict[str, Feature]:
        """What is made of each modality, as the first worker says.

        Raises:
            InputError: its pipeline cannot be made.
        """
        return self._until_ready(self._workers[0]).features

    def run(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, Seen | Done | Note]]:
        """Do all tasks, in order, and give what is heard of them.

        Raises:
            InputError: a process ended or its pipeline failed; it names the utterance.
            OSError: a part cannot be written.
        """
        waiting = deque(tasks)
        while len(self._workers) < min(self.jobs, len(tasks)):
            self._start()
        starting = self._workers[1:]
        if waiting and self._workers:
            self._workers[0].give(waiting.popleft())
        busy = 1 if tasks else 0
        while busy:
            for connection in wait([worker.connection for worker in self._workers]):
                worker = next(each for each in self._workers if each.connection is connection)
                task = worker.task
                message = worker.receive()
                if isinstance(message, Ready):
                    starting.remove(worker)
                elif task is not None and isinstance(message, Seen | Done | Note):
                    yield task, message
                busy -= isinstance(message, Done)
                if worker.task is None and worker not in starting and waiting:
                    worker.give(waiting.popleft())
                    busy += 1

    def stop(self) -> None:
        """Kill all processes, and remove what they had begun to write."""
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            worker.process.join(_PATIENCE)
            worker.connection.close()
            for path, _ in worker.task.parts.values() if worker.task else ():
                for left in path.parent.glob(f".ifmmin-{path.stem}.*"):
                    left.unlink(missing_ok=True)
        self._workers.clear()

    def _start(self) -> None:
        self._workers.append(_Worker(self._make, self._out / FOLDER / "workers.log"))

    def _until_ready(self, worker: _Worker) -> Ready:
        while True:
            message = worker.receive()
            if isinstance(message, Ready):
                return message
            if isinstance(message, Note):
                self.notes.append(message.line)


@dataclass(frozen=True)
class Progress:
    """What is there of groups before they are extracted.

    Attributes:
        tasks: what is to be done, in order.
        found: findings of the parts that are there, by group and modality.
    """

    tasks: tuple[Task, ...]
    found: Mapping[str, Mapping[str, tuple[Finding, ...]]]


def tasks_of(
    groups: Sequence[Group], features: Mapping[str, Feature], out: Path, sizes: Sizes, refresh: bool = False
) -> Progress:
    """Find which parts are missing, of changed sources, or damaged.

    Args:
        groups: in the order that they are to be done.
        features: what is made of each modality.
        out: folder of the corpus.
        sizes: of the sources.
        refresh: whether parts that are there are removed first.
    """
    tasks: list[Task] = []
    found: dict[str, dict[str, tuple[Finding, ...]]] = {}
    for group in groups:
        missing: dict[str, tuple[Path, str]] = {}
        there = found.setdefault(group.name, {})
        for modality, feature in features.items():
            path = path_of(out, feature, group)
            if refresh:
                path.unlink(missing_ok=True)
            sources = sources_of(group, modality, sizes)
            part = read_part(path, sources, feature.width)
            if part is None:
                missing[modality] = path, sources
            else:
                there[modality] = part.findings
        if missing:
            tasks.append(Task(group, missing))
    return Progress(tuple(tasks), found)


def path_of(out: Path, feature: Feature, group: Group) -> Path:
    """File of a group's part."""
    return part_path(out, feature.name, recipe_digest(feature.name, feature.recipe, feature.detector), group.name)


_USUAL_SECONDS = 4.5
"""Of an utterance whose file alone knows its length; that of IEMOCAP's."""

_CLEARLY = 0.5
"""Share of the estimated bytes without which it is no use to begin."""


def estimated_bytes(recordings: Sequence[Recording], features: Mapping[str, Feature]) -> int:
    """Bytes that features will take, roughly."""
    total = 0.0
    for recording in recordings:
        for modality, feature in features.items():
            total += _frames(recording, modality, feature.rate) * feature.width * 4
    return int(total)


def _frames(recording: Recording, modality: str, rate: int) -> float:
    if modality == "text":
        return 1.3 * len((recording.text or "").split()) + 2
    source = recording.sound if modality == "audio" else recording.picture
    if source is None:
        return 0.0
    return (_USUAL_SECONDS if source.end is None else source.end - source.start) * rate


def check_room(out: Path, needed: int, what: str) -> None:
    """Refuse work whose result clearly has no room.

    Raises:
        InputError: the disk has less than half of what is needed.
    """
    free = shutil.disk_usage(out).free
    if free < needed * _CLEARLY:
        raise InputError(
            f"{printable(out)}: {what} take about {_readable(needed)}, and {_readable(free)} are free; make room, or "
            f"name a folder on another disk."
        )


def _readable(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 10**8 else f"{size / 1e6:.1f} MB"
