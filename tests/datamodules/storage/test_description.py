"""``corpus.json``: what is written is read, and its bytes are those of its content."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules.errors import CorpusError
from datamodules.labels import Classes, Scale
from datamodules.storage.description import (
    FILE,
    LARGEST,
    Description,
    check_ids,
    read_description,
    write_description,
)
from datamodules.storage.problems import Problems

WHOLE = Description(
    name="clips",
    labels=Classes(("calm", "angry", "très drôle")),
    folds=2,
    feature_names={"text": "minilm", "audio": "comparE"},
    speakers={"take 2/é": "Zoë", "b": None, "a": "Ann"},
    monitor="F1",
    counts={2: {"test": {"calm": 3}, "train": {"angry": 4, "calm": 0}}, 1: {}},
    facts={"scenarios": ["S", "T"], "kept": {"tags": True}},
)


def by_hand(root: Path, **changes: Any) -> Path:
    """A file as a person would write it, without the writer under test; None leaves an entry out."""
    content = {"format": 1, "name": "clips", "classes": ["calm", "angry"], "folds": 2} | changes
    kept = {name: value for name, value in content.items() if value is not None}
    (root / FILE).write_text(json.dumps(kept), encoding="utf-8")
    return root


def test_what_is_written_is_read(tmp_path: Path) -> None:
    assert write_description(tmp_path / "new", WHOLE) == tmp_path / "new" / "corpus.json"
    assert read_description(tmp_path / "new") == WHOLE


def test_the_bytes_depend_on_the_content_only(tmp_path: Path) -> None:
    speakers = list(WHOLE.speakers.items())
    random.Random(0).shuffle(speakers)
    other = Description(**{**vars(WHOLE), "speakers": dict(speakers), "counts": dict(sorted(WHOLE.counts.items()))})
    for folder, description in (("one", WHOLE), ("two", other)):
        write_description(tmp_path / folder, description)
    written = (tmp_path / "one" / FILE).read_bytes()
    assert written == (tmp_path / "two" / FILE).read_bytes()
    assert written.endswith(b"}\n")
    assert "très drôle".encode() in written  # for people to read


def test_a_person_may_write_the_least(tmp_path: Path) -> None:
    assert read_description(by_hand(tmp_path)) == Description("clips", Classes(("calm", "angry")), 2)


def test_a_person_may_write_a_scale(tmp_path: Path) -> None:
    assert read_description(by_hand(tmp_path, classes=None, scale=[-3, 3])) == Description("clips", Scale(-3, 3), 2)


def test_a_person_may_describe_what_nobody_has_labelled(tmp_path: Path) -> None:
    assert read_description(by_hand(tmp_path, classes=None, folds=None)) == Description("clips")


def test_a_byte_order_mark_is_overlooked(tmp_path: Path) -> None:
    path = by_hand(tmp_path) / FILE
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert read_description(tmp_path) == Description("clips", Classes(("calm", "angry")), 2)


def test_no_file_is_no_description(tmp_path: Path) -> None:
    assert read_description(tmp_path) is None
    assert read_description(tmp_path / "nowhere") is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": ""},
        {"name": "a\x1b[2J"},
        {"labels": Classes(("one",))},
        {"feature_names": {"audio": "../../etc/passwd"}},
        {"facts": {"when": object()}},
        {"facts": {"mean": float("nan")}},
        {"speakers": {"a//b": "Ann"}},
    ],
)
def test_what_would_be_refused_is_not_written(tmp_path: Path, wrong: dict[str, Any]) -> None:
    write_description(tmp_path, WHOLE)
    before = (tmp_path / FILE).read_bytes()
    with pytest.raises(CorpusError, match=r"corpus\.json: .*; .*\.$"):
        write_description(tmp_path, Description(**{**vars(WHOLE), **wrong}))
    assert (tmp_path / FILE).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


@pytest.mark.parametrize(
    ("ids", "odd"),
    [
        (["a", "b/c", "d e", "ü", "..", "a.b"], []),
        (["", "ok"], [""]),
        (["/a", "a/", "a//b", "./a", "a/./b", "."], ["/a", "a/", "a//b", "./a", "a/./b", "."]),
        (["a\0", "a\u202eb", "a\ud800"], ["a\0", "a\u202eb", "a\ud800"]),
        (["x" * 1000, "x" * 1001], ["x" * 1001]),
        (["a", "a/b", "a/b/c", "ab"], ["a", "a/b"]),
    ],
)
def test_ids_are_those_that_hdf5_can_store(ids: list[str], odd: list[str]) -> None:
    problems = Problems()
    check_ids(Path("corpus.json"), ids, problems)
    found = [name for problem in problems.found for name in problem.utterances]
    assert sorted(set(found)) == sorted(odd)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
ENTRIES = (
    "format",
    "corpus",
    "name",
    "classes",
    "scale",
    "folds",
    "features",
    "monitor",
    "speakers",
    "counts",
    "facts",
)


@settings(max_examples=300, deadline=None)
@given(changes=st.dictionaries(st.sampled_from(ENTRIES), JSON, max_size=3))
def test_any_content_is_read_or_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, changes: dict[str, Any]
) -> None:
    root = by_hand(tmp_path_factory.mktemp("corpus"), **changes)
    try:
        found = read_description(root)
    except CorpusError as error:
        assert str(error).isprintable()
        assert len(str(error)) < 1200
    else:
        assert found is not None
        assert len(found.labels.names) >= 2 or isinstance(found.labels, Scale) or not found.folds


def test_a_large_file_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / FILE).open("wb") as file:
        file.truncate(LARGEST + 1)
    with pytest.raises(CorpusError, match="has 67108865 bytes, where a description may have 67108864"):
        read_description(tmp_path)
