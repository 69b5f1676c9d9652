"""One feature file: HDF5, one dataset [frames, width] per utterance.

A corpus has thousands of small datasets, so reading takes h5py's time per dataset; its low-level interface is several
times faster than the high-level one.

A feature file may come from a stranger. What makes HDF5 read other files (external links, external storage, virtual
datasets) is refused, and declared sizes are bounded before memory is taken.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from h5py import h5d, h5g, h5l, h5o, h5p, h5s, h5t

from datamodules.storage.hdf5 import H5_ERRORS, h5_name, open_hdf5
from datamodules.storage.ids import EXACT, MatchRule, key_of, rule_that_matches, tidy
from datamodules.storage.problems import Problems, Strict
from datamodules.text import has_control, printable

FloatArray = npt.NDArray[np.float32] | npt.NDArray[np.float16]

LARGEST_CHUNK = 10_000_000
"""Values in a chunk, which HDF5 decompresses as a whole."""

LONGEST = 100_000
"""Frames that an utterance may have: a quarter of an hour at 100 frames a second."""

WIDEST = 100_000
"""Values that a frame may have."""

MOST_VALUES = 100_000_000
"""Values that an utterance may have, frames times width: 0.4 GB."""

MOST_COMPRESSED = 1_100
"""How many times larger than its stored bytes a compressed dataset may be; deflate reaches 1032."""

_SINGLE, _HALF = h5t.py_create(np.dtype(np.float32)), h5t.py_create(np.dtype(np.float16))


@dataclass(frozen=True)
class Entries:
    """Shapes and positions of N utterances in a file, before any frame is read.

    Attributes:
        lengths: int64 [N], the number of frames, 0 if there is nothing to read.
        width: the number of values in a frame, 0 if no utterance has a frame.
        positions: int64 [N], the byte of the file at which the frames begin, contiguous and of ``dtype``; -1 if only
            HDF5 can read them.
        dtype: what frames are kept as: float16 if all are stored as such, otherwise float32.
    """

    lengths: npt.NDArray[np.int64]
    width: int
    positions: npt.NDArray[np.int64]
    dtype: np.dtype[Any]

    @property
    def nbytes(self) -> int:
        """Bytes of all frames as ``dtype``."""
        return int(self.lengths.sum()) * self.width * self.dtype.itemsize

    def of(self, rows: npt.NDArray[np.int64]) -> Entries:
        """The entries of some of the utterances, by their positions."""
        return replace(self, lengths=self.lengths[rows], positions=self.positions[rows])

    @classmethod
    def none(cls, utterances: int) -> Entries:
        """Entries of a file that does not exist."""
        return cls(np.zeros(utterances, np.int64), 0, np.full(utterances, -1), np.dtype(np.float32))


class FeatureFile:
    """An open feature file; use it in a ``with`` block.

    Attributes:
        path: of the file.
        names: the ids in it, sorted, as the rule of matching leaves them.
        ambiguous: ids that several entries match.
    """

    def __init__(
        self,
        path: Path,
        file: Any,
        match_ids: MatchRule = EXACT,
        empty_is_absent: bool = False,
        in_folders: bool = False,
    ) -> None:
        """Take over an open ``h5py.File``.

        Args:
            path: of the file.
            file: an ``h5py.File``, open.
            match_ids: the rule by which ids are those of entries.
            empty_is_absent: whether an entry without frames, or never written, lacks the modality instead of
                being a problem.
            in_folders: whether ids name groups of the file, ``group/entry``; otherwise all entries are at its top, or
                in one group.
        """
        self.path = path
        self._file = file
        self._size = path.stat().st_size
        self._match_ids = match_ids
        self._empty_is_absent = empty_is_absent
        # A link may lead to another file, by way of a second link: one link only is followed.
        self._access = h5p.create(h5p.LINK_ACCESS)
        self._access.set_nlinks(1)
        self._in_folders = in_folders
        self._group: Any = file.id
        members: list[str] = sorted(_below(file.id) if in_folders else file)
        if not in_folders and len(members) == 1 and (only := self._group_in(members[0])) is not None:
            self._group = only
            members = sorted(h5_name(name) for name in only)
        stored: dict[str, list[str]] = defaultdict(list)
        for member in members:
            stored[key_of(member, match_ids)].append(member)
        self._stored = {key: among[0] for key, among in stored.items()}
        self.names: list[str] = sorted(tidy(name, match_ids) for name in self._stored.values())
        self.ambiguous = sorted(name for among in stored.values() if len(among) > 1 for name in among)

    def __enter__(self) -> FeatureFile:
        """The file itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the file."""
        self._file.close()

    def holds(self, utterance: str) -> bool:
        """Whether there is an entry of this id, by the rule of matching."""
        return key_of(utterance, self._match_ids) in self._stored

    def report_members(self, problems: Problems) -> None:
        """Report groups in place of utterances, ids that cannot be shown, and those that several entries match."""
        members = [] if self._in_folders else list(self._stored.values())[:100]
        if members and all(self._group_in(name) is not None for name in members):
            what = f"holds groups ({', '.join(map(printable, members[:3]))}) where utterances are expected"
            problems.add(self.path, what, "write one dataset for each utterance, at the top of the file")
        hidden = [name for name in self.names if has_control(name)]
        problems.add_if_any(self.path, hidden, "an id with control characters", "rename the entry")
        what = f"one of {len(self.ambiguous)} entries that --data.match_ids {self._match_ids} cannot tell apart"
        problems.add_if_any(self.path, self.ambiguous, what, "rename them, or match ids exactly")

    def entries(self, utterances: Sequence[str], require_all: bool, problems: Problems) -> Entries:
        """Look up utterances without reading their frames.

        Args:
            utterances: N ids.
            require_all: whether an utterance that is missing or has no frames is a problem.
            problems: collects what is wrong; an utterance with a problem has nothing to read.
        """
        lengths, widths, positions = (np.zeros(len(utterances), dtype=np.int64) for _ in range(3))
        single, half = (np.zeros(len(utterances), dtype=np.bool_) for _ in range(2))
        absent, empty = [], []
        refused: dict[str, tuple[Refusal, list[str]]] = {}
        for index, utterance in enumerate(utterances):
            if not self.holds(utterance):
                absent.append(utterance)
                continue
            try:
                # Reopened on read: thousands of open dataset handles cost hundreds of MB.
                dataset = self._open(utterance)
                shape, kind, offset = dataset.shape, dataset.get_type(), dataset.get_offset()
                refusal = self._refusal(dataset, shape, kind, offset)
            except _NotOursError as other:
                refusal = Refusal(str(other), _COPY)
            except H5_ERRORS:
                refusal = Refusal("not a readable dataset", _AGAIN)
            if refusal == _UNWRITTEN and self._empty_is_absent:
                empty.append(utterance)
            elif refusal is not None:
                refused.setdefault(refusal.what, (refusal, []))[1].append(utterance)
            elif shape[0] == 0:
                empty.append(utterance)
            else:
                lengths[index], widths[index] = shape
                single[index], half[index] = kind == _SINGLE, kind == _HALF
                # HDF5 gives no offset for frames in chunks or compressed.
                positions[index] = -1 if offset is None else offset

        there = lengths > 0
        width = Counter(widths[there].tolist()).most_common(1)[0][0] if there.any() else 0
        odd = np.flatnonzero(there & (widths != width)).tolist()
        lengths[odd] = 0
        all_half = bool(there.any() and half[there].all())
        positions[~(half if all_half else single)] = -1
        for refusal, names in refused.values():
            problems.add(self.path, refusal.what + refusal.detail, refusal.remedy, names)
        odd_width = widths[odd[0]] if odd else 0
        names = [utterances[index] for index in odd]
        what = f"frames of {odd_width} values where most have {width}"
        problems.add_if_any(self.path, names, what, "extract all with the same extractor")
        if require_all:
            problems.add_if_any(self.path, absent, "not in this file", self.remedy_for(utterances, absent))
            if not self._empty_is_absent:
                problems.add_if_any(self.path, empty, "has no frames", _LEAVE_OUT)
        return Entries(lengths, width, positions, np.dtype(np.float16 if all_half else np.float32))

    def refuse_strangers(self, utterances: Sequence[str]) -> None:
        """Refuse a file of other utterances: where gaps are allowed, ids that do not match would be one large gap.

        Raises:
            CorpusError: none of ``utterances`` is in the file.
        """
        if not any(map(self.holds, utterances)):
            what = f"holds none of {len(utterances)} utterances"
            Strict().add(self.path, what, self.remedy_for_strangers(utterances), utterances)

    def remedy_for(self, utterances: Sequence[str], absent: Sequence[str]) -> str:
        """What to do about utterances that are not in this file: match ids otherwise, move entries, or extract."""
        if not absent:
            return _LEAVE_OUT
        rule = rule_that_matches(utterances, self._stored.values()) if self._match_ids == EXACT else None
        if rule is not None:
            return f"ids differ by {rule.what} only: give --data.match_ids {rule.name}"
        for name in list(self._stored.values())[:100]:
            group = self._group_in(name)
            if group is not None and absent[0].encode(errors="surrogateescape") in group:
                return f"it is one group deeper, in {name!r}: write all entries at the top of the file"
        return _LEAVE_OUT

    def remedy_for_strangers(self, utterances: Sequence[str]) -> str:
        """What to do if none of ``utterances`` is in this file, though some may be under another form of their ids."""
        known = {key_of(name, "all") for name in self._stored.values()}
        near = [name for name in utterances if key_of(name, "all") in known] or utterances
        return self.remedy_for(near, near)

    def _open(self, utterance: str) -> Any:
        """Open the dataset of an utterance.

        Raises:
            _NotOursError: it is a link to another file.
            OSError, KeyError, ValueError, TypeError, RuntimeError: it cannot be opened, or is no dataset.
        """
        name = self._stored[key_of(utterance, self._match_ids)].encode()
        # HDF5 would open that file, which may be a device.
        if self._group.links.get_info(name).type not in (h5l.TYPE_HARD, h5l.TYPE_SOFT):
            raise _NotOursError("an external link: it would read another file")
        opened = h5o.open(self._group, name, self._access)
        if not isinstance(opened, h5d.DatasetID):
            raise TypeError("not a dataset")
        return opened

    def _refusal(self, dataset: Any, shape: Any, kind: Any, offset: int | None) -> Refusal | None:
        """Why a dataset is not read, None if it is."""
        filters, chunk = 0, 0
        if offset is None:
            made = dataset.get_create_plist()
            if made.get_external_count() > 0:
                return Refusal("external storage: it would read another file", _COPY)
            if made.get_layout() == h5d.VIRTUAL:
                return Refusal("a virtual dataset: it would read other datasets", _COPY)
            filters = made.get_nfilters()
            chunk = math.prod(made.get_chunk()) if made.get_layout() == h5d.CHUNKED else 0
        if shape and shape[0] == 0:
            return None
        if not shape or len(shape) != 2 or shape[1] == 0:
            given = "nothing" if shape is None else f"[{', '.join(map(str, shape))}]"
            return Refusal("not of the shape [frames, width]", _AGAIN, f" but {given}")
        frames, width = shape
        if frames > LONGEST:
            return Refusal(f"longer than {LONGEST} frames", "cut it into utterances", f": {frames}")
        if width > WIDEST or frames * width > MOST_VALUES:
            limits = f"wider than {WIDEST} values, or more than {MOST_VALUES} values in all"
            return Refusal(limits, "cut it into utterances, or pool its frames", f": [{frames}, {width}]")
        if chunk > LARGEST_CHUNK:
            return Refusal(f"in chunks of more than {LARGEST_CHUNK} values", "store it in smaller ones", f": {chunk}")
        stored, declared = dataset.get_storage_size(), frames * width * kind.get_size()
        if stored == 0:
            return _UNWRITTEN
        if stored > self._size or declared > stored * (MOST_COMPRESSED if filters else 1):
            there = min(stored, self._size)
            return Refusal("not wholly written", _AGAIN, f": {declared} bytes declared, {there} stored")
        return None

    def _group_in(self, name: str) -> Any:
        """The group of this name at the top of the file, None if that is something else."""
        try:
            link = self._file.id.links.get_info(name.encode())
            opened = h5o.open(self._file.id, name.encode(), self._access) if link.type == h5l.TYPE_HARD else None
        except H5_ERRORS:
            return None
        return opened if isinstance(opened, h5g.GroupID) else None

    def read_into(self, utterance: str, frames: FloatArray) -> bool:
        """Read an utterance into ``frames``, contiguous and of its shape; False if it cannot be read."""
        try:
            dataset = self._open(utterance)
            # HDF5 would write beyond the end of a smaller array.
            if dataset.shape != frames.shape:
                return False
            dataset.read(h5s.ALL, h5s.ALL, frames)
        except (*H5_ERRORS, _NotOursError):
            return False
        return True

    def without_zero_frames(self, utterances: Sequence[str], entries: Entries) -> Entries:
        """``entries`` of ``utterances``, without those whose frames are all zero."""
        lengths = entries.lengths.copy()
        for index, utterance in enumerate(utterances):
            frames = np.empty((lengths[index], entries.width), dtype=np.float32)
            if len(frames) and self.read_into(utterance, frames) and not frames.any():
                lengths[index] = 0
        return replace(entries, lengths=lengths)

    def width(self) -> int:
        """Number of values in a frame of the first utterance that has frames, 0 if none has.

        Raises:
            CorpusError: no utterance can be read, and one has something other than frames.
        """
        problems = Problems()
        for name in self.names:
            if width := self.entries([name], False, problems).width:
                return width
        for problem in problems.found[:1]:
            Strict().add(problem.path, problem.what, problem.remedy, self.names)
        return 0


def _below(group: Any) -> list[str]:
    """Names of all entries below a group, ``group/entry``, without the groups; no link to elsewhere is followed."""
    names: list[bytes] = []
    try:
        group.links.visit(lambda name, link: names.append(name), info=True)
    except H5_ERRORS:  # a damaged group; what is wrong with its entries is said when they are opened
        return [h5_name(name) for name in group]
    groups = {name.rpartition(b"/")[0] for name in names}
    return [h5_name(name) for name in names if name not in groups]


class _NotOursError(Exception):
    """An entry that leads to another file; the message says how."""


_AGAIN = "extract its features again"
_COPY = "write its frames into this file"
_LEAVE_OUT = "extract its features, take it out of the target files, or give --data.incomplete keep (or drop)"


class Refusal(NamedTuple):
    """Why an entry is not read.

    Attributes:
        what: the reason, the same for all entries that have it.
        remedy: what the user can do about it.
        detail: of this entry.
    """

    what: str
    remedy: str
    detail: str = ""


_UNWRITTEN = Refusal("was never written, so it would be read as zeros", _AGAIN)


def open_features(
    path: Path,
    problems: Problems,
    match_ids: MatchRule = EXACT,
    empty_is_absent: bool = False,
    in_folders: bool = False,
) -> FeatureFile | None:
    """Open a feature file for reading; a problem and None if that cannot be done.

    Args:
        path: of the file.
        problems: collects what is wrong.
        match_ids: the rule by which ids are those of entries.
        empty_is_absent: whether an entry without frames, or never written, lacks the modality instead of being a
            problem.
        in_folders: whether ids name groups of the file.
    """
    opened = open_hdf5(path, problems)
    if opened is None:
        return None
    file = FeatureFile(path, opened, match_ids, empty_is_absent, in_folders)
    file.report_members(problems)
    return file


def report_bad_frames(path: Path, unreadable: Sequence[str], not_finite: Sequence[str], problems: Problems) -> None:
    """Report utterances whose frames cannot be read, and those with NaN or infinite values."""
    remedy = "extract its features again"
    problems.add_if_any(path, unreadable, "cannot be read: damaged, or not numbers", remedy)
    problems.add_if_any(path, not_finite, "has NaN or infinite values", f"{remedy}, or leave it out")
