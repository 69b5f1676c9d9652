"""Console of a command: what it prints, and how it leaves its process."""

from __future__ import annotations

import logging
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from datamodules.text import printable
from ifmmin import runs
from ifmmin.cli.failures import first_sentence

_NOISE = (
    r".*does not have many workers.*",  # batches are gathered from memory, which workers do not speed up
    r".*Using `DistributedSampler` with the dataloaders.*",  # ours does not repeat utterances
    r".*It is recommended to use `self.log.*sync_dist=True.*",  # these are equal on every device already
    r".*Checkpoint directory .* exists and is not empty.*",  # it does when a run goes on
    r".*LeafSpec.*",  # PyTorch's own, from inside Lightning
    r".*callbacks used to create the checkpoint need to be provided.*",  # evaluation needs no ModelCheckpoint
    r".*module\(s\) in eval mode.*",  # the teacher is, always
    r".*Encountered `nan` values in tensor.*",  # the run is stopped, and says so
    r".*number of training batches .* is smaller than the logging interval.*",
)


_LONGEST_NOTE = 1000


@rank_zero_only
def print_rank_zero(line: str) -> None:
    """Print a line on the first device only."""
    print(line, flush=True)


class _Note(logging.Formatter):
    """Formats a record as one printable line."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record), _LONGEST_NOTE)


def _once() -> Callable[[logging.LogRecord], bool]:
    """A filter that lets each message through once: a plug-in is imported again each time that names are listed."""
    said: set[str] = set()

    def new(record: logging.LogRecord) -> bool:
        message = record.getMessage()
        if message in said:
            return False
        said.add(message)
        return True

    return new


def _thread_failed(failure: threading.ExceptHookArgs) -> None:
    """Say in one line that a thread in the background failed, such as TensorBoard's where its folder was removed."""
    if failure.exc_type is SystemExit:
        return
    name = failure.thread.name if failure.thread else "a thread"
    reason = first_sentence(str(failure.exc_value)) or failure.exc_type.__name__
    logging.getLogger("ifmmin").warning(f"{name} in the background failed: {reason}")


def print_table(table: Table) -> None:
    """Print a table; where there is no terminal, as wide as it wants to be."""
    console = Console()
    if not console.is_terminal:
        wanted = Measurement.get(console, console.options.update(max_width=1000), table).maximum
        console.width = max(console.width, wanted)
    console.print(table)


@contextmanager
def clean_process(argv: list[str]) -> Iterator[None]:
    """Set ``sys.argv``, warnings and logging for a command, and restore them afterwards."""
    before, failed = sys.argv, False
    started_by_lightning = os.environ.get("LOCAL_RANK", "0") != "0"
    sys.argv = [before[0], *argv]
    threads_say = threading.excepthook
    threading.excepthook = _thread_failed
    handler = logging.StreamHandler()
    handler.setFormatter(_Note("note: %(message)s"))
    handler.addFilter(_once())
    log = logging.getLogger("ifmmin")
    log.addHandler(handler)
    log.propagate = False
    # Lightning's own announcements (devices found, tips) are not about the experiment.
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for message in _NOISE:
                warnings.filterwarnings("ignore", message)
            yield
    except Exception:
        failed = True
        raise
    finally:
        sys.argv = before
        threading.excepthook = threads_say
        log.removeHandler(handler)
        runs.leave(failed)
        if not started_by_lightning:
            runs.share_run_dir(None)
