"""Files are whole or as before; a folder has one user."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from datamodules.errors import InputError
from datamodules.files import atomic_path, check_writable, locked, sweep, write_text


def test_a_file_is_replaced_with_the_modes_of_any_other(tmp_path: Path) -> None:
    write_text(tmp_path / "new" / "a.txt", "one")
    assert write_text(tmp_path / "new" / "a.txt", "two").read_text() == "two"
    (tmp_path / "plain").touch()
    assert stat.S_IMODE((tmp_path / "new" / "a.txt").stat().st_mode) == stat.S_IMODE(
        (tmp_path / "plain").stat().st_mode
    )
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.txt"]


def test_the_target_is_named_where_the_disk_is_full(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "one")
    with pytest.raises(OSError) as raised, atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_text("tw")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert raised.value.filename == str(tmp_path / "a.txt")
    assert (tmp_path / "a.txt").read_text() == "one"
    assert len(list(tmp_path.iterdir())) == 1


def test_what_was_written_is_synced_before_it_is_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[bool] = []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append((tmp_path / "a.txt").exists()))
    write_text(tmp_path / "a.txt", "one")
    assert synced == [False]


def test_a_folder_that_is_a_file_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    with pytest.raises(OSError, match="a"):
        check_writable(tmp_path / "a" / "b.txt")


def test_temporaries_of_a_killed_process_are_swept(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_text("x")
        left = temporary.with_name(temporary.name + "2")
        left.write_text("half")
    sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_folder_has_one_user_who_is_named(tmp_path: Path) -> None:
    holder = f"this run is in use by process {os.getpid()} on "
    with locked(tmp_path, "run"), pytest.raises(InputError, match=holder), locked(tmp_path, "run"):
        pass
    with locked(tmp_path, "run"):
        pass
    assert list(tmp_path.iterdir()) == []
