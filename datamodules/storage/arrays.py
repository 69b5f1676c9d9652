"""NumPy files of a stranger: read without unpickling, their declared size bounded before memory is taken."""

from __future__ import annotations

import math
import os
import warnings
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from datamodules.storage.hdf5 import kind_of
from datamodules.storage.objects import UnsafePickleError, plain_array
from datamodules.storage.problems import Problems

LARGEST = 10**9
"""Bytes that a target file may have: the ids of some ten million utterances."""

LARGEST_PICKLED = 8 * 10**6
"""Bytes that a pickled target file may have: the ids of some 200,000 utterances."""


class _BadFileError(Exception):
    """A NumPy file that is not read: what is wrong, and the remedy."""

    def __init__(self, what: str, remedy: str = "copy it again") -> None:
        super().__init__(what)
        self.remedy = remedy


def load_array(path: Path, problems: Problems) -> npt.NDArray[Any] | None:
    """Load a NumPy file of at least one row; a problem and None if that cannot be done.

    Arrays of Python objects are read if they hold text or numbers, see :mod:`~datamodules.storage.objects`.
    """
    try:
        array = _read(path)
    except FileNotFoundError:
        problems.add(path, "does not exist", "copy the corpus's target folder again")
        return None
    except OSError as error:
        problems.add(path, f"cannot be read ({error.strerror or error})", "copy it again")
        return None
    except _BadFileError as error:
        problems.add(path, str(error), error.remedy)
        return None
    if array.ndim == 0 or len(array) == 0:
        problems.add(path, "holds no utterance", "write it again; a split needs at least one")
        return None
    return array


def readable_size(path: Path) -> bool:
    """Whether ``path`` is a file small enough to be a target file."""
    return path.is_file() and path.stat().st_size <= LARGEST


def _read(path: Path) -> npt.NDArray[Any]:
    if path.exists() and not path.is_file():  # to open a pipe would wait for its writer, for ever
        raise _BadFileError(f"is {kind_of(path)}, not a file", "put the NumPy file in its place")
    with path.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        if size > LARGEST:
            raise _BadFileError(f"has {size} bytes, where a target file may have {LARGEST}", "copy the right file")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of headers that Python 2 wrote
                shape, dtype = _header(stream)
        except Exception as error:  # a header can make NumPy, ast or tokenize raise anything
            raise _BadFileError("is not a whole NumPy file (no such header)") from error
        if dtype.hasobject:
            return _objects(stream, shape, dtype, size)
        if dtype.itemsize == 0 or dtype.fields is not None or dtype.subdtype is not None:
            raise _BadFileError(f"holds {dtype} {list(shape)}, neither numbers nor text", "write plain numbers or text")
        declared, there = math.prod(shape) * dtype.itemsize, size - stream.tell()
        if min(shape, default=0) < 0 or declared > there:
            raise _BadFileError(f"is not a whole NumPy file ({list(shape)} of {dtype} declared, {there} bytes there)")
        stream.seek(0)
        try:
            return np.asarray(np.lib.format.read_array(stream, allow_pickle=False))
        except (ValueError, TypeError, OverflowError, MemoryError, EOFError) as error:
            raise _BadFileError(f"is not a whole NumPy file ({error or type(error).__name__})") from error


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and dtype that the file declares."""
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
    elif version in ((2, 0), (3, 0)):
        # A header of version 3 has UTF-8 where one of version 2 has Latin-1: in the names of fields only.
        shape, _, dtype = np.lib.format.read_array_header_2_0(stream)
    else:
        raise ValueError(f"version {version}")
    return shape, dtype


def _objects(stream: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any], size: int) -> npt.NDArray[Any]:
    remedy = "save it as plain numbers or text"
    if dtype != np.dtype(object):
        raise _BadFileError(f"holds {dtype}, neither numbers nor text", remedy)
    if size > LARGEST_PICKLED:
        raise _BadFileError(f"has {size} pickled bytes, where {LARGEST_PICKLED} are read", remedy)
    try:
        return plain_array(stream.read(), shape)
    except UnsafePickleError as error:
        raise _BadFileError(f"is pickled, and {error}, which is refused as unsafe", remedy) from error
