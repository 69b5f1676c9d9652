"""The look of a model in charts, from its name alone: the same in every picture, on the page, and on every board."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from benchmarks.leaderboard.published import plain_name

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#6b747c", "#cdbf00")
"""Okabe and Ito's colours, which colour-blind readers tell apart, with grey for their black; as in ``page.css``."""

MARKERS = ("o", "s", "P", "^", "h", "D", "X", "v", "*")
"""Shapes of points, in matplotlib's letters; ``charts.js`` draws the same. Like shapes are far apart in this ring."""

STYLES = 4
"""Dashes of lines and hatches of bars, a third way."""

NAMED = (
    *("IFMMIN", "MMIN", "ModalityDropout", "CMARR", "MCTN", "MMINWithoutCycle", "CompleteFusion", "MeanFusion"),
    *("CIFMMIN", "EMT", "RedCore", "MoMKE", "MISA", "MulT", "IMDer", "DiCMoR"),
    *("LateFusion", "DistilledImputation", "LinearImputation", "MPLMM", "TFRNet", "TFN", "LMF", "MMIM"),
    *("SelfMM", "MIB", "GCNet", "CorrelationLearning", "VariationalDistillation", "CPMNet", "PriMD", "HARDYMER"),
    *("COLD", "CMGA", "ScaleVLAD", "BIMHA", "MCMulT", "InterMulti", "EffMulti", "LMRCBT"),
    *("MV2D", "CurriculumCorrelation", "ThreeStageContrastive", "MMMIE", "VCAN", "CFNSR", "MESM", "EmotionShift"),
)
"""Names whose looks are spread by hand, no two alike. Append only: a place is a look. Other names are hollow."""


@dataclass(frozen=True)
class Look:
    """How a model is drawn.

    Attributes:
        colour: place in :data:`COLOURS`.
        marker: place in :data:`MARKERS`.
        line: which of :data:`STYLES` dashes or hatches.
        hollow: whether points and bars are outlines.
    """

    colour: int
    marker: int
    line: int
    hollow: bool


def look_of(model: str) -> Look:
    """Return the look of a model; names that differ in case and punctuation alone share one.

    Eight colours and nine markers have no common divisor, so the first 72 places are pairs of their own. A name that
    is not in :data:`NAMED` gets one of 288 hollow looks by a hash.

    >>> look_of("MMIN"), look_of("CIF-MMIN") == look_of("CIFMMIN"), look_of("Mine").hollow
    (Look(colour=1, marker=1, line=0, hollow=False), True, True)
    """
    name = plain_name(model)
    place = next((place for place, known in enumerate(NAMED) if plain_name(known) == name), None)
    if place is not None:
        return Look(place % len(COLOURS), place % len(MARKERS), place // len(COLOURS) % STYLES, hollow=False)
    place = zlib.crc32(name.encode()) % (len(COLOURS) * len(MARKERS) * STYLES)
    return Look(place % len(COLOURS), place % len(MARKERS), place // (len(COLOURS) * len(MARKERS)), hollow=True)
