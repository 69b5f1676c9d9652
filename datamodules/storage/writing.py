"""Writing a feature corpus in the public layout."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
from h5py import h5d, h5f, h5g, h5p, h5s, h5t

from datamodules.files import atomic_path, write_bytes
from datamodules.storage.targets import id_path, label_path


def write_features(path: str | Path, utterances: Iterable[tuple[str, npt.NDArray[np.float32]]]) -> None:
    """Write a feature file: one dataset [frames, width] per utterance.

    Args:
        path: the file, replaced if it exists; its folder is made. It is never left half-written.
        utterances: ids with their frames.

    Raises:
        OSError: the folder cannot be written or the disk is full.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Built in memory: on a full disk HDF5 prints a traceback for every dataset that it cannot flush.
    with h5py.File(path.name, "w", driver="core", backing_store=False, libver="latest") as file:
        for name, frames in utterances:
            file.create_dataset(name, data=frames)
        file.flush()
        image = file.id.get_file_image()
    write_bytes(path, image)


def write_frames(
    path: Path,
    lengths: Mapping[str, int],
    width: int,
    frames: Iterable[tuple[str, npt.NDArray[np.floating[Any]]]],
    finish: Callable[[Any], None] | None = None,
) -> None:
    """Write a feature file: one dataset float32 [T, width] per utterance, contiguous.

    HDF5 makes the file with its datasets empty; their bytes are then written where they are to be. So any order of
    frames gives the same file, one utterance is in memory at a time, and a full disk is an ordinary error.

    Args:
        path: the file, replaced if it exists.
        lengths: T of each utterance, in the order of the file.
        width: values of a frame.
        frames: of each utterance, in any order.
        finish: called with the open file, an ``h5py.h5f.FileID``, before frames are written; to add attributes.

    Raises:
        OSError: the folder cannot be written or the disk is full.
    """
    with atomic_path(path) as temporary:
        _reserve(temporary, sum(lengths.values()) * width * 4)
        positions = _lay_out(temporary, lengths, width, finish)
        with temporary.open("r+b") as file:
            for name, values in frames:
                file.seek(positions.pop(name))
                file.write(np.ascontiguousarray(values, "<f4").data)
        assert not positions, "every dataset is written"


def _reserve(path: Path, size: int) -> None:
    """Fail where a file of this size has no room, before HDF5 writes, whose errors of a full disk are not one line.

    Raises:
        OSError: there is no room.
    """
    if not hasattr(os, "posix_fallocate"):
        return
    with path.open("r+b") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, max(size, 1))
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                raise


def _lay_out(
    path: Path, lengths: Mapping[str, int], width: int, finish: Callable[[Any], None] | None
) -> dict[str, int]:
    """Make the file with datasets that have room, and no values yet; the byte at which each begins."""
    file = h5f.create(os.fsencode(path), h5f.ACC_TRUNC, _without_times(h5p.FILE_CREATE), _latest())
    try:
        creation = _without_times(h5p.DATASET_CREATE)
        creation.set_layout(h5d.CONTIGUOUS)
        creation.set_alloc_time(h5d.ALLOC_TIME_EARLY)
        creation.set_fill_time(h5d.FILL_TIME_NEVER)
        groups: set[str] = set()
        positions: dict[str, int] = {}
        for name, length in lengths.items():
            for slash in (at for at, letter in enumerate(name) if letter == "/"):  # ids may name folders
                if name[:slash] not in groups:
                    groups.add(name[:slash])
                    h5g.create(file, name[:slash].encode(), gcpl=_without_times(h5p.GROUP_CREATE))
            space = h5s.create_simple((length, width))
            positions[name] = h5d.create(file, name.encode(), h5t.IEEE_F32LE, space, creation).get_offset()
        if finish is not None:
            finish(file)
    finally:
        file.close()
    return positions


def _without_times(kind: Any) -> Any:
    """Properties of what is made in a file, which would otherwise be given the time of day."""
    properties = h5p.create(kind)
    properties.set_obj_track_times(False)
    return properties


def _latest() -> Any:
    access = h5p.create(h5p.FILE_ACCESS)
    access.set_libver_bounds(h5f.LIBVER_LATEST, h5f.LIBVER_LATEST)  # a fraction of the bytes of older formats
    return access


def write_targets(folder: Path, splits: Mapping[str, tuple[Sequence[str], npt.NDArray[Any]]]) -> None:
    """Write the label files of a fold, none of them half-written.

    Args:
        folder: ``target/<fold>``; made.
        splits: ids and labels (one-hot rows, class numbers or values) of ``train``, ``val`` and ``test``.

    Raises:
        OSError: the folder cannot be written or the disk is full.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for split, (ids, labels) in splits.items():
        columns = {
            label_path(folder, split): labels,
            id_path(folder, split): np.array([name.encode() for name in ids], dtype=np.bytes_)[:, None],
        }
        for path, column in columns.items():
            image = BytesIO()
            np.save(image, column)
            write_bytes(path, image.getvalue())
