"""The label files of a fold: which utterances are in train, val and test, and their classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from datamodules.storage.layouts import Layout, speakers_of
from datamodules.storage.problems import Problem, about, raise_first, root_problems

IntArray = npt.NDArray[np.int64]

SPLITS: tuple[str, str, str] = ("train", "val", "test")
"""The three parts of a fold, stored in files whose names begin with ``trn_``, ``val_`` and ``tst_``."""

_PREFIX = {"train": "trn", "val": "val", "test": "tst"}


@dataclass(frozen=True)
class Targets:
    """One split of one fold.

    Attributes:
        utterances: n utterance ids, all different.
        labels: int64 [n], each in 0..classes-1.
    """

    utterances: list[str]
    labels: IntArray


def label_path(folder: Path, split: str) -> Path:
    """The file with a split's labels."""
    return folder / f"{_PREFIX[split]}_label.npy"


def id_path(folder: Path, split: str) -> Path:
    """The file with a split's utterance ids."""
    return folder / f"{_PREFIX[split]}_int2name.npy"


def read_targets(root: Path, layout: Layout, fold: int) -> dict[str, Targets]:
    """Read the label files of one fold.

    Ids may be bytes or text, [n] or [n, 1]; labels one-hot [n, classes] or class numbers, [n] or [n, 1].

    Returns:
        the targets of each of :data:`SPLITS`.

    Raises:
        InputError: there is no such fold.
        CorpusError: a file is missing or pickled or malformed, ids and labels differ in number, an id
            occurs twice, a label is not one of the layout's classes.
    """
    folder = layout.target_folder(Path(root), fold)
    raise_first(root_problems(Path(root)))
    targets, problems = examine_fold(folder, layout)
    raise_first(problems)
    return targets


def examine_fold(folder: Path, layout: Layout) -> tuple[dict[str, Targets], list[Problem]]:
    """Read what can be read of a fold; the splits that can be used, and all that is wrong."""
    if not folder.is_dir():
        return {}, [Problem(folder, "this fold has no folder", "copy the corpus's target folder again")]
    targets: dict[str, Targets] = {}
    problems: list[Problem] = []
    for split in SPLITS:
        found, wrong = _examine_split(folder, split, layout)
        problems += wrong
        if found is not None:
            targets[split] = found
    for first, second in combinations(targets, 2):
        among = set(targets[first].utterances)
        twice = [utterance for utterance in dict.fromkeys(targets[second].utterances) if utterance in among]
        problems += about(folder, twice, f"in both {first} and {second}", "keep it in one of them")
    return targets, problems


def _examine_split(folder: Path, split: str, layout: Layout) -> tuple[Targets | None, list[Problem]]:
    """One split, or None where it cannot be used, and what is wrong with it."""
    ids, labels = _load_ids(id_path(folder, split)), _load_array(label_path(folder, split))
    if isinstance(ids, Problem) or isinstance(labels, Problem):
        return None, [value for value in (ids, labels) if isinstance(value, Problem)]
    if len(ids) != len(labels):
        what = f"{len(labels)} labels where {id_path(folder, split).name} has {len(ids)} utterances"
        return None, [Problem(label_path(folder, split), what, "write both files again, from the same list")]
    twice = [utterance for utterance, count in Counter(ids).items() if count > 1]
    problems = about(id_path(folder, split), twice, "listed more than once", "list it once")
    numbers = _class_numbers(label_path(folder, split), ids, labels, len(layout.class_names))
    if isinstance(numbers, Problem):
        return None, [*problems, numbers]
    return Targets(ids, numbers), problems


def _load_array(path: Path) -> npt.NDArray[Any] | Problem:
    """A NumPy file of at least one row, never unpickled."""
    try:
        with path.open("rb") as stream:
            array = np.lib.format.read_array(stream, allow_pickle=False)
    except FileNotFoundError:
        return Problem(path, "does not exist", "copy the corpus's target folder again")
    except (OSError, EOFError) as error:
        return Problem(path, f"cannot be read ({error})", "copy it again")
    except ValueError as error:
        if "allow_pickle" in str(error):
            return Problem(path, "is pickled, which is refused as unsafe", "save it as plain numbers or text")
        return Problem(path, f"is not a whole NumPy file ({error})", "copy it again")
    if array.ndim == 0 or len(array) == 0:
        return Problem(path, "holds no utterance", "write it again; a split needs at least one")
    return np.asarray(array)


def _load_ids(path: Path) -> list[str] | Problem:
    """The utterance ids in a file."""
    array = _load_array(path)
    if isinstance(array, Problem):
        return array
    remedy = "write one utterance id a row, as text or UTF-8 bytes"
    if array.dtype.kind not in "SU" or array.size != len(array):
        return Problem(path, f"holds {array.dtype} {list(array.shape)} where ids are expected", remedy)
    try:
        return [name.decode() if isinstance(name, bytes) else str(name) for name in array.ravel().tolist()]
    except UnicodeDecodeError:
        return Problem(path, "holds ids that are not UTF-8", remedy)


def _class_numbers(path: Path, ids: list[str], labels: npt.NDArray[Any], classes: int) -> IntArray | Problem:
    """int64 [n], each in 0..classes-1, from one-hot rows or class numbers."""
    if labels.dtype.kind not in "fiub" or labels.ndim > 2:
        what = f"holds {labels.dtype} {list(labels.shape)} where labels are expected"
        return Problem(path, what, "write one-hot rows or class numbers")
    one_hot = labels.size != len(labels)
    if one_hot and labels.shape[1] != classes:
        what = f"one-hot labels of {labels.shape[1]} classes where the corpus has {classes}"
        return Problem(path, what, "write the labels of these classes only")
    if one_hot:
        numbers: IntArray = labels.argmax(axis=1).astype(np.int64)
        wrong = np.flatnonzero((labels != np.eye(classes)[numbers]).any(axis=1))
        remedy = "write one 1 and otherwise 0 in each row"
    else:
        known = np.isin(labels.ravel(), np.arange(classes))
        numbers = np.where(known, labels.ravel(), 0).astype(np.int64)
        wrong = np.flatnonzero(~known)
        remedy = "leave out utterances of other classes"
    if not len(wrong):
        return numbers
    what = "is not one-hot" if one_hot else f"is outside 0..{classes - 1}"
    value = np.squeeze(labels[wrong[0]]).tolist()
    return Problem(path, f"label {value} {what}", remedy, tuple(ids[row] for row in wrong))


def target_files(folder: Path) -> tuple[bytes, ...] | None:
    """The contents of a fold's six files, or None where one cannot be read."""
    try:
        return tuple(name(folder, split).read_bytes() for split in SPLITS for name in (label_path, id_path))
    except OSError:
        return None


def identical_folds(root: Path, layout: Layout, fold: int) -> list[int]:
    """The other folds whose six target files are byte for byte those of ``fold``.

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
    """The speakers that occur in two splits of a fold; there should be none."""
    return speakers_of(targets[first].utterances, layout) & speakers_of(targets[second].utterances, layout)
