"""Follow one face through the pictures of an utterance and cut it out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from datamodules.extraction.media.detectors import Face, FaceDetector, UInt8Array, version_of
from datamodules.extraction.media.pictures import Picture
from datamodules.extraction.recordings import Half

HEIGHT = 360
"""Rows that a picture is scaled to, smaller ones too, before faces are looked for."""

HEIGHT_AGAIN = 720
"""Rows when they are looked for once more."""

MARGIN = 1.15
"""Side of the square that is cut out, in sides of the detector's box."""

_BLACK = 20
"""Lightness up to which a row or column is a black bar."""


@dataclass(frozen=True)
class Region:
    """A part of a picture: rows ``top`` to ``bottom``, columns ``left`` to ``right``."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def empty(self) -> bool:
        """Whether it has no pixel."""
        return self.top >= self.bottom or self.left >= self.right

    def of(self, pixels: UInt8Array) -> UInt8Array:
        """Its pixels, [H, W] or [H, W, 3]."""
        return pixels[self.top : self.bottom, self.left : self.right]


def content(picture: Picture, half: Half) -> Region:
    """The speaker's half of a picture without black bars at its edges; empty if all of it is black."""
    grey = picture.grey
    width = grey.shape[1]
    left, right = {"whole": (0, width), "left": (0, width // 2), "right": (width // 2, width)}[half]
    bright = grey[:, left:right].max(axis=1, initial=0) > _BLACK
    rows = np.flatnonzero(bright)
    if not len(rows):
        return Region(0, 0, left, left)
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    columns = np.flatnonzero(grey[top:bottom, left:right].max(axis=0) > _BLACK)
    return Region(top, bottom, left + int(columns[0]), left + int(columns[-1]) + 1)


def cut(pixels: UInt8Array, region: Region, face: Face, side: int) -> UInt8Array:
    """Cut a square around a face and scale it; beyond the region its edge is repeated.

    Args:
        pixels: of the whole picture, uint8 [H, W] or [H, W, 3].
        region: which belongs to the speaker.
        face: in pixels of the region.
        side: pixels of the result, uint8 [side, side] or [side, side, 3].
    """
    column, row = face.center
    size = max(1, round(MARGIN * max(face.width, face.height)))
    rows = round(row - size / 2) + np.arange(size)
    columns = round(column - size / 2) + np.arange(size)
    part = region.of(pixels)
    square = part[np.clip(rows, 0, part.shape[0] - 1)[:, None], np.clip(columns, 0, part.shape[1] - 1)]
    return scaled(square, side, side)


def scaled(pixels: UInt8Array, height: int, width: int) -> UInt8Array:
    """Scale by a triangle filter as wide as a pixel of the smaller of both.

    Args:
        pixels: uint8 [H, W] or [H, W, 3].
        height: of the result.
        width: of the result.
    """
    if pixels.shape[:2] == (height, width):
        return pixels
    image = Image.fromarray(np.ascontiguousarray(pixels))
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))


def middle(pixels: UInt8Array, region: Region, side: int) -> UInt8Array:
    """The largest square in the middle of a region, scaled to ``side``."""
    part = region.of(pixels)
    size = min(part.shape[:2])
    top, left = (part.shape[0] - size) // 2, (part.shape[1] - size) // 2
    return scaled(part[top : top + size, left : left + size], side, side)


@dataclass
class FaceTrack:
    """The speaker's face in the pictures of one utterance.

    Attributes:
        detector: finds faces.
        half: the part of the picture that shows the speaker.
        side: pixels of what is cut out.
        grey: cut out one channel instead of RGB.
        again: look at :data:`HEIGHT_AGAIN` instead of :data:`HEIGHT` rows.
        crops: what was cut out, uint8 [side, side] or [side, side, 3].
        times: of these, in seconds.
        looked_at: number of pictures.
        several: number of pictures with more than one face.
    """

    detector: FaceDetector
    half: Half
    side: int
    grey: bool
    again: bool = False
    crops: list[UInt8Array] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    looked_at: int = 0
    several: int = 0
    _last: tuple[float, float] | None = None

    def see(self, time: float, picture: Picture) -> None:
        """Look for the face in the next picture."""
        self.looked_at += 1
        region = content(picture, self.half)
        if region.empty:
            return
        faces = self._find(picture, region)
        self.several += len(faces) > 1
        if not faces:
            return
        face = self._speaker(faces, region)
        self._last = (face.center[0] + region.left, face.center[1] + region.top)
        self.crops.append(cut(picture.grey if self.grey else picture.rgb, region, face, self.side))
        self.times.append(time)

    def _find(self, picture: Picture, region: Region) -> list[Face]:
        """Faces in pixels of the region."""
        part = region.of(picture.grey if self.detector.grey else picture.rgb)
        height, width = part.shape[:2]
        wanted = HEIGHT_AGAIN if self.again else HEIGHT
        factor = height / wanted
        found = self.detector(scaled(part, wanted, max(1, round(width / factor))))
        return [
            Face(face.left * factor, face.top * factor, face.width * factor, face.height * factor, face.score)
            for face in found
        ]

    def _speaker(self, faces: list[Face], region: Region) -> Face:
        """The nearest to where the face was last; at first the one with the best score."""
        if self._last is None:
            return max(faces, key=lambda face: face.score)
        x, y = self._last[0] - region.left, self._last[1] - region.top
        return min(faces, key=lambda face: (face.center[0] - x) ** 2 + (face.center[1] - y) ** 2)

    def pixels(self) -> UInt8Array:
        """All that was cut out, [N, side, side] or [N, side, side, 3]."""
        stacked: UInt8Array = np.stack(self.crops)
        return stacked


def recipe(detector: FaceDetector) -> dict[str, Any]:
    """What the faces that are cut out depend on, the detector's name and its own recipe included, as plain data."""
    versions = {name: version_of(name) for name in ("av", "pillow")}
    return {
        **detector.recipe(),
        "name": detector.name,
        **versions,
        "cut": 1,
        "heights": [HEIGHT, HEIGHT_AGAIN],
        "margin": MARGIN,
    }
