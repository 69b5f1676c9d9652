"""The attribute that says how a feature file was made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from datamodules.extraction.provenance import ATTRIBUTE, attach, describe, encoded, read_provenance


def made(**changed: Any) -> dict[str, Any]:
    given: dict[str, Any] = {
        "extractor": "comparE",
        "options": {},
        "recipe": {"opensmile": "2.6.0", "factor": 10},
        "detector": {"extractor": "hog", "options": {"threshold": 0.0}},
    }
    keywords = {"rate": 10, "width": 3, "corpus": "IEMOCAP", "facts": {"scenarios": ["S"]}}
    return describe(**(given | keywords | changed), utterances=["b", "a"], sizes={"b.wav": 2, "a.wav": 1})


def write(path: Path, value: Any) -> Path:
    with h5py.File(path, "w", libver="latest") as file:
        file.create_dataset("a", data=np.zeros((2, 3), np.float32))
        file.attrs[ATTRIBUTE] = value
    return path


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "comparE.h5"
    with h5py.File(path, "w", libver="latest") as file:
        file.create_dataset("a", data=np.zeros((2, 3), np.float32))
        attach(file.id, encoded(made()))
    found = read_provenance(path)
    assert found == made()
    assert found["utterances"] == hashlib.sha256(b'["a","b"]').hexdigest()
    assert found["sources"] == hashlib.sha256(b'[["a.wav",1],["b.wav",2]]').hexdigest()
    with h5py.File(path) as file:  # by another reader
        assert json.loads(file.attrs[ATTRIBUTE]) == made()
        assert list(file) == ["a"]


def test_a_large_recipe_fits(tmp_path: Path) -> None:
    path = tmp_path / "big.h5"
    large = made(recipe={"words": ["x" * 1000] * 100})
    with h5py.File(path, "w", libver="latest") as file:
        attach(file.id, encoded(large))
    assert read_provenance(path) == large
    with pytest.raises(ValueError, match="bytes"):
        encoded(made(recipe={"words": ["x" * 1000] * 300}))


def test_values_that_are_no_plain_data_are_refused() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        encoded(made(recipe={"threshold": float("nan")}))
    with pytest.raises(TypeError):
        encoded(made(options={"path": Path("x")}))


@pytest.mark.parametrize("make", [lambda path: None, Path.mkdir, lambda path: path.write_bytes(b"no HDF5")])
def test_no_file_says_nothing(make: Callable[[Path], Any], tmp_path: Path) -> None:
    make(tmp_path / "file.h5")
    assert read_provenance(tmp_path / "file.h5") is None


def test_a_file_without_it_says_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with h5py.File(tmp_path / "file.h5", "w") as file:
        file.create_dataset("a", data=np.zeros((2, 3), np.float32))
    assert read_provenance(tmp_path / "file.h5") is None
    assert not caplog.records


OTHER_KINDS = {
    "a number": 3,
    "numbers": np.zeros(5),
    "several texts": np.array([b"{}", b"{}"]),
    "a text of any length": json.dumps({"format": 1}),
    "too large": np.bytes_(b'{"format": 1, "x": "' + b"x" * 300_000 + b'"}'),
}


@pytest.mark.parametrize("value", OTHER_KINDS.values(), ids=OTHER_KINDS)
def test_attributes_of_another_kind_are_somebody_elses(value: Any, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "file.h5", "w", libver="latest") as file:
        file.attrs[ATTRIBUTE] = value
    assert read_provenance(tmp_path / "file.h5") is None


def changed(**values: Any) -> bytes:
    return json.dumps(made() | values).encode()


DAMAGED = {
    "not JSON": b"{",
    "not ASCII": b'{"format": 1, "\xff": 2}',
    "a list": b"[1]",
    "nested deep": b"[" * 100_000,
    "NaN": b'{"format": NaN}',
    "a number of many digits": b'{"format": ' + b"1" * 5000 + b"}",
    "a later format": changed(format=2),
    "no format": changed(format=None),
    "a format that is true": changed(format=True),
    "a width of text": changed(width="3"),
    "a width of truth": changed(width=True),
    "a width of 0": changed(width=0),
    "a negative rate": changed(rate=-1),
    "options as a list": changed(options=[]),
    "a detector of text": changed(detector="hog"),
    "a detector without a name": changed(detector={"options": {}}),
    "no corpus": json.dumps({key: value for key, value in made().items() if key != "corpus"}).encode(),
}


@pytest.mark.parametrize("value", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_one_is_noted_and_ignored(value: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert read_provenance(write(tmp_path / "file.h5", np.bytes_(value))) is None
    (record,) = caplog.records
    assert "how these features were made cannot be read" in record.getMessage()
    assert record.getMessage().isprintable()
