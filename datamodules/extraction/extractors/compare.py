"""comparE: the low-level descriptors of ComParE 2016, the published audio feature."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
from scipy.signal import resample_poly

from datamodules.extraction.dependencies import require
from datamodules.extraction.extractor import Absent, FloatArray, Reads, Sound
from datamodules.extraction.media.detectors import version_of

LICENCE = (
    "comparE uses openSMILE by audEERING, free for academic and private use; commercial use needs a licence of"
    " audEERING. Without such a question: --audio logmel."
)

_STEP = 10
"""Frames of 10 ms that become one."""

_LEVELS = ("lld_nzsmo", "lldA_smo", "lldB_smo")
"""The groups of descriptors, as the package's configuration names them."""

_CONFIGURATION = r"""
[componentInstances:cComponentManager]
instance[dataMemory].type=cDataMemory
instance[joined].type=cVectorConcat

\{{\cm[source{{?}}:where the samples come from]}}
\{{{descriptors}}}

[joined:cVectorConcat]
reader.dmLevel={levels}
writer.dmLevel=joined
includeSingleElementFields=1

\{{\cm[sink{{?}}:where the values go]}}
"""

_log = logging.getLogger("ifmmin")
_told: set[str] = set()


class ComparE:
    """65 descriptors of ComParE 2016 and their deltas every 10 ms, resampled to 10 Hz (Schuller et al. 2016).

    Sound of fewer than 11 frames gives their mean.

    Raises:
        InputError: openSMILE is not installed.
    """

    name = "comparE"
    modality: Literal["audio"] = "audio"
    width = 130
    reads = Reads("sound", sample_rate=16_000)

    def __init__(self) -> None:
        opensmile = require("opensmile")
        if not _told:
            _told.add(self.name)
            _log.warning(LICENCE)
        folder = Path(opensmile.__file__).parent / "core" / "config" / "compare"
        # openSMILE reads a configuration from a file, again for each sound.
        self._folder = tempfile.TemporaryDirectory(prefix="ifmmin-")
        path = Path(self._folder.name) / "joined.conf"
        levels = ";".join([f"is13_{level}{suffix}" for suffix in ("", "_de") for level in _LEVELS])
        path.write_text(
            _CONFIGURATION.format(descriptors=folder / "ComParE_2016_core.lld.conf.inc", levels=levels),
            encoding="utf-8",
        )
        self._smile = opensmile.Smile(str(path), "joined", loglevel=0)

    def __call__(self, item: Sound) -> FloatArray:
        """Compute features [T, 130], T a tenth of the frames, rounded up."""
        # openSMILE reads 16 bits, of which 1.0 is the negative end.
        samples = np.clip(item.samples, -1.0, 32767 / 32768).astype(np.float32)
        if len(samples) < 0.06 * item.rate:
            raise Absent("shorter than 60 ms")
        frames: FloatArray = self._smile.process_signal(samples, item.rate).to_numpy(np.float32)
        return to_ten_hertz(frames)

    def recipe(self) -> dict[str, Any]:
        """Versions, and how it is resampled."""
        versions = {name: version_of(name) for name in ("opensmile", "scipy")}
        return {**versions, "levels": [*_LEVELS], "sample_rate": self.reads.sample_rate, "resample": [1, _STEP]}


def to_ten_hertz(frames: FloatArray) -> FloatArray:
    """Resample frames [n, D] of 10 ms to 10 Hz; the mean of fewer than 11."""
    if len(frames) <= _STEP:
        values = frames.mean(axis=0, keepdims=True, dtype=np.float64)
    else:
        values = resample_poly(frames, 1, _STEP, axis=0)
    return np.asarray(values, np.float32)
