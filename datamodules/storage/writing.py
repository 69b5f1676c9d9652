"""Writing a feature corpus in the public layout."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from datamodules.files import write_bytes
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
