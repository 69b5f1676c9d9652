"""Action units, gaze and pose from the CSV files that OpenFace wrote."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from datamodules.errors import InputError
from datamodules.extraction.extractor import FRAME_RATE, Absent, FloatArray, Reads, Words
from datamodules.extraction.extractors.ready_made import ReadyMade
from datamodules.text import printable

GROUPS = {
    "au": re.compile(r"AU\d\d_[rc]"),
    "gaze": re.compile(r"gaze_([01]_[xyz]|angle_[xy])"),
    "pose": re.compile(r"pose_[TR][xyz]"),
}
"""Columns by group: intensity and presence of action units, directions of both eyes, place and turn of the head."""


class OpenFace:
    """Columns of ``<utterance>.csv``: 35 of action units, 8 of gaze and 6 of pose in OpenFace 2.

    Rows without success are left out; without any the utterance is absent. Of several faces the one with most rows is
    taken. The rows of each tenth of a second are averaged where there are time stamps. https://github.com/TadasBaltrusaitis/OpenFace

    Args:
        folder: of the files.
        groups: of columns: ``au``, ``gaze``, ``pose``, joined by commas.
        fps: rows a second after averaging; 0 leaves them as they are.

    Raises:
        InputError: the folder has no such files, or the first of them lacks the columns.
    """

    modality: Literal["audio", "visual", "text"] = "visual"

    def __init__(self, folder: str, groups: str = "au,gaze,pose", fps: int = FRAME_RATE) -> None:
        self.groups = tuple(group.strip() for group in groups.split(","))
        unknown = [group for group in self.groups if group not in GROUPS]
        if unknown or len({*self.groups}) < len(self.groups):
            raise InputError(f"openface: groups must be some of {', '.join(GROUPS)}, each once, not {groups!r}.")
        if fps < 0:
            raise InputError(f"openface: fps must not be below 0, it is {fps}.")
        self.fps = fps
        self._files = ReadyMade(folder, ".csv", "openface")
        self.name = self._files.name
        self.reads = Reads("nothing", fps=fps)
        self.columns = self._wanted(_header(self._files.paths[0]), self._files.paths[0])
        self.width = len(self.columns)

    def __call__(self, item: Words) -> FloatArray:
        """Read features [T, D] of an utterance.

        Raises:
            Absent: it has no file, or no row with success.
            InputError: the file lacks columns, or holds something that is not finite.
        """
        path = self._files.of(item.utterance)
        header = _header(path)
        if self._wanted(header, path) != self.columns:
            raise InputError(f"openface: {printable(path)}: has other columns than {self._files.paths[0].name}.")
        optional = [name for name in ("timestamp", "face_id") if name in header]
        table = _table(path, header, ["success", *optional, *self.columns])
        rows = table["success"] >= 0.5
        if not rows.any():
            raise Absent(f"no face in {len(rows)} frames")
        if "face_id" in table:
            faces, counts = np.unique(table["face_id"][rows], return_counts=True)
            rows &= table["face_id"] == faces[counts.argmax()]
        found = np.stack([table[name][rows] for name in self.columns], 1)
        if not np.isfinite(found).all():
            raise InputError(f"openface: {printable(path)}: has values that are not finite.")
        if self.fps and "timestamp" in table:
            found = _averaged(found, table["timestamp"][rows], self.fps)
        return found.astype(np.float32)

    def recipe(self) -> dict[str, Any]:
        """Columns, rate and the digest of all files."""
        return {"columns": list(self.columns), "fps": self.fps, "sha256": self._files.sha256()}

    def _wanted(self, header: list[str], path: Path) -> tuple[str, ...]:
        """The columns of the groups, in the file's order within each.

        Raises:
            InputError: a group has none, or ``success`` is not there.
        """
        shown = printable(path)
        if "success" not in header:
            raise InputError(f"openface: {shown}: has no column success; OpenFace's FeatureExtraction writes it.")
        found: list[str] = []
        for group in self.groups:
            columns = [name for name in header if GROUPS[group].fullmatch(name)]
            if not columns:
                raise InputError(f"openface: {shown}: has no columns of {group}; leave it out of the option groups.")
            found += columns
        return tuple(found)


def _averaged(rows: npt.NDArray[np.float64], times: npt.NDArray[np.float64], fps: int) -> npt.NDArray[np.float64]:
    """Mean of the rows [N, D] of each 1/fps seconds that has some."""
    if not np.isfinite(times).all():
        raise InputError("openface: a time stamp is not finite.")
    # A stamp has three digits; its product may fall just below a whole number.
    slots = np.floor(times * fps + 1e-6 * fps).astype(np.int64)
    _, slot, counts = np.unique(slots, return_inverse=True, return_counts=True)
    total = np.zeros((len(counts), rows.shape[1]))
    np.add.at(total, slot, rows)
    return total / counts[:, None]


def _header(path: Path) -> list[str]:
    """Column names; OpenFace writes blanks before them."""
    with path.open(encoding="utf-8", errors="replace") as file:
        return [name.strip() for name in file.readline(1 << 20).split(",")]


def _table(path: Path, header: list[str], names: list[str]) -> dict[str, npt.NDArray[np.float64]]:
    """Columns [N] by name.

    Raises:
        InputError: a row is no row of numbers.
        Absent: there is no row.
    """
    places = [header.index(name) for name in names]
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            next(file)
            lines = [line for line in file if line.strip()]
        values = np.loadtxt(lines, delimiter=",", usecols=places, ndmin=2) if lines else np.empty((0, len(places)))
    except (ValueError, IndexError) as error:
        raise InputError(f"openface: {printable(path)}: is no table of numbers ({printable(error)}).") from error
    if not len(values):
        raise Absent("no face in 0 frames")
    return dict(zip(names, values.T, strict=True))
