"""Pickles read by our machine hold what Python's unpickler finds in them, and run nothing."""

from __future__ import annotations

import collections
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamodules.importing.pickles import plain, read_pickle, read_pickled
from datamodules.storage.objects import UnsafePickleError

RANDOM = np.random.default_rng(0)
FRAMES = RANDOM.standard_normal((40, 50, 30))

VALUES: dict[str, Any] = {
    "large": FRAMES,
    "the same": FRAMES,
    "fortran": np.asfortranarray(FRAMES[0]),
    "strided": FRAMES[::2, 0],
    "big endian": FRAMES[0].astype(">f4"),
    "float16": FRAMES[0].astype(np.float16),
    "empty": np.zeros((0, 3)),
    "truth": np.array([True, False]),
    "text": np.array(["hé", "yo"]),
    "bytes": np.array([b"a", b"bc"]),
    "scalar": np.float32(3.5),
    "whole": np.int64(-4),
    "plain": [1, 2.5, None, True, -(10**30), "x" * 100_000, (1, 2, 3, 4), {}, b"", b"ab"],
    "ordered": collections.OrderedDict(a=1),
    "arrays": [np.ones((2, 2)), np.zeros((3, 2))],
}


def resolved(value: Any) -> Any:
    """``value`` with arrays in place of what stands for them."""
    value = plain(value)
    if isinstance(value, dict):
        return {name: resolved(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(resolved(each) for each in value)
    return value


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_values_are_those_of_pythons_unpickler(protocol: int, tmp_path: Path) -> None:
    path = tmp_path / "values.pkl"
    path.write_bytes(pickle.dumps(VALUES, protocol=protocol))
    with path.open("rb") as file:
        expected = pickle.load(file)
    found = resolved(read_pickle(path).value)
    assert [*found] == [*expected]
    for name, value in expected.items():
        if isinstance(value, np.ndarray):
            assert (found[name].dtype.kind, found[name].itemsize) == (value.dtype.kind, value.itemsize), name
        np.testing.assert_equal(found[name], value, err_msg=name)


def test_a_list_stands_for_an_array_of_objects() -> None:
    objects = np.empty(2, dtype=object)
    objects[:] = ["a", "b"]
    assert plain(read_pickled(pickle.dumps(objects))) == ["a", "b"]
    assert plain(read_pickled(pickle.dumps(np.array({"a": 1}, dtype=object)))) == {"a": 1}


def test_arrays_are_views_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "frames.pkl"
    path.write_bytes(pickle.dumps(FRAMES, protocol=4))
    found = read_pickle(path)
    array = plain(found.value)
    assert not array.flags.owndata
    assert not array.flags.writeable
    found.release()
    np.testing.assert_array_equal(array, FRAMES)


class Calls:
    """Calls ``called`` when it is unpickled."""

    def __init__(self, called: Any, *arguments: Any) -> None:
        self.reduced = (called, arguments)

    def __reduce__(self) -> Any:
        return self.reduced


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Calls(os.system, "touch ran"), r"calls (posix|nt)\.system, which is refused"),
        (Calls(eval, "open('ran', 'w')"), r"calls (builtins|__builtin__)\.eval, which is refused"),
        (Calls(getattr, "", "join"), r"calls (builtins|__builtin__)\.getattr, which is refused"),
        (Calls(np.load, "ran"), r"calls numpy\.load, which is refused"),
        (os.system, r"calls (posix|nt)\.system"),
        (np.zeros(2, "i4,i4"), "neither numbers nor text"),
        (np.array("2026-11-29", dtype="datetime64[D]"), "neither numbers nor text"),
        (Path("a"), r"calls pathlib\.\w+, which is refused"),
    ],
    ids=["system", "eval", "getattr", "numpy.load", "a function", "structure", "date", "path"],
)
def test_what_is_called_is_refused_by_name(
    value: Any, expected: str, protocol: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hostile.pkl").write_bytes(pickle.dumps({"train": value}, protocol=protocol))
    with pytest.raises(UnsafePickleError, match=expected):
        read_pickle(tmp_path / "hostile.pkl")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"PK\x03\x04", "not a pickle of protocol 2 or later"),
        (b"(lp0\n.", "not a pickle of protocol 2 or later"),
        (b"\x80\x04", "it ends early"),
        (b"\x80\x04.", "not a whole pickle"),
        (b"\x80\x04h\x05.", "not a whole pickle"),
        (b"\x80\x04\x8e" + (2**62).to_bytes(8, "little") + b"x.", "it ends early"),
        (b"\x80\x04K\x01Q.", "the operation binpersid, which is refused"),
        (b"\x80\x04]K\x01K\x02s.", "sets items of list, which is refused"),
        # One text decoded twice is more than the file has.
        (
            b"\x80\x02X\x40\x00\x00\x00"
            + b"x" * 64
            + b"q\x010"
            + b"c_codecs\nencode\nh\x01X\x06\x00\x00\x00latin1\x86R" * 9,
            "decodes more bytes than it has",
        ),
        (b"\x80\x04" + b"]" * 10, "it ends early"),
    ],
)
def test_what_is_damaged_or_absurd_is_one_line(content: bytes, expected: str, tmp_path: Path) -> None:
    (tmp_path / "x.pkl").write_bytes(content)
    with pytest.raises(UnsafePickleError, match=expected):
        read_pickle(tmp_path / "x.pkl")


def test_every_truncation_is_refused() -> None:
    whole = pickle.dumps({"train": {"a": np.ones((2, 3)), "id": ["u"]}}, protocol=4)
    for size in range(2, len(whole)):
        with pytest.raises(UnsafePickleError):
            read_pickled(whole[:size])


@given(st.integers(2, 400), st.integers(0, 255))
def test_a_changed_byte_is_read_or_refused(place: int, byte: int) -> None:
    content = bytearray(pickle.dumps({"train": {"a": np.ones((2, 3)), "id": ["u", "v"]}}, protocol=4))
    content[place % len(content)] = byte
    try:
        read_pickled(bytes(content))
    except UnsafePickleError as error:
        assert "\n" not in str(error)
