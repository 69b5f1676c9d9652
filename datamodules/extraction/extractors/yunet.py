"""yunet: a small convolutional face detector, from a file of the user's."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from datamodules.errors import InputError
from datamodules.extraction.extractors.hub import check_sha256
from datamodules.extraction.extractors.onnx import open_session
from datamodules.extraction.extractors.ready_made import sha256_of, weights_path
from datamodules.extraction.media.detectors import Face, UInt8Array, version_of
from datamodules.extraction.media.faces import scaled
from datamodules.text import printable

STRIDES = (8, 16, 32)
"""Pixels between the cells of its three grids."""

_OVERLAP = 0.3
"""Of two boxes that share more of their union than this the better one is kept."""

Array = npt.NDArray[np.float32]


class YuNet:
    """Finds faces from every side, by YuNet (Wu, Peng & Yu 2023), as OpenCV's zoo has it since March 2023.

    The file, ``face_detection_yunet_2023mar.onnx``, is MIT: https://github.com/opencv/opencv_zoo. A picture larger than
    a network of fixed size is scaled down; a smaller one is filled up with black.

    Args:
        model: the file.
        threshold: score from which a box is a face, 0..1.
        sha256: digest that the file must have.
        device: ``cpu``, or ``cuda`` where onnxruntime was built for it.

    Raises:
        InputError: the file is not there or another network.
    """

    name = "yunet"
    grey = False

    def __init__(self, model: str, threshold: float = 0.9, sha256: str | None = None, *, device: str = "cpu") -> None:
        if not 0 <= threshold <= 1:
            raise InputError(f"yunet: threshold must be in 0..1, it is {threshold}.")
        path = weights_path(model)
        self.threshold = threshold
        self._session = open_session(path, "yunet", device)
        self._path, self._sha256 = path, sha256_of(path)
        shown = f"yunet: {printable(path)}"
        check_sha256(self._sha256, sha256, shown)
        names = {output.name for output in self._session.get_outputs()}
        self._wanted = [f"{kind}_{stride}" for stride in STRIDES for kind in ("cls", "obj", "bbox")]
        inputs = self._session.get_inputs()
        shape = inputs[0].shape
        if len(inputs) != 1 or len(shape) != 4 or shape[1] != 3 or not {*self._wanted} <= names:
            raise InputError(
                f"{shown}: is no YuNet of March 2023 or later: input [1, 3, height, width], outputs cls_8 to bbox_32."
            )
        self._input = inputs[0].name
        self._fixed = (shape[2], shape[3]) if isinstance(shape[2], int) and isinstance(shape[3], int) else None

    def __call__(self, picture: UInt8Array) -> list[Face]:
        """Find the faces in a picture uint8 [H, W, 3] in RGB, the best first."""
        height, width = picture.shape[:2]
        shrink = 1.0
        if self._fixed is not None:
            shrink = min(1.0, self._fixed[0] / height, self._fixed[1] / width)
        rows, columns = max(1, int(height * shrink)), max(1, int(width * shrink))
        size = self._fixed or (-(-rows // STRIDES[-1]) * STRIDES[-1], -(-columns // STRIDES[-1]) * STRIDES[-1])
        given = np.zeros((1, 3, *size), np.float32)
        given[0, :, :rows, :columns] = scaled(picture, rows, columns)[..., ::-1].transpose(2, 0, 1)  # it reads BGR
        outputs = dict(zip(self._wanted, self._session.run(self._wanted, {self._input: given}), strict=True))
        boxes, scores = _boxes(outputs, size[1])
        sure = scores >= self.threshold
        boxes, scores = boxes[sure] * ([width / columns, height / rows] * 2), scores[sure]
        rows_of_faces = np.column_stack([boxes, scores])[best_of_overlapping(boxes, scores)]
        return [Face(*row) for row in rows_of_faces.tolist()]

    def recipe(self) -> dict[str, Any]:
        """Digest of the file, threshold, version of onnxruntime."""
        return {
            "model": self._path.name,
            "sha256": self._sha256,
            "threshold": self.threshold,
            "onnxruntime": version_of("onnxruntime", "onnxruntime-gpu"),
        }


def _boxes(outputs: dict[str, Array], width: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Boxes [n, 4] as left, top, width, height, and scores [n], of all cells of the three grids.

    A cell gives how far the middle of a box is from it, in cells, and the logarithms of the box's sides. Its score is
    the geometric mean of how sure it is of a face and of an object.
    """
    boxes, scores = [], []
    for stride in STRIDES:
        sure, there = (outputs[f"{kind}_{stride}"].reshape(-1).clip(0, 1) for kind in ("cls", "obj"))
        values = outputs[f"bbox_{stride}"].reshape(-1, 4).astype(np.float64)
        cell = np.arange(len(values))
        place = np.stack([cell % (width // stride), cell // (width // stride)], 1)
        sides = np.exp(values[:, 2:].clip(max=20)) * stride
        boxes.append(np.concatenate([(place + values[:, :2]) * stride - sides / 2, sides], 1))
        scores.append(np.sqrt(sure.astype(np.float64) * there))
    return np.concatenate(boxes), np.concatenate(scores)


def best_of_overlapping(boxes: npt.NDArray[np.float64], scores: npt.NDArray[np.float64]) -> list[int]:
    """Indices of boxes [n, 4] (left, top, width, height), best first, without those that a better one covers."""
    left = list(np.argsort(-scores, kind="stable"))
    kept: list[int] = []
    while left:
        best = left.pop(0)
        kept.append(int(best))
        if not left:
            break
        others = boxes[left]
        ends = np.minimum(boxes[best, :2] + boxes[best, 2:], others[:, :2] + others[:, 2:])
        shared = (ends - np.maximum(boxes[best, :2], others[:, :2])).clip(0).prod(1)
        union = boxes[best, 2:].prod() + others[:, 2:].prod(1) - shared
        left = [place for place, covered in zip(left, shared > _OVERLAP * union, strict=True) if not covered]
    return kept
