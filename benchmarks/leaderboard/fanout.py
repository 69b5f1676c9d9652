"""Doing many jobs at once: as processes of this machine, or as tasks of a Ray cluster."""

from __future__ import annotations

import os
import queue
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any, TypeVar

import torch
from joblib import Parallel, delayed

from benchmarks.leaderboard.plan import Job
from benchmarks.leaderboard.running import Outcome, execute
from datamodules.errors import InputError

Started = Callable[[Job], None]
Worker = Callable[[Job], Outcome]
"""Does a job, whatever becomes of it, and waits for it."""

Item = TypeVar("Item")
Result = TypeVar("Result")
CHECKOUT = Path(__file__).resolve().parents[2]


def side_by_side(count: int, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Call ``function`` with each item, in up to ``count`` threads that wait for processes; results as they come."""
    pool = Parallel(count, backend="threading", return_as="generator_unordered", batch_size=1, pre_dispatch="n_jobs")
    yield from pool(delayed(function)(item) for item in items)


@dataclass(frozen=True)
class Local:
    """Processes on this machine, fanned out by joblib.

    Attributes:
        jobs: how many at once. With several GPUs, each process gets one of them in turn.
        environment: variables for every run.
    """

    jobs: int
    environment: dict[str, str]

    def run(self, jobs: Sequence[Job], board: Path, started: Started) -> Iterator[Outcome]:
        """Do all of ``jobs``, each after its stage 1, and give each outcome when it is there."""
        do = self.worker(board)
        # Jobs are taken up in order and a stage 1 precedes its runs, so that no two can wait for each other.
        ended = {job: Event() for job in jobs if job.pretraining}
        failed: set[Job] = set()

        def one(job: Job) -> Outcome:
            if job.stage1 in ended:
                ended[job.stage1].wait()
            if job.stage1 in failed:
                return without_stage1(job)
            started(job)
            try:
                outcome = do(job)
                failed.update([job] if outcome.error else [])
                return outcome
            finally:
                if job in ended:
                    ended[job].set()

        yield from side_by_side(self.jobs, one, jobs)

    def worker(self, board: Path) -> Worker:
        """What does a job in a process of its own, so that none can take another down, in up to ``jobs`` threads."""
        devices: queue.SimpleQueue[str] = queue.SimpleQueue()
        for slot in range(self.jobs):
            devices.put(_gpu_of(slot))

        def do(job: Job) -> Outcome:
            device = devices.get()
            try:
                visible = {"CUDA_VISIBLE_DEVICES": device} if device else {}
                return execute(job, board, self.environment | visible)
            finally:
                devices.put(device)

        return do


def without_stage1(job: Job) -> Outcome:
    """The outcome of a job whose stage 1 failed."""
    return Outcome(job, None, f"not run, since {job.stage1} failed", 0.0)


def _gpu_of(slot: int) -> str:
    """The GPU for the n-th process, by the name CUDA_VISIBLE_DEVICES takes; empty where there is nothing to choose."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    gpus = named.split(",") if named else [str(number) for number in range(torch.cuda.device_count())]
    return gpus[slot % len(gpus)] if len(gpus) > 1 else ""


@dataclass(frozen=True)
class RayCluster:
    """Tasks of a Ray cluster: the one that RAY_ADDRESS names or that runs here, else one started for this board.

    The board's folder and this checkout must be at the same path on every node.

    Attributes:
        jobs: how many at once.
        environment: variables for every run.
        cpus: of each run.
        gpus: share of a GPU that each run takes, 0.25 for four on one; 0 for none.
    """

    jobs: int
    environment: dict[str, str]
    cpus: int = 1
    gpus: float = 0.0

    def run(self, jobs: Sequence[Job], board: Path, started: Started) -> Iterator[Outcome]:
        """Do all of ``jobs``, each after its stage 1; a worker that dies costs its own job only."""
        ray, task = self._connect()
        waiting, pending = list(jobs), dict[Any, Job]()
        unfinished, failed = {job for job in jobs if job.pretraining}, set[Job]()
        while waiting or pending:
            ready = [job for job in waiting if job.stage1 not in unfinished]
            for job in ready[: self.jobs - len(pending)]:
                waiting.remove(job)
                if job.stage1 in failed:
                    yield without_stage1(job)
                else:
                    started(job)
                    pending[task.remote(job, board, self.environment)] = job
            if not pending:
                continue
            (done, *_), _ = ray.wait(list(pending), num_returns=1)
            job = pending.pop(done)
            try:
                outcome = ray.get(done)
            except ray.exceptions.RayError as error:
                outcome = _died(job, error)
            failed.update([job] if outcome.error else [])
            unfinished.discard(job)
            yield outcome

    def worker(self, board: Path) -> Worker:
        """What does a job as a task, in up to ``jobs`` threads."""
        ray, task = self._connect()

        def do(job: Job) -> Outcome:
            try:
                outcome: Outcome = ray.get(task.remote(job, board, self.environment))
            except ray.exceptions.RayError as error:
                return _died(job, error)
            return outcome

        return do

    def _connect(self) -> tuple[Any, Any]:
        """The library, and :func:`execute` as its task."""
        try:
            import ray
        except ImportError as error:
            raise InputError("--cluster ray: Ray is not installed; pip install 'ifmmin[ray]'.") from error
        if not ray.is_initialized():
            paths = {"env_vars": {"PYTHONPATH": os.pathsep.join([str(CHECKOUT), os.environ.get("PYTHONPATH", "")])}}
            try:
                ray.init("auto", runtime_env=paths, log_to_driver=False)
            except ConnectionError:
                ray.init(
                    num_cpus=self.jobs * self.cpus, runtime_env=paths, log_to_driver=False, include_dashboard=False
                )
        # By name, not by value: a worker imports the same checkout, at the same path.
        return ray, ray.remote(num_cpus=self.cpus, num_gpus=self.gpus, max_retries=0)(execute)


def _died(job: Job, error: Exception) -> Outcome:
    return Outcome(job, None, f"its Ray worker died: {str(error).splitlines()[0]}", 0.0, lost=True)
