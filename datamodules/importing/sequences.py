"""Padded sequences of a pack: their true lengths, and frames without padding and without infinities."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float32]
Padded = Sequence[npt.NDArray[Any]] | npt.NDArray[Any]

CHUNK = 256
"""Utterances looked at together; memory is given back after each."""


@dataclass
class Counts:
    """What was changed of a modality, over all splits.

    Attributes:
        padding_frames: frames cut after or before an utterance's own.
        padded_before: utterances whose padding came before their frames.
        past_stated_length: utterances with frames other than zero past the length that the pack states; they are kept.
        only_zero_frames: utterances of nothing but zeros.
        replaced_values: values that were not finite and became 0: minus infinity in audio, others where that was asked.
        replaced_utterances: utterances that had some.
    """

    padding_frames: int = 0
    padded_before: int = 0
    past_stated_length: int = 0
    only_zero_frames: int = 0
    replaced_values: int = 0
    replaced_utterances: int = 0


@dataclass(frozen=True)
class Sequences:
    """One modality of one split: utterance ``i`` has the frames ``padded[i][start[i]:stop[i]]``.

    Attributes:
        padded: n arrays [T, D], or one [n, T, D].
        start: int64 [n].
        stop: int64 [n], at least one above ``start``.
    """

    padded: Padded
    start: IntArray
    stop: IntArray

    @property
    def lengths(self) -> list[int]:
        """Frames of each utterance."""
        lengths: list[int] = (self.stop - self.start).tolist()
        return lengths

    def frames(
        self, minus_infinity: bool, others: bool, counts: Counts, after_chunk: Callable[[int], None]
    ) -> Iterator[FloatArray]:
        """Frames [T, D] of each utterance, in order, not finite only where they were not to be replaced.

        Args:
            minus_infinity: whether minus infinity becomes 0.
            others: whether infinity and NaN do.
            counts: what was changed is added.
            after_chunk: called every :data:`CHUNK` utterances with the number that are done.
        """
        for row in range(len(self.start)):
            raw = self.padded[row][self.start[row] : self.stop[row]]
            with np.errstate(over="ignore"):
                frames = np.array(raw, dtype=np.float32)
            if not np.isfinite(frames).all():
                wrong = np.isneginf(frames) if minus_infinity else np.zeros(frames.shape, dtype=np.bool_)
                if others:
                    wrong = ~np.isfinite(frames)
                counts.replaced_values += int(wrong.sum())
                counts.replaced_utterances += int(wrong.any())
                frames[wrong] = 0
            yield frames
            if (row + 1) % CHUNK == 0:
                after_chunk(row + 1)


def last_of_mask(masks: npt.NDArray[Any]) -> IntArray:
    """Length of each row of masks [n, L]: up to its last entry that is not 0, and at least 1.

    >>> last_of_mask(np.array([[1, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]])).tolist()
    [2, 3, 1]
    """
    return np.maximum(_last(masks != 0), 1)


def cut(
    padded: Padded,
    stated: IntArray | None,
    padded_before: bool,
    counts: Counts,
    after_chunk: Callable[[int], None],
) -> Sequences:
    """Find the frames of each utterance that are not padding.

    Only zero frames are cut: those after the last frame that is not zero and past the stated length. An utterance of
    which nothing else is left keeps one frame.

    Args:
        padded: n arrays [T, D], or one [n, T, D].
        stated: int64 [n], the lengths that the pack states; None: it states none.
        padded_before: whether an utterance may be padded before its frames: zeros come first, the frames reach the
            last step, and the pack states less than all steps.
        counts: what was cut is added.
        after_chunk: called every :data:`CHUNK` utterances with the number that are done.
    """
    count = len(padded)
    start, stop = np.zeros(count, dtype=np.int64), np.ones(count, dtype=np.int64)
    for first in range(0, count, CHUNK):
        rows = slice(first, min(first + CHUNK, count))
        ends, begins, steps = _extents(padded[rows])
        least = np.ones_like(ends) if stated is None else np.maximum(stated[rows], 1)
        counts.only_zero_frames += int((ends == 0).sum())
        before = np.zeros_like(begins, dtype=np.bool_)
        if padded_before and stated is not None:
            before = (begins > 0) & (ends == steps) & (least < steps)
        past = (ends > least) & ~before
        counts.past_stated_length += int(past.sum()) if stated is not None else 0
        counts.padded_before += int(before.sum())
        start[rows] = np.where(before, begins, 0)
        stop[rows] = np.minimum(np.maximum(ends, least), steps)
        counts.padding_frames += int((steps - (stop[rows] - start[rows])).sum())
        after_chunk(rows.stop)
    return Sequences(padded, start, stop)


def _extents(padded: Any) -> tuple[IntArray, IntArray, IntArray]:
    """Of each utterance: frames up to its last that is not zero, the first that is not, and steps in all."""
    if isinstance(padded, np.ndarray):
        there = (padded != 0).any(axis=2)
        return _last(there), there.argmax(axis=1), np.full(len(there), there.shape[1], dtype=np.int64)
    each = [(frames != 0).any(axis=1)[None] for frames in padded]
    ends = np.concatenate([_last(there) for there in each])
    begins = np.concatenate([there.argmax(axis=1) for there in each])
    return ends, begins, np.array([there.shape[1] for there in each], dtype=np.int64)


def _last(there: npt.NDArray[np.bool_]) -> IntArray:
    """Up to the last true entry of each row of [n, T]; 0 without one."""
    steps = there.shape[1]
    ends: IntArray = np.where(there.any(axis=1), steps - there[:, ::-1].argmax(axis=1), 0)
    return ends
