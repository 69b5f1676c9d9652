"""Groups of recordings: what one process extracts at a time, and what one part's file holds."""

from __future__ import annotations

import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from datamodules.extraction.provenance import digest
from datamodules.extraction.recordings import Recording, Source

CLIPS = 32
"""Recordings of a group, where each has files of its own."""


@dataclass(frozen=True)
class Group:
    """Recordings that are extracted together.

    Attributes:
        name: stem of its parts' files; two groups of other recordings have other names.
        recordings: sorted by utterance; they share a file, or each has files of its own.
        cost: bytes of its files, by which long groups are begun first.
    """

    name: str
    recordings: tuple[Recording, ...]
    cost: int

    @property
    def utterances(self) -> tuple[str, ...]:
        """The ids."""
        return tuple(recording.utterance for recording in self.recordings)


class Sizes:
    """Sizes and dates of files, each asked for once."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[int, int] | None] = {}

    def __call__(self, path: Path) -> tuple[int, int] | None:
        """Bytes, and nanoseconds of the last change; None if the file is not there."""
        if path not in self._known:
            try:
                found = os.stat(path)  # noqa: PTH116 - tens of thousands of times
                self._known[path] = found.st_size, found.st_mtime_ns
            except OSError:
                self._known[path] = None
        return self._known[path]


def groups_of(recordings: Sequence[Recording], sizes: Sizes) -> list[Group]:
    """Divide recordings into groups, those with the most bytes first.

    A file that several recordings share, as the film of a dialogue, makes them one group, so that it is read once.
    """
    shared: defaultdict[Path, list[Recording]] = defaultdict(list)
    single: list[Recording] = []
    for recording in recordings:
        main = recording.picture or recording.sound
        (shared[main.path] if main else single).append(recording)
    groups = []
    for path, among in shared.items():
        if len(among) == 1:
            single += among
        else:
            groups.append(_group(path.stem, among, sizes))
    single.sort(key=_id)
    groups += [_group("clips", single[first : first + CLIPS], sizes) for first in range(0, len(single), CLIPS)]
    return sorted(groups, key=lambda group: (-group.cost, group.name))


def shard_of(groups: Sequence[Group], shard: int, shards: int) -> list[Group]:
    """The groups of one of several machines; the long ones are dealt out first.

    Args:
        groups: all, as :func:`groups_of` orders them.
        shard: from 1.
        shards: how many.
    """
    return list(groups[shard - 1 :: shards])


def sources_of(group: Group, modality: str, sizes: Sizes) -> str:
    """Digest of everything about a group's recordings that one modality's features depend on.

    Names of files count, their folders do not: a corpus may be moved.
    """
    return digest([_dependencies(recording, modality, sizes) for recording in group.recordings])


def _dependencies(recording: Recording, modality: str, sizes: Sizes) -> list[object]:
    found: list[object] = [recording.utterance, recording.absent.get(modality)]
    if modality == "text":
        text = recording.text
        return [*found, None if text is None else hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()]
    source = recording.sound if modality == "audio" else recording.picture
    return [*found, _source(source, sizes), recording.half if modality == "visual" else None]


def _source(source: Source | None, sizes: Sizes) -> list[object] | None:
    return None if source is None else [source.path.name, source.start, source.end, sizes(source.path)]


def _id(recording: Recording) -> str:
    return recording.utterance


def _group(stem: str, among: Sequence[Recording], sizes: Sizes) -> Group:
    recordings = sorted(among, key=_id)
    ids = hashlib.sha256("\n".join(each.utterance for each in recordings).encode(errors="surrogatepass"))
    files = {
        source.path for recording in recordings for source in (recording.sound, recording.picture) if source is not None
    }
    name = f"{re.sub(r'[^A-Za-z0-9_.-]', '_', stem)[:80]}-{ids.hexdigest()[:12]}"
    return Group(name, tuple(recordings), sum((sizes(path) or (0, 0))[0] for path in files))
