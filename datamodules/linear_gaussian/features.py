"""How linear features are written: on the scale of real ones, by a map that is undone exactly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

OUTLIER = 5.0
"""How many times as large an outlier feature is written as the others."""


@dataclass(frozen=True)
class WrittenFeatures:
    """A scale per feature; then, if asked for, positive and negative part as two non-negative features.

    The first D of 2 D features are the positive parts: half of the values are zero, and a linear layer can still
    compute positive minus negative part.

    Attributes:
        scale: float64 [D], positive.
        split_signs: whether the two parts are written apart.

    Example:
        >>> features = WrittenFeatures(np.array([0.5, 2.0]), split_signs=True)
        >>> features.write(np.array([[2.0, -3.0]])).tolist()
        [[1.0, 0.0, 0.0, 6.0]]
        >>> features.read(np.array([[1.0, 0.0, 0.0, 6.0]])).tolist()
        [[2.0, -3.0]]
    """

    scale: FloatArray
    split_signs: bool = False

    @classmethod
    def of_rms(cls, dim: int, power: float, rms: float, split_signs: bool, outliers: int) -> WrittenFeatures:
        """Scale features of a known mean square.

        Args:
            dim: D.
            power: mean square of the linear features.
            rms: root mean square of the written values, outliers aside.
            split_signs: see the class; half the values are zero then, the others are larger for it.
            outliers: how many features, the first ones, are written :data:`OUTLIER` times as large.
        """
        scale = np.full(dim, rms * np.sqrt((2 if split_signs else 1) / power))
        scale[:outliers] *= OUTLIER
        return cls(scale, split_signs)

    def write(self, linear: npt.NDArray[np.floating]) -> FloatArray:
        """Turn linear features [F, D] into written ones, float64 [F, D] or [F, 2 D]."""
        scaled: FloatArray = linear * self.scale
        return np.concatenate([scaled.clip(min=0), (-scaled).clip(min=0)], axis=1) if self.split_signs else scaled

    def read(self, written: npt.NDArray[np.floating]) -> FloatArray:
        """Turn written features [F, D] or [F, 2 D] into linear ones, float64 [F, D]."""
        values = written.astype(np.float64)
        if self.split_signs:
            positive, negative = np.split(values, 2, axis=1)
            values = positive - negative
        linear: FloatArray = values / self.scale
        return linear
