"""Console of a command: what it prints, and how it leaves its process."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from lightning.pytorch.utilities import rank_zero_only

from ifmmin import runs

_NOISE = (
    r".*does not have many workers.*",  # batches are gathered from memory, which workers do not speed up
    r".*Using `DistributedSampler` with the dataloaders.*",  # ours does not repeat utterances
    r".*It is recommended to use `self.log.*sync_dist=True.*",  # these are equal on every device already
    r".*Checkpoint directory .* exists and is not empty.*",  # it does when a run goes on
    r".*LeafSpec.*",  # PyTorch's own, from inside Lightning
    r".*callbacks used to create the checkpoint need to be provided.*",  # evaluation needs no ModelCheckpoint
    r".*module\(s\) in eval mode.*",  # the teacher is, always
    r".*number of training batches .* is smaller than the logging interval.*",
)


@rank_zero_only
def print_rank_zero(line: str) -> None:
    """Print a line on the first device only."""
    print(line, flush=True)


@contextmanager
def clean_process(argv: list[str]) -> Iterator[None]:
    """Set ``sys.argv``, warnings and logging for a command, and restore them afterwards."""
    before = sys.argv
    started_by_lightning = os.environ.get("LOCAL_RANK", "0") != "0"
    sys.argv = [before[0], *argv]
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("note: %(message)s"))
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
    finally:
        sys.argv = before
        log.removeHandler(handler)
        if not started_by_lightning:
            runs.drop_if_empty()
            runs.share_run_dir(None)
