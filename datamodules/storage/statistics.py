"""Mean and standard deviation of the frames of one modality, over the train utterances of a fold."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from datamodules.storage.features import MOST_COMPRESSED, WIDEST
from datamodules.storage.hdf5 import H5_ERRORS, open_hdf5
from datamodules.storage.problems import Problems, Strict

Float64Array = npt.NDArray[np.float64]


STATISTICS_TOLERANCE = 1e-3
"""Shipped statistics agree with ours up to this share of our std: float32 sums stay well below it."""


class Statistics(NamedTuple):
    """Mean and standard deviation that normalise frames: ``(frames - mean) / std``.

    Attributes:
        mean: float32 [D].
        std: float32 [D], of the population; 1 for values that do not vary.
    """

    mean: Tensor
    std: Tensor


class Moments(NamedTuple):
    """Number, mean and summed squared deviations of some frames, in float64.

    >>> import numpy as np
    >>> both = Moments.of(np.float32([[1], [3]])).with_more(Moments.of(np.float32([[5]])))
    >>> both.frames, both.mean.tolist(), both.squares.tolist()
    (3, [3.0], [8.0])

    Attributes:
        frames: the number of frames.
        mean: float64 [D].
        squares: float64 [D].
    """

    frames: int
    mean: Float64Array
    squares: Float64Array

    @classmethod
    def none(cls, width: int) -> Moments:
        """Moments of no frame."""
        return cls(0, np.zeros(width), np.zeros(width))

    @classmethod
    def of(cls, frames: npt.NDArray[np.float32]) -> Moments:
        """Moments of frames [T, D], T > 0."""
        exact = frames.astype(np.float64)
        mean = exact.mean(axis=0)
        exact -= mean
        return cls(len(frames), mean, np.einsum("td,td->d", exact, exact))

    def with_more(self, other: Moments) -> Moments:
        """Combine with the moments of other frames (Chan, Golub and LeVeque, 1983)."""
        count = self.frames + other.frames
        if count == 0:
            return self
        step = other.mean - self.mean
        share = other.frames / count
        squares = self.squares + other.squares + step * step * (self.frames * share)
        return Moments(count, self.mean + step * share, squares)

    def spread(self) -> Tensor:
        """Standard deviation of the population, float32 [D]; 0 of what does not vary, and without any frame."""
        return torch.from_numpy(np.sqrt(self.squares / max(self.frames, 1)).astype(np.float32))

    def statistics(self) -> Statistics:
        """Statistics of these frames; mean 0 and std 1 without any."""
        std = self.spread()
        std[std == 0] = 1
        return Statistics(torch.from_numpy(self.mean.astype(np.float32)), std)


def shipped_statistics(path: Path, fold: int, problems: Problems | None = None) -> Statistics | None:
    """Read the audio statistics of a fold that came with a corpus, None if there are none.

    They are for comparison only: what is used is computed from the fold's training utterances.

    Args:
        path: of the file, see :meth:`~datamodules.storage.layouts.Layout.statistics_path`.
        fold: from 1.
        problems: collects what is wrong; by default the first problem is raised.

    Raises:
        CorpusError: without ``problems``: the file is there but cannot be read.
    """
    if not path.exists():
        return None
    problems = problems or Strict()
    remedy = "copy it again, or delete it: it is not needed"
    found = Problems()
    file = open_hdf5(path, found)
    if file is None:
        for problem in found.found:
            problems.add(path, problem.what, remedy)
        return None
    try:
        with file:
            if str(fold) not in file:
                return None
            mean, std = (_vector(file, str(fold), name) for name in ("mean", "std"))
    except (*H5_ERRORS, AttributeError, OverflowError, MemoryError) as error:
        problems.add(path, f"the mean and std of fold {fold} cannot be read ({error})", remedy)
        return None
    return Statistics(torch.from_numpy(mean), torch.from_numpy(std))


def unlike_shipped(ours: Statistics | None, path: Path, fold: int, all_used: bool) -> Iterator[str]:
    """Say what is wrong with the statistics that came with a corpus, beside its own.

    Args:
        ours: of the training utterances; None: not needed.
        path: of the file, see :func:`shipped_statistics`.
        fold: from 1.
        all_used: whether they are of all utterances, as shipped ones are.
    """
    problems = Problems()
    shipped = shipped_statistics(path, fold, problems)
    yield from map(str, problems.found)  # they are not needed
    if ours is None or shipped is None or not all_used:
        return
    worst = difference(ours, shipped)
    if worst > STATISTICS_TOLERANCE:
        yield (
            f"{path}: fold {fold} differs from the statistics of the training utterances by up to {worst:.2g} standard "
            "deviations; ours are used, since the file may include test data."
        )


def _vector(file: Any, fold: str, name: str) -> npt.NDArray[np.float32]:
    """Read a mean or std, of this file and of a plausible width only."""
    for group, part in ((file, fold), (file[fold], name)):
        if isinstance(group.get(part, getlink=True), h5py.ExternalLink):
            raise ValueError(f"{part} is in another file")
    dataset = file[fold][name]
    if dataset.is_virtual or dataset.external:
        raise ValueError(f"{name} is in another file")
    if dataset.size > WIDEST or dataset.nbytes > dataset.id.get_storage_size() * MOST_COMPRESSED:
        raise ValueError(f"{name} has {dataset.size} values")
    return np.asarray(dataset[()], dtype=np.float32).ravel()


def difference(ours: Statistics, theirs: Statistics) -> float:
    """The largest difference of mean or std, in units of our std; infinite for another width or NaN."""
    if ours.mean.shape != theirs.mean.shape or ours.std.shape != theirs.std.shape:
        return float("inf")
    largest = max(float(((a - b).abs() / ours.std).max()) for a, b in zip(ours, theirs, strict=True))
    return largest if np.isfinite(largest) else float("inf")
