"""Parts are read as they were written, or made again."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from datamodules.extraction.extractor import Extracted
from datamodules.extraction.parts import Finding, merged, read_part, recipe_digest, write_part

FRAMES = {"b": np.arange(6, dtype=np.float32).reshape(2, 3), "a": np.full((1, 3), 7, np.float32)}
EXTRACTED = [
    Extracted("b", {"audio": FRAMES["b"]}, {"text": "no transcript"}, 1.5, ("clipped",)),
    Extracted("c", {}, {"audio": "silent", "text": "no transcript"}, 0.0),
    Extracted("a", {"audio": FRAMES["a"]}, {"text": "no transcript"}, 0.25),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "parts" / "group.npz"
    write_part(path, "sources", "audio", EXTRACTED)
    return path


def test_a_part_is_read_as_it_was_written(path: Path) -> None:
    part = read_part(path, "sources", 3)
    assert part is not None
    assert [finding.utterance for finding in part.findings] == ["a", "b", "c"]
    assert [finding.length for finding in part.findings] == [1, 2, 0]
    assert [finding.why for finding in part.findings] == [None, None, "silent"]
    assert [finding.seconds for finding in part.findings] == [0.25, 1.5, 0.0]
    assert part.findings[1].remarks == ("clipped",)
    np.testing.assert_array_equal(part.frames, np.concatenate([FRAMES["a"], FRAMES["b"]]))
    assert [file.name for file in path.parent.iterdir()] == ["group.npz"]


def test_a_part_without_frames_is_a_part(tmp_path: Path) -> None:
    write_part(tmp_path / "text.npz", "sources", "text", EXTRACTED)
    part = read_part(tmp_path / "text.npz", "sources", 384)
    assert part is not None
    assert {finding.why for finding in part.findings} == {"no transcript"}
    assert part.frames.size == 0


def test_other_sources_or_another_width_are_another_part(path: Path) -> None:
    assert read_part(path, "others", 3) is None
    assert read_part(path, "sources", 4) is None
    assert read_part(path.with_name("other.npz"), "sources", 3) is None


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def cut_at_the_end(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def flip(path: Path) -> None:
    """Change one bit of a frame."""
    content = bytearray(path.read_bytes())
    content[content.index(FRAMES["b"].tobytes())] ^= 1
    path.write_bytes(content)


def pickled(path: Path) -> None:
    np.savez(path, about=np.array([{"sources": "sources"}], dtype=object), frames=FRAMES["a"])


def rewritten(about: bytes, frames: object = FRAMES["a"]) -> Callable[[Path], None]:
    return lambda path: np.savez(path, about=np.frombuffer(about, np.uint8), frames=np.asarray(frames))


DAMAGE: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "cut": cut,
    "cut at the end": cut_at_the_end,
    "a bit flipped": flip,
    "no zip": lambda path: path.write_bytes(b"PK\x03\x04 no zip"),
    "an array": lambda path: path.write_bytes(b"\x93NUMPY\x01\x00v\x00{'descr': '<f4'"),
    "a folder": folder,
    "pickled": pickled,
    "another archive": lambda path: np.savez(path, x=FRAMES["a"]),
    "not JSON": rewritten(b"{"),
    "not an object": rewritten(b"[]"),
    "nested deep": rewritten(b"[" * 100_000),
    "no findings": rewritten(b'{"sources": "sources"}'),
    "a finding of numbers": rewritten(b'{"sources": "sources", "findings": [[1, 1, null, 0.5, []]]}'),
    "a finding cut": rewritten(b'{"sources": "sources", "findings": [["a", 1, null]]}'),
    "frames fewer than findings say": rewritten(b'{"sources": "sources", "findings": [["a", 2, null, 0.5, []]]}'),
    "present without frames": rewritten(b'{"sources": "sources", "findings": [["a", 0, null, 0.5, []]]}'),
    "frames of text": rewritten(b'{"sources": "sources", "findings": [["a", 1, null, 0.5, []]]}', ["x"]),
    "frames of double": rewritten(b'{"sources": "sources", "findings": [["a", 1, null, 0.5, []]]}', np.ones((1, 3))),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_part_is_none(damage: Callable[[Path], object], path: Path) -> None:
    damage(path)
    assert read_part(path, "sources", 3) is None


@pytest.mark.parametrize("seed", range(20))
def test_no_random_damage_is_read_as_something_else(seed: int, path: Path) -> None:
    whole, content = read_part(path, "sources", 3), bytearray(path.read_bytes())
    at = random.Random(seed).randrange(len(content))
    content[at] ^= 0x55
    path.write_bytes(content)
    part = read_part(path, "sources", 3)
    assert part is None or (part.findings == whole.findings and np.array_equal(part.frames, whole.frames))  # type: ignore[union-attr]


def test_a_recipe_has_one_name_and_another_recipe_another() -> None:
    assert recipe_digest("a", {"x": 1, "y": 2}, None) == recipe_digest("a", {"y": 2, "x": 1}, None)
    others = {
        recipe_digest("a", {"x": 1}, None),
        recipe_digest("b", {"x": 1}, None),
        recipe_digest("a", {"x": 2}, None),
        recipe_digest("a", {"x": 1}, {"extractor": "hog"}),
    }
    assert len(others) == 4


def test_findings_of_modalities_become_those_of_the_utterance() -> None:
    findings = [Finding("a", 3, None, 1.0, ("clipped",)), Finding("a", 0, "no face", 2.0, ("clipped", "several faces"))]
    one = merged(findings)
    assert (one.seconds, one.remarks) == (2.0, ("clipped", "several faces"))
