"""Packs in the form that MMSA published: a pickle of splits, each a dictionary of arrays and lists by name.

::

    {"train": {"id": ["03bSnISJMiM$_$1", ...], "regression_labels": [n], "raw_text": [n],
               "audio": [n, T, D], "vision": [n, T, D], "text": [n, T, D], "text_bert": [n, 3, T],
               "audio_lengths": [n], "vision_lengths": [n]},
     "valid": {...}, "test": {...}}

Packs whose modalities are aligned to words state no lengths; the mask in ``text_bert`` says how many words there are.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from datamodules.conditions import MODALITIES
from datamodules.importing.pickles import Unpickled, plain, read_pickle
from datamodules.importing.sequences import Counts, FloatArray, IntArray, Padded, Sequences, cut, last_of_mask
from datamodules.labels import Scale
from datamodules.storage.description import check_ids
from datamodules.storage.layouts import Layout, speaker_of
from datamodules.storage.objects import UnsafePickleError
from datamodules.storage.problems import Problems, Strict
from datamodules.storage.targets import SPLITS

Said = Callable[[str, int], None]
"""Told what is being done, and to how many more utterances it was."""

KEYS: Mapping[str, str] = {"audio": "audio", "visual": "vision", "text": "text"}
"""Name of each modality in a pack."""

_NAMES: Mapping[str, tuple[str, ...]] = {"train": ("train",), "val": ("valid", "val", "dev"), "test": ("test",)}

_COPY = "copy the pack again, and compare its SHA-256 with the published one"


def pack_name(split: str) -> str:
    """What a pack calls a split: ``valid`` for ``val``."""
    return _NAMES[split][0]


@dataclass(frozen=True)
class Split:
    """One split of a pack.

    Attributes:
        ids: of n utterances.
        labels: float32 [n].
        sequences: of each modality.
    """

    ids: list[str]
    labels: FloatArray
    sequences: Mapping[str, Sequences]


@dataclass
class Pack:
    """A pack, read and found to be whole.

    Attributes:
        splits: by the names of :data:`~datamodules.storage.targets.SPLITS`.
        widths: of the frames of each modality.
        aligned: whether all modalities have the same steps and the pack states no lengths.
        counts: what was changed of each modality; that of values is known once frames are read.
        invented: whether the pack says that it is made up.
        shared: videos in two splits, by these splits.
        without_video: ids that name no video.
    """

    splits: dict[str, Split]
    widths: dict[str, int]
    aligned: bool
    counts: dict[str, Counts]
    invented: bool = False
    shared: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    without_video: int = 0
    _content: Unpickled | None = None

    @property
    def sizes(self) -> tuple[int, ...]:
        """Utterances of each split."""
        return tuple(len(self.splits[split].ids) for split in SPLITS)

    def release(self) -> None:
        """Give back the memory of what was read."""
        if self._content is not None:
            self._content.release()


def read_pack(path: Path, layout: Layout, said: Said = lambda what, count: None) -> Pack:
    """Read a pack; its frames stay in the file.

    Args:
        path: of the pickle.
        layout: of its corpus.
        said: told of the progress.

    Raises:
        CorpusError: it is damaged, calls something, lacks an entry, or its entries do not agree; a label is outside the
            scale. One line that names the split and the utterance.
    """
    problems = Strict()
    try:
        content = read_pickle(path)
    except UnsafePickleError as error:
        problems.add(path, str(error), _COPY)
        raise
    except OSError as error:
        problems.add(path, f"cannot be read ({error.strerror or error})", "give the path of the pack")
        raise
    found = plain(content.value)
    pack = Pack({}, {}, False, {name: Counts() for name in MODALITIES}, _content=content)
    pack.invented = isinstance(found, dict) and found.get("invented") is True
    for split in SPLITS:
        part = _part(path, found, split, problems)
        pack.splits[split] = _Reader(path, split, part, layout, pack, said).read()
        pack.release()
    _check_ids(path, pack, layout, problems)
    return pack


def _part(path: Path, found: Any, split: str, problems: Problems) -> dict[str, Any]:
    names = _NAMES[split]
    part = next((found[name] for name in names if name in found), None) if isinstance(found, dict) else None
    if not isinstance(part, dict):
        there = f"{', '.join(str(name)[:40] for name in [*found][:8])}" if isinstance(found, dict) else "no dictionary"
        what = f"has no split {names[0]}, but {there or 'nothing'}"
        problems.add(path, what, "give a pack in the form that MMSA published: train, valid and test")
        raise AssertionError("the line before has raised")
    return part


class _Reader:
    """Reads one split."""

    def __init__(self, path: Path, split: str, part: dict[str, Any], layout: Layout, pack: Pack, said: Said) -> None:
        self.path, self.split, self.part, self.layout, self.pack, self.said = path, split, part, layout, pack, said
        self.problems = Strict()
        self.ids: list[str] = []

    def read(self) -> Split:
        """The split.

        Raises:
            CorpusError: see :func:`read_pack`.
        """
        self.ids = self._texts("id")
        labels = self._labels()
        padded = {modality: self._padded(modality) for modality in MODALITIES}
        mask = self._mask(padded["text"])
        stated = {modality: self._stated(modality, padded[modality]) for modality in ("audio", "visual")}
        aligned = mask is not None and all(
            stated[modality] is None and _steps(padded[modality]) == _steps(padded["text"]) for modality in stated
        )
        self.pack.aligned = aligned
        sequences = {}
        for modality in MODALITIES:
            counts, known = self.pack.counts[modality], stated.get(modality)
            if modality == "text" and mask is not None:
                # BERT gives the padding vectors too, so that only the mask tells where words end.
                stop = np.minimum(mask, _steps(padded[modality]))
                counts.padding_frames += int((np.array(_steps(padded[modality])) - stop).sum())
                sequences[modality] = Sequences(padded[modality], np.zeros_like(stop), stop)
            else:
                known = mask if aligned else known
                sequences[modality] = cut(padded[modality], known, not aligned, counts, self._done(modality))
        return Split(self.ids, labels, sequences)

    def _done(self, modality: str) -> Callable[[int], None]:
        before = 0

        def done(count: int) -> None:
            nonlocal before
            self.said(f"lengths of {self.split} {modality}", count - before)
            before = count
            self.pack.release()

        return done

    def _refuse(self, what: str, remedy: str = _COPY, utterances: Sequence[str] = ()) -> None:
        self.problems.add(self.path, f"{pack_name(self.split)}: {what}", remedy, utterances)

    def _entry(self, name: str, remedy: str = _COPY) -> Any:
        if name not in self.part:
            self._refuse(f"has no {name}, but {', '.join(str(key)[:40] for key in [*self.part][:20])}", remedy)
        return plain(self.part[name])

    def _same_number(self, name: str, count: int) -> None:
        if count != len(self.ids):
            self._refuse(f"has {count} entries of {name}, but {len(self.ids)} ids")

    def _texts(self, name: str) -> list[str]:
        found = self._entry(name)
        found = found.ravel().tolist() if isinstance(found, np.ndarray) else found
        if not isinstance(found, list) or not found:
            self._refuse(f"{name} is no list of texts")
        texts = [each.decode("utf-8", "replace") if isinstance(each, bytes) else each for each in found]
        if any(not isinstance(each, str) for each in texts):
            self._refuse(f"{name} has something other than texts")
        return texts

    def _labels(self) -> FloatArray:
        values = _numbers(self._entry("regression_labels"))
        if values is None or values.size != len(values):
            self._refuse("regression_labels are no list of numbers")
            raise AssertionError("the line before has raised")
        self._same_number("regression_labels", len(values))
        labels = values.ravel().astype(np.float32)
        scale = self.layout.labels
        assert isinstance(scale, Scale)
        wrong = np.flatnonzero(~((labels >= scale.low) & (labels <= scale.high)))
        if len(wrong):
            what = f"label {values.ravel()[wrong[0]]:g} is outside {scale.low:g}..{scale.high:g}"
            self._refuse(what, "correct the label, or name the corpus it is of", [self.ids[row] for row in wrong])
        return labels

    def _padded(self, modality: str) -> Padded:
        name = KEYS[modality]
        remedy = _COPY
        if name == "text" and "text" not in self.part and "text_bert" in self.part:
            remedy = "text_bert has numbers of words, not features: take a pack with text, or add BERT's output as text"
        found = self._entry(name, remedy)
        if isinstance(found, np.ndarray):
            each = [found[0]] if found.ndim == 3 and len(found) else []
        else:
            found = [plain(frames) for frames in found] if isinstance(found, list) else []
            each = found
        good = [isinstance(frames, np.ndarray) and frames.ndim == 2 and frames.dtype.kind in "fiub" for frames in each]
        if not each or not all(good):
            self._refuse(f"{name} is no array [utterances, steps, width] of numbers")
        self._same_number(name, len(found))
        width = self.pack.widths.setdefault(modality, each[0].shape[1])
        odd = [self.ids[row] for row, frames in enumerate(each) if frames.shape[1] != width or not len(frames)]
        if odd or not width:
            self._refuse(f"{name} is not [steps, {width}] as before, with a step at least", _COPY, odd)
        return cast(Padded, found)

    def _mask(self, text: Any) -> IntArray | None:
        """Words of each utterance by the mask; None without one that fits."""
        if "text_bert" not in self.part:
            return None
        found = _numbers(plain(self.part["text_bert"]))
        if found is None or found.ndim != 3 or found.shape[1] != 3:
            self._refuse("text_bert is no array [utterances, 3, steps] of numbers")
            raise AssertionError("the line before has raised")
        self._same_number("text_bert", len(found))
        fits = set(np.atleast_1d(_steps(text)).tolist()) == {found.shape[2]}
        return last_of_mask(found[:, 1]) if fits else None

    def _stated(self, modality: str, padded: Any) -> IntArray | None:
        """Lengths that the pack states; None if it states none."""
        name = f"{KEYS[modality]}_lengths"
        if name not in self.part:
            return None
        found = _numbers(plain(self.part[name]))
        if found is None or found.size != len(found) or (found != np.round(found)).any():
            self._refuse(f"{name} are no list of whole numbers")
            raise AssertionError("the line before has raised")
        self._same_number(name, len(found))
        lengths: IntArray = found.ravel().astype(np.int64)
        steps = np.broadcast_to(np.array(_steps(padded)), lengths.shape)
        wrong = np.flatnonzero((lengths < 0) | (lengths > steps))
        if len(wrong):
            first = wrong[0]
            what = f"{name} says {lengths[first]}, but {KEYS[modality]} has {steps[first]} steps"
            self._refuse(what, _COPY, [self.ids[row] for row in wrong])
        return lengths


def _steps(padded: Any) -> Any:
    """Steps with padding: one number of an array [n, T, D], otherwise n."""
    return padded.shape[1] if isinstance(padded, np.ndarray) else [len(frames) for frames in padded]


def _numbers(found: Any) -> npt.NDArray[Any] | None:
    """An array of numbers, at least [n]; None of anything else."""
    if isinstance(found, list):
        values = [plain(value) for value in found]
        shapes = {np.shape(value) if isinstance(value, np.ndarray) else () for value in values}
        kinds = all(isinstance(value, (int, float, np.ndarray)) for value in values)
        if not kinds or len(shapes) != 1:
            return None
        try:
            found = np.array(values)
        except (OverflowError, ValueError):
            return None
    fine = isinstance(found, np.ndarray) and found.ndim and len(found) and found.dtype.kind in "fiub"
    return found if fine else None


def _check_ids(path: Path, pack: Pack, layout: Layout, problems: Problems) -> None:
    """Refuse ids that occur twice or cannot be stored; find the videos that splits share."""
    videos: dict[str, set[str]] = {}
    first_in: dict[str, str] = {}
    for split, part in pack.splits.items():
        twice = [name for name, count in Counter(part.ids).items() if count > 1]
        problems.add_if_any(path, twice, f"{pack_name(split)}: listed more than once", _COPY)
        both = [name for name in part.ids if first_in.setdefault(name, split) != split]
        where = pack_name(first_in[both[0]]) if both else ""
        problems.add_if_any(path, both, f"{pack_name(split)}: listed in {where} too", _COPY)
        check_ids(path, part.ids, problems)
        slashes = [name for name in part.ids if "/" in name]
        problems.add_if_any(path, slashes, f"{pack_name(split)}: an id with a slash", "rename the utterance")
        named = [speaker_of(name, layout) for name in part.ids]
        pack.without_video += named.count(None)
        videos[split] = {name for name in named if name is not None}
    for first, second in (("train", "val"), ("train", "test"), ("val", "test")):
        if both := sorted(videos[first] & videos[second]):
            pack.shared[first, second] = both


def not_finite(frames: FloatArray) -> str | None:
    """The first value of frames that is not finite, in words; None if all are.

    >>> not_finite(np.array([[0, np.nan]], dtype=np.float32))
    'nan'
    """
    wrong = frames[~np.isfinite(frames)]
    return re.sub(r"\.0$", "", str(float(wrong[0]))) if len(wrong) else None
