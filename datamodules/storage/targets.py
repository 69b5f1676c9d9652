"""Label files of a fold: which utterances are in train, val and test, and their labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path

import numpy as np
import numpy.typing as npt

from datamodules.labels import LabelArray
from datamodules.storage.arrays import load_array, readable_size
from datamodules.storage.ids import key_of, tidy
from datamodules.storage.layouts import Layout, speakers_of
from datamodules.storage.problems import Problems, Strict, root_exists
from datamodules.text import has_control

IntArray = npt.NDArray[np.int64]

SPLITS: tuple[str, str, str] = ("train", "val", "test")
"""The three parts of a fold, stored in files whose names begin with ``trn_``, ``val_`` and ``tst_``."""

_PREFIX = {"train": "trn", "val": "val", "test": "tst"}


@dataclass(frozen=True)
class Targets:
    """One split of one fold.

    Attributes:
        utterances: n utterance ids, all different.
        labels: [n], int64 class numbers or float32 values.
        soft: float32 [n, C], the probability of each class, where labels are soft; otherwise None.
        dropped: utterances that are left out because their label is unknown.
        left_out: how many utterances of each class are left out by choice, by its name in the label files.
    """

    utterances: list[str]
    labels: LabelArray
    soft: npt.NDArray[np.float32] | None = None
    dropped: int = 0
    left_out: Mapping[str, int] = field(default_factory=dict)

    def only(self, wanted: Collection[str]) -> Targets:
        """Those of the utterances that are ``wanted``, in their order."""
        rows = np.array([name in wanted for name in self.utterances], dtype=np.bool_)
        if rows.all():
            return self
        left = [name for name, kept in zip(self.utterances, rows.tolist(), strict=True) if kept]
        return replace(
            self, utterances=left, labels=self.labels[rows], soft=None if self.soft is None else self.soft[rows]
        )


def label_path(folder: Path, split: str) -> Path:
    """Path of a split's labels."""
    return folder / f"{_PREFIX[split]}_label.npy"


def id_path(folder: Path, split: str) -> Path:
    """Path of a split's utterance ids."""
    return folder / f"{_PREFIX[split]}_int2name.npy"


def read_targets(
    root: Path, layout: Layout, fold: int, problems: Problems | None = None, splits: Sequence[str] = SPLITS
) -> dict[str, Targets]:
    """Read the label files of one fold.

    Ids may be bytes or text, [n] or [n, 1]; labels one-hot or probabilities, [n, classes], or class numbers, [n] or
    [n, 1], or values on a scale, [n] or [n, 1].

    Args:
        root: the corpus's folder.
        layout: which files to read, and what labels are.
        fold: from 1.
        problems: collects what is wrong; by default the first problem is raised.
        splits: which of :data:`SPLITS` to read; files of the others are not opened.

    Returns:
        the targets of each of ``splits`` that can be used.

    Raises:
        InputError: there is no such fold.
        CorpusError: without ``problems``: a file is missing or pickled or malformed, ids and labels differ in number,
            an id occurs twice, a label is not one of the layout's, an id lacks the speaker that others have.
    """
    problems = problems or Strict()
    folder = layout.target_folder(Path(root), fold)
    if not root_exists(Path(root), problems):
        return {}
    if not folder.is_dir():
        problems.add(folder, "this fold has no folder", "copy the corpus's target folder again")
        return {}
    targets: dict[str, Targets] = {}
    for split in splits:
        found = _read_split(folder, split, layout, problems)
        if found is not None:
            targets[split] = found
    for first, second in combinations(targets, 2):
        among = {key_of(utterance, layout.match_ids) for utterance in targets[first].utterances}
        seconds = dict.fromkeys(targets[second].utterances)
        twice = [utterance for utterance in seconds if key_of(utterance, layout.match_ids) in among]
        problems.add_if_any(folder, twice, f"in both {first} and {second}", "keep it in one of them")
    named = {} if layout.description is None else layout.description.speakers
    if named:
        listed = (name for split in targets.values() for name in split.utterances)
        nobody = [name for name in listed if key_of(name, layout.match_ids) not in named]
        what = "no speaker of it in corpus.json, which has those of others"
        problems.add_if_any(folder, nobody, what, "add it to its speakers, or null where nobody knows")
    return targets


