"""Face detectors: a picture in, boxes out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from datamodules.extraction.dependencies import require

UInt8Array = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Face:
    """A box around a face, in pixels of the picture; it may reach beyond its edges.

    Attributes:
        left: of its first column.
        top: of its first row.
        width: in columns.
        height: in rows.
        score: how sure the detector is.
    """

    left: float
    top: float
    width: float
    height: float
    score: float

    @property
    def center(self) -> tuple[float, float]:
        """Column and row."""
        return self.left + self.width / 2, self.top + self.height / 2


@runtime_checkable
class FaceDetector(Protocol):
    """Finds faces; made with its options by keyword, in the process that uses it.

    Attributes:
        name: its name on the command line.
        grey: whether it reads grey pictures instead of RGB.
    """

    name: str
    grey: bool

    def __call__(self, picture: UInt8Array) -> Sequence[Face]:
        """Find the faces in a picture uint8 [H, W] where grey, or [H, W, 3]."""

    def recipe(self) -> dict[str, Any]:
        """Everything that changes a box, as plain data."""


class HogDetector:
    """The frontal detector of dlib (histograms of gradients; King 2015), which finds faces at least 80 pixels wide.

    Args:
        threshold: score from which a box is a face.
    """

    name = "hog"
    grey = True

    def __init__(self, threshold: float = 0.0) -> None:
        self.threshold = float(threshold)
        self._detector = require("dlib").get_frontal_face_detector()

    def __call__(self, picture: UInt8Array) -> list[Face]:
        """Find the faces in a grey picture uint8 [H, W]."""
        boxes, scores, _ = self._detector.run(np.ascontiguousarray(picture), 0, self.threshold)
        return [
            Face(box.left(), box.top(), box.width(), box.height(), float(score))
            for box, score in zip(boxes, scores, strict=True)
        ]

    def recipe(self) -> dict[str, Any]:
        """Version of dlib, threshold."""
        return {"dlib": version_of("dlib-bin", "dlib"), "threshold": self.threshold}


def version_of(*distributions: str) -> str:
    """Version of the first of these distributions that is installed, without its build: 2.13.0 of 2.13.0+cpu."""
    for name in distributions:
        try:
            return version(name).partition("+")[0]
        except PackageNotFoundError:
            continue
    return "unknown"
