"""Target files: hostile or damaged is one line in `fit` and `check` alike; arrays of plain objects are read."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamodules.storage.check import check_corpus
from tests.faults.cases import Case, table
from tests.faults.tiny import (
    ANY,
    IDS,
    LABEL,
    LABELS,
    NAMES,
    Runs,
    Tiny,
    complaints,
    npy,
    of,
    raw_pickle,
    read_or_refused,
    replaced,
)


def pickled(*objects: Any, name: str = LABEL) -> Callable[[Path], None]:
    """A NumPy file whose pickle is that of an array of ``objects``."""
    array = np.empty(len(objects), dtype=object)
    array[:] = objects
    return replaced(name, lambda path: np.save(path, array, allow_pickle=True))


TARGETS = [
    Case("1e12 rows", replaced(LABEL, npy(of("<f8", "(1000000000000, 4)"))), "trn_label.npy: is not a whole NumPy"),
    Case("1e30 rows", replaced(LABEL, npy(of("<f8", f"({10**30},)"))), "trn_label.npy: is not a whole NumPy file"),
    Case("negative rows", replaced(LABEL, npy(of("<f8", "(-1, 4)"), b"x" * 64)), "is not a whole NumPy file"),
    Case(
        "1e12 rows of nothing", replaced(IDS, npy(of("|S0", "(1000000000000,)"))), "holds |S0 [1000000000000], neither"
    ),
    Case("texts of 1e18 bytes", replaced(IDS, npy(of("|S1000000000000000000", "(8,)"))), "trn_int2name.npy: "),
    Case("header without end", replaced(LABEL, npy("{'descr': '<f8'")), "is not a whole NumPy file"),
    Case("header nested a thousandfold", replaced(LABEL, npy("(" * 5000 + ")" * 5000)), "is not a whole NumPy file"),
    Case("header of 20 kB", replaced(LABEL, npy(" " * 20_000)), "is not a whole NumPy file"),
    Case("header that is a number", replaced(LABEL, npy("1")), "is not a whole NumPy file"),
    Case(
        "header that calls", replaced(LABEL, npy("__import__('os').system('touch ran')")), "is not a whole NumPy file"
    ),
    Case("version 9", replaced(LABEL, npy(of("<f8", "(8,)"), version=b"\x09\x00")), "is not a whole NumPy file"),
    Case("unknown type", replaced(LABEL, npy(of("<q9", "(8,)"), b"x" * 72)), "is not a whole NumPy file"),
    Case(
        "structure of labels", replaced(LABEL, lambda p: np.save(p, np.zeros(8, "i4,i4"))), "neither numbers nor text"
    ),
    Case("labels cut", replaced(LABEL, npy(of("<f8", "(8, 4)"), b"x" * 100)), "declared, 100 bytes there"),
    Case("labels a zip", replaced(LABEL, lambda p: p.write_bytes(b"PK\x03\x04" + b"0" * 99)), "is not a whole NumPy"),
    Case("labels a pipe", replaced(LABEL, os.mkfifo), "trn_label.npy: is a pipe, not a file"),
    Case("ids a folder", replaced(IDS, Path.mkdir), "trn_int2name.npy: is a folder, not a file"),
    Case("ids a device", replaced(IDS, lambda p: p.symlink_to("/dev/zero")), "is a device or socket, not a file"),
    Case("dates", replaced(LABEL, lambda p: np.save(p, np.zeros(8, "M8[s]"))), "where labels are expected"),
    Case("complex labels", replaced(LABEL, lambda p: np.save(p, np.zeros(8, complex))), "where labels are expected"),
    Case("pickle that runs a command", pickled(*[Runs()] * 8), "trn_label.npy: is pickled, and "),
    Case("pickle alone that runs a command", raw_pickle(pickle.dumps(Runs())), "system, which is refused as unsafe"),
    Case("pickle of eval", raw_pickle(b"c__builtin__\neval\n(S'1'\ntR."), "is pickled, and calls __builtin__.eval"),
    Case("pickle of a class", pickled(*[Path("x")] * 8), "is pickled, and "),
    Case("pickle of dictionaries", pickled(*[{}] * 8), "is pickled, and holds empty_dict"),
    Case("pickle of None", pickled(*[None] * 8), "is pickled, and holds something other than text and numbers"),
    Case("pickle of text and numbers", pickled(*["a", 1] * 4), "is pickled, and holds a mixture"),
    Case("pickle of uneven rows", pickled(*[[1, 0], [1]] * 4), "is pickled, and holds a mixture"),
    Case("pickle nested deeply", raw_pickle(b"\x80\x02" + b"]" * 50_000 + b"a" * 49_999 + b"."), "not an array"),
    Case("pickle of a far place", raw_pickle(b"\x80\x02]r\xff\xff\xff\x7f."), "is pickled, and is damaged"),
    Case("pickle of long bytes", raw_pickle(b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7f."), "is pickled, and is damaged"),
    Case("pickle by number", raw_pickle(b"\x80\x02\x82\x01."), "is pickled, and holds ext1"),
    Case("pickle by persistent id", raw_pickle(b"Pthere\n."), "is pickled, and holds persid"),
    Case("pickle cut", raw_pickle(pickle.dumps(np.empty(8, object))[:40]), "is pickled, and is damaged"),
    Case("pickle of another size", raw_pickle(pickle.dumps(np.empty(9, object))), "not an array of the shape"),
    Case("pickle of numbers as objects", raw_pickle(pickle.dumps(np.zeros(8))), "is pickled, and "),
    Case("pickle in a structure", replaced(LABEL, npy(of([("a", "|O")], "(8,)"))), "neither numbers nor text"),
]


@pytest.mark.parametrize("case", table(TARGETS))
def test_fit_and_check_refuse_the_same_targets_and_run_nothing(
    case: Case, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    case.make(root)
    line, lines = complaints(root)
    assert case.expected in line
    assert line in lines
    assert not (root / "ran").exists()


# Arrays of objects, as data frames and older scripts leave them.

OBJECTS: dict[str, Callable[[Path], object]] = {
    "ids as objects": lambda root: np.save(root / IDS, np.array(NAMES[:8], dtype=object)),
    "ids as a Fortran column": lambda root: np.save(
        root / IDS, np.asfortranarray(np.array(NAMES[:8], dtype=object)[:, None])
    ),
    "ids as bytes": lambda root: np.save(root / IDS, np.array([name.encode() for name in NAMES[:8]], dtype=object)),
    "ids as NumPy text": lambda root: np.save(root / IDS, _objects(np.array(NAMES[:8]))),
    "labels as objects": lambda root: np.save(root / LABEL, LABELS[:8].astype(object)),
    "labels as NumPy numbers": lambda root: np.save(root / LABEL, _objects(LABELS[:8])),
    "labels as big-endian numbers": lambda root: np.save(root / LABEL, _objects(LABELS[:8].astype(">f8"))),
    "one-hot rows as arrays": lambda root: np.save(root / LABEL, _objects(np.eye(4)[LABELS[:8]])),
    "one-hot rows as lists": lambda root: np.save(root / LABEL, _objects(np.eye(4)[LABELS[:8]].tolist())),
    "one-hot as a Fortran table": lambda root: np.save(
        root / LABEL, np.asfortranarray(np.eye(4)[LABELS[:8]].astype(object))
    ),
    "an old protocol": lambda root: npy(
        of("|O", "(8,)"), pickle.dumps(np.array([name.encode() for name in NAMES[:8]], dtype=object), protocol=2)
    )(root / IDS),
}


def _objects(rows: Any) -> Any:
    """An array of objects, one for each row."""
    array = np.empty(len(rows), dtype=object)
    for position, row in enumerate(rows):
        array[position] = row
    return array


@pytest.mark.parametrize("store", OBJECTS.values(), ids=OBJECTS.keys())
def test_text_and_numbers_are_read_out_of_arrays_of_objects(store: Callable[[Path], object], root: Path) -> None:
    store(root)
    data = Tiny(str(root))
    data.setup("fit")
    assert data.targets is not None
    assert data.targets["train"].utterances == NAMES[:8]
    assert data.targets["train"].labels.tolist() == LABELS[:8].tolist()
    assert check_corpus(root, Tiny.layout).lines == []


# Whatever the bytes: a good read, or one line.

HEADERS = st.one_of(
    st.text(max_size=80),
    st.builds(
        of,
        st.sampled_from(["<f8", "|O", "|S0", "<U3", "|V8", "M8[s]", "<i4", "|b1"]),
        st.one_of(
            st.lists(st.integers(-2, 10**13), max_size=3).map(lambda shape: str(tuple(shape))), st.text(max_size=9)
        ),
        st.sampled_from(["True", "False", "3"]),
    ),
)


@ANY
@given(header=HEADERS, data=st.binary(max_size=300), whole=st.booleans())
def test_any_bytes_in_a_target_file_are_read_or_refused(pristine: Path, header: str, data: bytes, whole: bool) -> None:
    path = pristine / LABEL
    before = path.read_bytes()
    try:
        npy(header.encode("latin1", "replace").decode("latin1"), data)(path) if whole else path.write_bytes(data)
        read_or_refused(pristine)
    finally:
        path.write_bytes(before)


@ANY
@given(place=st.integers(0, 10_000), data=st.binary(min_size=1, max_size=4))
def test_any_change_of_a_pickle_is_read_or_refused(pristine: Path, place: int, data: bytes) -> None:
    path = pristine / LABEL
    before = path.read_bytes()
    try:
        np.save(path, LABELS[:8].astype(object))
        spoilt = path.read_bytes()
        place = 128 + place % (len(spoilt) - 128)
        path.write_bytes(spoilt[:place] + data + spoilt[place + len(data) :])
        read_or_refused(pristine)
    finally:
        path.write_bytes(before)