def _read_split(folder: Path, split: str, layout: Layout, problems: Problems) -> Targets | None:
    """Read one split, None if it cannot be used."""
    ids, labels = _load_ids(id_path(folder, split), problems), load_array(label_path(folder, split), problems)
    if ids is None or labels is None:
        return None
    if len(ids) != len(labels):
        what = f"{len(labels)} labels where {id_path(folder, split).name} has {len(ids)} utterances"
        problems.add(label_path(folder, split), what, "write both files again, from the same list")
        return None
    ids = [tidy(name, layout.match_ids) for name in ids]
    keys = [key_of(name, layout.match_ids) for name in ids]
    twice = [utterance for utterance, count in Counter(keys).items() if count > 1]
    problems.add_if_any(id_path(folder, split), twice, "listed more than once", "list it once")
    path = label_path(folder, split)
    read = layout.labels.read(path, ids, labels, problems, layout.drop_unknown_labels)
    if read is None:
        return None
    if not read.known.any():
        what = "no utterance is of a class that is told apart" if read.left_out else "no utterance has a known label"
        problems.add(path, what, "choose others by --data.classes" if read.left_out else "check the class numbers")
        return None
    if read.known.all():
        return Targets(ids, read.numbers, read.soft)
    left = [name for name, known in zip(ids, read.known.tolist(), strict=True) if known]
    soft = None if read.soft is None else read.soft[read.known]
    unknown = len(ids) - len(left) - sum(read.left_out.values())
    return Targets(left, read.numbers[read.known], soft, unknown, read.left_out)


def left_out_by_choice(targets: Mapping[str, Targets]) -> str:
    """Utterances of all splits that are left out by choice, in words; empty if there are none.

    >>> left_out_by_choice({"val": Targets([], np.array([]), left_out={"excited": 3, "fear": 1})})
    '4 utterances are of classes that are left out (excited 3, fear 1)'
    """
    total: Counter[str] = Counter()
    for split in targets.values():
        total.update(split.left_out)
    each = ", ".join(f"{name} {count}" for name, count in total.items())
    return f"{total.total()} utterances are of classes that are left out ({each})" if total else ""


def _load_ids(path: Path, problems: Problems) -> list[str] | None:
    """Load the utterance ids in a file."""
    array = load_array(path, problems)
    if array is None:
        return None
    remedy = "write one utterance id a row, as text or UTF-8 bytes"
    if array.dtype.kind not in "SU" or array.size != len(array):
        problems.add(path, f"holds {array.dtype} {list(array.shape)} where ids are expected", remedy)
        return None
    try:
        ids = [name.decode() if isinstance(name, bytes) else str(name) for name in array.ravel().tolist()]
    except UnicodeDecodeError:
        problems.add(path, "holds ids that are not UTF-8", remedy)
        return None
    hidden = [name for name in ids if has_control(name)]
    problems.add_if_any(path, hidden, "an id with control characters", "rename the utterance")
    return ids


def target_files(folder: Path) -> tuple[bytes, ...] | None:
    """Contents of a fold's six files, None if one cannot be read."""
    paths = [name(folder, split) for split in SPLITS for name in (label_path, id_path)]
    try:
        return tuple(path.read_bytes() for path in paths) if all(map(readable_size, paths)) else None
    except OSError:
        return None


def identical_folds(root: Path, layout: Layout, fold: int) -> list[int]:
    """Find the other folds whose six target files are byte for byte those of ``fold``.

    It happens in the public pack. Such folds are one experiment, not two.

    Raises:
        InputError: there is no such fold.
    """
    contents = target_files(layout.target_folder(Path(root), fold))
    if contents is None:
        return []
    others = (other for other in range(1, layout.folds + 1) if other != fold)
    return [other for other in others if target_files(layout.target_folder(Path(root), other)) == contents]


def shared_speakers(
    targets: Mapping[str, Targets], layout: Layout, first: str = "train", second: str = "test"
) -> set[str]:
    """Find the speakers that occur in two splits of a fold; there should be none."""
    return speakers_of(targets[first].utterances, layout) & speakers_of(targets[second].utterances, layout)
