"""Drawn faces of an invented corpus, which ordinary face detectors find."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

_BROW = {"angry": -0.35, "sad": 0.35, "happy": 0.05}
_LIFT = {"angry": 0.05, "sad": -0.01, "happy": -0.03}
_BEND = {"angry": 0.20, "sad": 0.45, "happy": -0.55}
_WIDTH = {"angry": 0.17, "sad": 0.17, "happy": 0.24}


@cache
def draw_face(size: int, expression: str, mouth: float, turn: float, tone: float, markers: bool) -> Array:
    """A shaded head and shoulders [size, size, 3] in 0..1, which ordinary face detectors find.

    Args:
        size: pixels of a side.
        expression: a class; other than the four is drawn as neutral.
        mouth: 0 closed to 1 open.
        turn: -0.1 to 0.1, of the head.
        tone: lightness of the skin.
        markers: draw white dots, as of motion capture.
    """
    row, column = np.mgrid[0:size, 0:size].astype(np.float64)
    u, v = (column + 0.5) / size * 2 - 1, (row + 0.5) / size * 2 - 1
    soft = 3.0 / size
    picture = np.empty((size, size, 3))
    picture[:] = (0.42, 0.45, 0.50)
    skin, lips = np.array([1.0, 0.80, 0.66]) * tone, np.array([0.86, 0.36, 0.35]) * tone
    hair = np.array([0.16, 0.11, 0.08])

    def ellipse(x: float, y: float, rx: float, ry: float, angle: float = 0.0, edge: float = 1.0) -> Array:
        a, b = u - x, v - y
        a, b = np.cos(angle) * a + np.sin(angle) * b, np.cos(angle) * b - np.sin(angle) * a
        distance = np.sqrt((a / rx) ** 2 + (b / ry) ** 2)
        inside: Array = np.clip((1 - distance) / (2 * soft * edge / min(rx, ry)) + 0.5, 0, 1)
        return inside

    def paint(mask: Array, color: tuple[float, ...] | Array) -> None:
        picture[:] = picture * (1 - mask[..., None]) + mask[..., None] * np.asarray(color)

    def shade(mask: Array, factor: float) -> None:
        picture[:] = picture * (1 + (factor - 1) * mask[..., None])

    paint(ellipse(0, 1.05, 0.75, 0.42, edge=2), (0.22, 0.26, 0.36))  # shoulders
    paint(ellipse(0, 0.70, 0.24, 0.40, edge=2), skin * 0.80)  # neck
    paint(ellipse(0, -0.22, 0.60, 0.66, edge=3), hair)
    for side in (-1, 1):
        paint(ellipse(0.54 * side, 0.02, 0.08, 0.15), skin * 0.85)  # ears
    head = ellipse(0, 0.06, 0.50, 0.66, edge=2)
    paint(head, skin)
    light = 1.06 - 0.26 * (u / 0.5) ** 2 - 0.10 * np.clip(v, 0, 1) ** 2
    picture[:] = picture * (1 - head[..., None]) + head[..., None] * picture * light[..., None]
    paint(ellipse(0, -0.60, 0.46, 0.20, edge=5), hair)  # fringe
    for side in (-1, 1):
        x = side * 0.21 + turn
        shade(ellipse(x, -0.07, 0.17, 0.12, edge=12), 0.72)  # socket
        paint(ellipse(x, -0.06, 0.105, 0.05), (0.93, 0.92, 0.90))
        paint(ellipse(x + 0.2 * turn, -0.06, 0.048, 0.05), (0.20, 0.13, 0.09))  # iris
        paint(ellipse(x + 0.2 * turn, -0.06, 0.022, 0.024), (0.02, 0.02, 0.02))
        paint(ellipse(x, -0.105, 0.115, 0.018), (0.15, 0.09, 0.07))  # lid
        brow = side * _BROW.get(expression, 0.0)
        paint(ellipse(x, -0.20 + _LIFT.get(expression, 0.0), 0.145, 0.030, angle=-brow), hair)
    nose = 1.3 * turn
    shade(ellipse(nose - 0.055, 0.10, 0.045, 0.20, edge=8), 0.86)
    shade(ellipse(nose + 0.02, 0.08, 0.03, 0.18, edge=8), 1.10)
    shade(ellipse(nose, 0.245, 0.12, 0.035, edge=6), 0.70)
    for side in (-1, 1):
        paint(ellipse(nose + 0.05 * side, 0.235, 0.025, 0.015), skin * 0.35)  # nostrils
    middle = 0.42 + _BEND.get(expression, 0.0) * ((u - turn) / 0.5) ** 2
    width, gap = _WIDTH.get(expression, 0.19), 0.012 + 0.085 * mouth
    inside = np.clip((width - np.abs(u - turn)) / 0.03, 0, 1)
    paint(np.clip((0.035 + gap - np.abs(v - middle)) / (2 * soft) + 0.5, 0, 1) * inside, lips)
    hole = gap * (1 - ((u - turn) / width) ** 2).clip(0)
    paint(np.clip((hole - np.abs(v - middle)) / (2 * soft) + 0.5, 0, 1) * inside, (0.13, 0.04, 0.05))
    if markers:
        for x, y in ((-0.30, 0.20), (0.30, 0.20), (-0.24, -0.30), (0.24, -0.30), (0.0, -0.34), (0.0, 0.60)):
            paint(ellipse(x + turn, y, 0.022, 0.022), (0.98, 0.98, 0.98))
    return picture


@dataclass
class Person:
    """Who is seen.

    Attributes:
        tone: lightness of the skin.
        wall: the colour behind, by which a test can tell whose picture it has.
        markers: whether motion-capture markers are worn.
    """

    tone: float
    wall: tuple[float, float, float]
    markers: bool = False

    def picture(
        self, height: int, width: int, expression: str, mouth: float, turn: float, away: bool, noise: Array
    ) -> Array:
        """The person in a picture [height, width, 3] of 0..1; seen from behind where ``away``."""
        picture = np.empty((height, width, 3))
        picture[:] = self.wall
        size = min(len(noise), height, width)
        top, left = (height - size) // 2, (width - size) // 2
        if away:
            row, column = np.mgrid[0:size, 0:size] / size * 2 - 1
            back = (column / 0.5) ** 2 + (row / 0.6) ** 2 < 1
            picture[top : top + size, left : left + size][back] = (0.16, 0.11, 0.08)
            return np.clip(picture, 0, 1)
        # To one digit: the same few pictures are drawn once.
        face = draw_face(size, expression, round(mouth, 1), round(turn, 2), self.tone, self.markers)
        picture[top : top + size, left : left + size] = np.clip(face + 0.012 * noise[:size, :size], 0, 1)
        return picture
