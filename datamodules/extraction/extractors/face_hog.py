"""face-hog: histograms of gradients of the face."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from datamodules.extraction.dependencies import require
from datamodules.extraction.extractor import FloatArray, Pictures, Reads
from datamodules.extraction.media.detectors import version_of

_CELLS = 8
"""On a side, of 8x8 pixels each."""

_ORIENTATIONS = 9


class FaceHog:
    """Histograms of oriented gradients of the face, 8x8 cells of 9 orientations (Dalal & Triggs 2005).

    Grey faces of 64x64 pixels are equalised. A cell's histogram is its mean over the blocks of 2x2 cells that it was
    normalised in.

    Raises:
        InputError: scikit-image is not installed.
    """

    name = "face-hog"
    modality: Literal["visual"] = "visual"
    width = _CELLS * _CELLS * _ORIENTATIONS
    reads = Reads("faces", side=64, grey=True)

    def __init__(self) -> None:
        self._equalise = require("skimage.exposure").equalize_hist
        self._hog = require("skimage.feature").hog

    def __call__(self, item: Pictures) -> FloatArray:
        """Compute features [N, 576] in 0..1 of grey faces uint8 [N, 64, 64]."""
        return np.stack([self._describe(face) for face in item.pixels]).astype(np.float32)

    def _describe(self, face: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
        side = self.reads.side // _CELLS
        blocks = self._hog(
            self._equalise(face),
            orientations=_ORIENTATIONS,
            pixels_per_cell=(side, side),
            cells_per_block=(2, 2),
            block_norm="L2-Hys",
            feature_vector=False,
        )
        total = np.zeros((_CELLS, _CELLS, _ORIENTATIONS))
        count = np.zeros((_CELLS, _CELLS, 1))
        for row in range(2):
            for column in range(2):
                place = np.s_[row : row + _CELLS - 1, column : column + _CELLS - 1]
                total[place] += blocks[:, :, row, column]
                count[place] += 1
        return (total / count).reshape(-1)

    def recipe(self) -> dict[str, Any]:
        """Versions and sizes."""
        return {
            "scikit-image": version_of("scikit-image"),
            "side": self.reads.side,
            "orientations": _ORIENTATIONS,
            "cells": _CELLS,
            "blocks": 2,
        }
