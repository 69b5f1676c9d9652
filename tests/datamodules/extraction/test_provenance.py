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

from datamodules.extraction.provenance import (
    ATTRIBUTE,
    attach,
    canonical,
    checked,
    describe,
    difference,
    encoded,
    read_provenance,
)

GIVEN: dict[str, Any] = {
    "extractor": "comparE",
    "options": {},
    "recipe": {"opensmile": "2.6.0", "factor": 10},
    "detector": {"extractor": "hog", "options": {"threshold": 0.0}},
    "rate": 10,
    "width": 3,
}


def made(**changed: Any) -> dict[str, Any]:
    keywords = {"corpus": "IEMOCAP", "facts": {"scenarios": ["S"]}}
    return describe(**(GIVEN | keywords | changed), utterances=["b", "a"], sources=[["a", 1], ["b", 2]])


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
    assert found["sources"] == hashlib.sha256(b'[["a",1],["b",2]]').hexdigest()
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


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (nested(20), "nested too deeply"),
        ([0] * 60_000, "too large"),
        ("x" * 10_001, "a text in it is too long"),
        ("a\0b", "a text in it is too long"),
        ({"": 1}, "a name in it is empty"),
        ({"x" * 201: 1}, "a name in it is empty, too long"),
        ({"a\x1b[2J": 1}, "not readable"),
        (2**70, "out of range"),
    ],
)
def test_what_no_checkpoint_could_hold_is_noted_and_ignored(
    value: Any, why: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # Or a model would be trained, and its checkpoint could not be read.
    with pytest.raises(ValueError, match=why):
        checked(made(recipe={"it": value}))
    text = canonical(made(recipe={"it": value})).encode()
    assert len(text) < 256 * 1024
    assert read_provenance(write(tmp_path / "a.h5", np.bytes_(text))) is None
    assert why in caplog.text


def test_features_of_one_recipe_do_not_differ() -> None:
    # Of other recordings, by another version of this library: the values of a frame are made alike.
    other = describe(**GIVEN, corpus="clips", facts={}, utterances=["x"], sources=[])
    assert difference(made(), {**other, "ifmmin": "9.9"}) is None
    assert difference(None, None) is None


@pytest.mark.parametrize(
    ("changes", "ours", "theirs"),
    [
        (
            {"recipe": {"opensmile": "3.0.0", "factor": 10}},
            'comparE (opensmile "2.6.0")',
            'comparE (opensmile "3.0.0")',
        ),
        ({"recipe": {"opensmile": "2.6.0"}}, "comparE (factor 10)", "comparE (factor not given)"),
        ({"extractor": "logmel"}, "comparE", "logmel"),
        ({"rate": 5, "width": 4}, "comparE (rate 10, width 3)", "comparE (rate 5, width 4)"),
        (
            {"detector": None},
            'comparE (detector {"extractor":"hog","options":{"threshold":0.0}})',
            "comparE (detector null)",
        ),
    ],
)
def test_recipes_that_differ_are_both_named(changes: dict[str, Any], ours: str, theirs: str) -> None:
    assert difference(made(), made(**changes)) == (ours, theirs)
    assert difference(made(**changes), made()) == (theirs, ours)


def test_a_detector_that_says_what_it_is_may_be_named_in_two_ways() -> None:
    recipe = {"name": "yunet", "sha256": "ab"}
    ours, theirs = (
        made(detector={"extractor": "yunet", "options": {"model": path}, "recipe": recipe})
        for path in ("models/yunet.onnx", "yunet.onnx")
    )
    assert difference(ours, theirs) is None
    other = made(detector={"extractor": "yunet", "options": {}, "recipe": {**recipe, "sha256": "cd"}})
    assert difference(ours, other) is not None


def test_features_that_came_ready_made_differ_from_extracted_ones() -> None:
    assert difference(None, made()) == ("an unknown recipe", "comparE")
    assert difference(made(), None) == ("comparE", "an unknown recipe")
