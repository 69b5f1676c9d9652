"""Mean and standard deviation of the frames of one modality, over the train utterances of a fold."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from datamodules.storage.layouts import Layout
from datamodules.storage.problems import Problem, raise_first

FloatArray = npt.NDArray[np.float64]


class Statistics(NamedTuple):
    """What frames are normalised with: ``(frames - mean) / std``.

    Attributes:
        mean: float32 [D].
        std: float32 [D], of the population; 1 where the values do not vary.
    """

    mean: Tensor
    std: Tensor


class Moments(NamedTuple):
    """Number, mean and summed squared deviations of some frames, in float64.

    Attributes:
        frames: the number of frames.
        mean: float64 [D].
        squares: float64 [D].
    """

    frames: int
    mean: FloatArray
    squares: FloatArray

    @classmethod
    def none(cls, width: int) -> Moments:
        """Of no frame at all."""
        return cls(0, np.zeros(width), np.zeros(width))

    @classmethod
    def of(cls, frames: npt.NDArray[np.float32]) -> Moments:
        """Of frames [T, D], T > 0."""
        exact = frames.astype(np.float64)
        mean = exact.mean(axis=0)
        exact -= mean
        return cls(len(frames), mean, np.einsum("td,td->d", exact, exact))

    def with_more(self, other: Moments) -> Moments:
        """Of both sets of frames together (Chan, Golub and LeVeque, 1983)."""
        count = self.frames + other.frames
        if count == 0:
            return self
        step = other.mean - self.mean
        share = other.frames / count
        squares = self.squares + other.squares + step * step * (self.frames * share)
        return Moments(count, self.mean + step * share, squares)

    def statistics(self) -> Statistics:
        """The statistics of these frames; mean 0 and std 1 where there is no frame."""
        std = np.sqrt(self.squares / max(self.frames, 1)).astype(np.float32)
        std[std == 0] = 1
        return Statistics(torch.from_numpy(self.mean.astype(np.float32)), torch.from_numpy(std))


def shipped_statistics(root: Path, layout: Layout, fold: int) -> Statistics | None:
    """The audio statistics of a fold that came with a corpus, or None where there are none.

    They are for comparison only: what is used is computed from the fold's train utterances.

    Raises:
        CorpusError: the file is there but cannot be read.
    """
    found = examine_shipped(layout.statistics_path(Path(root)), fold)
    if isinstance(found, Problem):
        raise_first([found])
        return None
    return found


def examine_shipped(path: Path, fold: int) -> Statistics | Problem | None:
    """As :func:`shipped_statistics`, with a problem in place of an error."""
    try:
        with h5py.File(path, "r") as file:
            if str(fold) not in file:
                return None
            group: Any = file[str(fold)]
            mean, std = (np.asarray(group[name][()], dtype=np.float32).ravel() for name in ("mean", "std"))
    except FileNotFoundError:
        return None
    except (OSError, KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        what = f"the mean and std of fold {fold} cannot be read ({error})"
        return Problem(path, what, "copy it again, or delete it: it is not needed")
    return Statistics(torch.from_numpy(mean), torch.from_numpy(std))


def difference(ours: Statistics, theirs: Statistics) -> float:
    """The largest difference of mean or std, in units of our std; infinite for another width or NaN."""
    if ours.mean.shape != theirs.mean.shape or ours.std.shape != theirs.std.shape:
        return float("inf")
    largest = max(float(((a - b).abs() / ours.std).max()) for a, b in zip(ours, theirs, strict=True))
    return largest if np.isfinite(largest) else float("inf")
