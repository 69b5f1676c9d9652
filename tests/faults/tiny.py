"""A small whole corpus, and ways to spoil its files."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from datamodules.base import EmotionDataModule
from datamodules.errors import CorpusError
from datamodules.storage.check import check_corpus
from datamodules.storage.layouts import EMOTIONS, Layout
from datamodules.storage.writing import write_features, write_targets

NAMES = [f"Ses0{session}F_impro_{gender}{take}" for session in (1, 2, 3) for gender in "FM" for take in (0, 1)]
FIRST, SECOND = NAMES[:2]
LABELS = np.arange(12) % 4
SPLITS = {"train": slice(0, 8), "val": slice(8, 10), "test": slice(10, 12)}


class Tiny(EmotionDataModule):
    """Twelve utterances of six speakers, one fold."""

    layout: ClassVar[Layout] = Layout("Tiny", ("a", "v", "t"), EMOTIONS, 1, r"^(Ses\d+)[FM]_.+_([FM])[^_]*$")


def write_tiny(root: Path, names: list[str] = NAMES) -> None:
    random = np.random.default_rng(0)
    for modality, dim in enumerate((3, 4, 5)):
        frames = [random.standard_normal((2 + number % 3, dim), dtype=np.float32) for number in range(12)]
        write_features(Tiny.layout.feature_path(root, modality), zip(NAMES, frames, strict=True))
    write_split(root, names, LABELS)


def write_split(root: Path, names: list[str], labels: Any) -> None:
    splits = {split: (names[part], np.asarray(labels)[part]) for split, part in SPLITS.items()}
    write_targets(root / "target" / "1", splits)


def npy(header: str, data: bytes = b"", version: bytes = b"\x01\x00") -> Callable[[Path], object]:
    """A NumPy file with this header."""
    size = struct.pack("<H" if version == b"\x01\x00" else "<I", len(header))
    return lambda path: path.write_bytes(b"\x93NUMPY" + version + size + header.encode("latin1") + data)


def of(kind: Any, shape: str, order: str = "False") -> str:
    return f"{{'descr': {kind!r}, 'fortran_order': {order}, 'shape': {shape}, }}"


LABEL = "target/1/trn_label.npy"
IDS = "target/1/trn_int2name.npy"


def replaced(name: str, make: Callable[[Path], object]) -> Callable[[Path], None]:
    """Another thing in place of a file of the corpus."""

    def change(root: Path) -> None:
        (root / name).unlink()
        make(root / name)

    return change


def raw_pickle(data: bytes) -> Callable[[Path], None]:
    return replaced(LABEL, npy(of("|O", "(8,)"), data))


class Runs:
    """Runs a command when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch ran",)


def complaints(root: Path, **options: Any) -> tuple[str, list[str]]:
    """The line of a reader, and those of the check."""
    with pytest.raises(CorpusError) as caught:
        Tiny(str(root), **options).setup("fit")
    lines = check_corpus(root, Tiny.layout).lines
    for line in (str(caught.value), *lines):
        assert line.isprintable() and len(line) < 1200, line
    return str(caught.value), lines


ANY = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


def read_or_refused(root: Path) -> None:
    try:
        data = Tiny(str(root))
        data.setup("fit")
    except CorpusError as error:
        assert str(error).isprintable()
    else:
        assert all(frames.utterance(0).isfinite().all() for frames in data.corpus.frames)
