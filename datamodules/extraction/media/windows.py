"""Windows of a long recording."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

from datamodules.errors import InputError

LONGEST_UTTERANCE = 30.0
"""Seconds. Models are trained on utterances of a few seconds and say nothing about longer ones."""

SHORTEST = 0.1
"""Seconds of a window or between two; features have a frame in each tenth of a second."""


def check_windows(window: float, hop: float) -> None:
    """Refuse windows that cannot be.

    Args:
        window: seconds.
        hop: seconds from a window's start to the next one's; above ``window``, time between them is left out.

    Raises:
        InputError: one of them is out of range.
    """
    if not SHORTEST <= window <= LONGEST_UTTERANCE:
        raise InputError(f"window {window:g}: give seconds from {SHORTEST:g} to {LONGEST_UTTERANCE:g}.")
    if not SHORTEST <= hop < float("inf"):
        raise InputError(f"hop {hop:g}: give at least {SHORTEST:g} seconds.")


def windows(duration: float, window: float, hop: float) -> Iterator[tuple[float, float]]:
    """Start and end of each window in seconds.

    The last one ends with the recording, and may be shorter; a rest below :data:`SHORTEST` is left out.

    Args:
        duration: of the recording, in seconds.
        window: seconds.
        hop: seconds from a window's start to the next one's.

    >>> list(windows(6.0, window=5.0, hop=2.5))
    [(0.0, 5.0), (2.5, 6.0)]
    """
    end = 0.0
    for number in count():
        start = number * hop
        if number and duration - max(start, end) < SHORTEST - 1e-6:  # sums of tenths are not exact
            return
        end = min(start + window, duration)
        yield start, end
