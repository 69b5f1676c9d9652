"""logmel: log-mel bands, without a dependency and without a question of licence."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from datamodules.extraction.extractor import FRAME_RATE, FloatArray, Reads, Sound

_WINDOW = 0.025
_HOP = 0.010
_LOWEST, _HIGHEST = 20.0, 8000.0
_QUIETEST = 1e-10
"""Power that is added before the logarithm, -100 dB."""

_DELTA = 2
"""Frames on both sides from which a delta is computed."""

Array = npt.NDArray[np.float64]


class LogMel:
    """Log power in mel bands and its slope, 10 times a second.

    Windows of 25 ms every 10 ms, Hann, power spectrum, triangular bands from 20 Hz to 8 kHz on the mel scale of
    O'Shaughnessy (1987), decibel; deltas by regression over five windows; the mean over each tenth of a second.

    Args:
        bands: number of bands; there are as many deltas.
    """

    name = "logmel"
    modality: Literal["audio"] = "audio"
    reads = Reads("sound", sample_rate=16_000)

    def __init__(self, bands: int = 40) -> None:
        self.bands = bands
        self.width = 2 * bands
        self._length = round(_WINDOW * self.reads.sample_rate)
        self._hop = round(_HOP * self.reads.sample_rate)
        self._points = 1 << (self._length - 1).bit_length()
        self._window = np.hanning(self._length + 1)[:-1]
        self._filters = mel_filters(bands, self._points, self.reads.sample_rate)

    def __call__(self, item: Sound) -> FloatArray:
        """Compute features [T, 2·bands], T the tenths of a second, rounded up."""
        samples = np.pad(item.samples.astype(np.float64), self._length // 2)
        windows = np.lib.stride_tricks.sliding_window_view(samples, self._length)[:: self._hop]
        per_frame = round(1 / _HOP / FRAME_RATE)
        decibel = np.concatenate(
            [self._decibel(windows[start : start + 1000]) for start in range(0, len(windows), 1000)]
        )
        values = np.concatenate([decibel, deltas(decibel)], axis=1)
        starts = np.arange(0, len(values), per_frame)
        counts = np.diff([*starts, len(values)])
        means: FloatArray = (np.add.reduceat(values, starts, axis=0) / counts[:, None]).astype(np.float32)
        return means

    def _decibel(self, windows: Array) -> Array:
        power = np.square(np.abs(np.fft.rfft(windows * self._window, self._points))) / np.sum(self._window) ** 2
        values: Array = 10 * np.log10(power @ self._filters.T + _QUIETEST)
        return values

    def recipe(self) -> dict[str, Any]:
        """Sizes."""
        return {
            "version": 1,
            "bands": self.bands,
            "window": _WINDOW,
            "hop": _HOP,
            "range": [_LOWEST, _HIGHEST],
            "sample_rate": self.reads.sample_rate,
        }


def mel_filters(bands: int, points: int, rate: int) -> Array:
    """Triangles [bands, points/2 + 1], evenly spaced on the mel scale, each with a peak of 1."""
    low, high = (2595 * np.log10(1 + hertz / 700) for hertz in (_LOWEST, _HIGHEST))
    edges = 700 * (10 ** (np.linspace(low, high, bands + 2) / 2595) - 1)
    hertz = np.fft.rfftfreq(points, 1 / rate)
    left, peak, right = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    filters: Array = np.clip(np.minimum((hertz - left) / (peak - left), (right - hertz) / (right - peak)), 0, None)
    return filters


def deltas(values: Array) -> Array:
    """Slope [T, D] of the regression over two frames on both sides; the ends are repeated."""
    padded = np.pad(values, ((_DELTA, _DELTA), (0, 0)), mode="edge")
    count = len(values)
    slopes = [
        step * (padded[_DELTA + step : _DELTA + step + count] - padded[_DELTA - step : _DELTA - step + count])
        for step in range(1, _DELTA + 1)
    ]
    total: Array = np.sum(slopes, axis=0) / (2 * sum(step**2 for step in range(1, _DELTA + 1)))
    return total
