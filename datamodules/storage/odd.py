"""Frames that can be used and yet are hardly what was recorded: all zero, or those of another utterance."""

from __future__ import annotations

from pathlib import Path

from datamodules.storage.features import FloatArray
from datamodules.storage.problems import Problems


class OddFrames:
    """Collects the utterances of one file that are odd.

    Attributes:
        zero: those whose frames are all zero.
        repeated: those whose frames are those of an utterance before them.
    """

    def __init__(self) -> None:
        self.zero: list[str] = []
        self.repeated: list[str] = []
        self._seen: set[tuple[int, int]] = set()

    def add(self, utterance: str, frames: FloatArray) -> None:
        """Look at the finite frames [T, D] of an utterance."""
        if not len(frames):
            return
        if not frames.any():
            self.zero.append(utterance)
            return
        content = (len(frames), hash(frames.tobytes()))
        if content in self._seen:
            self.repeated.append(utterance)
        self._seen.add(content)

    def report(self, path: Path, notes: Problems) -> None:
        """Add what was found to ``notes``, one line for each kind."""
        remedy = "--data.zero_frames_absent true takes this modality as missing there"
        notes.add_if_any(path, self.zero, "has only zero frames", remedy)
        remedy = "see that they were extracted from its own recording"
        notes.add_if_any(path, self.repeated, "has the frames of another utterance", remedy)
