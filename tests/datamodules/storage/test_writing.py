"""Files of a corpus are written whole or not at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from datamodules.storage.writing import write_features, write_targets
from tests.datamodules.corpora import load_features, load_ids


def test_written_files_are_read_back_and_nothing_else_is_left(tmp_path: Path) -> None:
    frames, values = np.arange(6, dtype=np.float32).reshape(3, 2), np.array([0.5], dtype=np.float32)
    write_features(tmp_path / "A" / "audio.h5", [("u1", frames)])
    write_targets(tmp_path / "target" / "1", {"train": (["u1"], values)})
    assert load_features(tmp_path / "A" / "audio.h5", ["u1"])[0].tolist() == frames.tolist()
    assert load_ids(tmp_path, 1, "trn") == ["u1"]
    assert np.array_equal(np.load(tmp_path / "target" / "1" / "trn_label.npy"), values)
    names = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert names == {"audio.h5", "trn_label.npy", "trn_int2name.npy"}


def test_a_disk_that_fills_up_leaves_the_former_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "audio.h5"
    write_features(path, [("u1", np.ones((1, 2), dtype=np.float32))])
    before, write = path.read_bytes(), Path.write_bytes

    def fill_up(path: Path, content: bytes) -> int:
        write(path, content[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fill_up)
    with pytest.raises(OSError, match="No space"):
        write_features(path, [("u1", np.zeros((5, 2), dtype=np.float32))])
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
