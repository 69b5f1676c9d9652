"""Opening HDF5 files: whatever is not a whole, readable, unlocked file is a problem in one line."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import h5py
from h5py import h5f, h5p

from datamodules.storage.problems import Problems

H5_ERRORS = (OSError, ValueError, KeyError, TypeError, RuntimeError)
"""What h5py raises for an entry that is damaged or of another kind."""


def h5_name(name: bytes | str) -> str:
    """Name of an entry as text; bytes that are not UTF-8 become surrogates, as in h5py."""
    return name.decode(errors="surrogateescape") if isinstance(name, bytes) else name


def open_hdf5(path: Path, problems: Problems) -> Any:
    """Open an HDF5 file for reading, an ``h5py.File``; a problem and None if that cannot be done."""
    if path.exists() and not path.is_file():  # to open a pipe would wait for its writer, for ever
        problems.add(path, f"is {kind_of(path)}, not a file", "put the HDF5 file in its place")
        return None
    access = h5p.create(h5p.FILE_ACCESS)
    # HDF5 would keep a buffer of 64 KiB for every open dataset, more than a dataset here usually takes.
    access.set_sieve_buf_size(0)
    try:
        return h5py.File(h5f.open(os.fsencode(path), h5f.ACC_RDONLY, access))
    except (FileNotFoundError, NotADirectoryError):
        problems.add(path, "does not exist", remedy_for_missing(path))
    except PermissionError:
        problems.add(path, "cannot be read (permission denied)", "let yourself read it")
    except H5_ERRORS as error:
        locked = getattr(error, "errno", None) in (errno.EAGAIN, errno.EACCES) or "already open for write" in str(error)
        if locked:
            problems.add(path, "is open in another program", "close it there, and try again")
        elif "unable to lock" in str(error):
            what = "cannot be locked: its file system has no locks"
            problems.add(path, what, "copy it to another disk, or set HDF5_USE_FILE_LOCKING=FALSE")
        else:
            problems.add(path, f"not a whole HDF5 file ({error})", "copy it again")
    return None


def kind_of(path: Path) -> str:
    """What is in place of a file."""
    return "a folder" if path.is_dir() else "a pipe" if path.is_fifo() else "a device or socket"


def remedy_for_missing(path: Path) -> str:
    """What to do about a feature file that does not exist, naming those that do."""
    usual = "check the root folder and the feature name, or extract these features"
    root, folder = path.parent.parent, path.parent.name
    if path.parent.is_dir():
        there = sorted(file.stem for file in path.parent.glob("*.h5"))
        return f"{usual}; {folder} has {', '.join(there[:5])}" if there else usual
    deeper = sorted(inner.parent.parent for inner in root.glob(f"*/{folder}/{path.name}"))
    return f"give --data.root {deeper[0]}" if deeper else usual
