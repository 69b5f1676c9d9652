"""The look of a model in charts: decided by its name, so that it is the same in every picture and on every board."""

from __future__ import annotations

import zlib
from collections.abc import Iterable

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#6b747c", "#cdbf00")
"""Okabe and Ito's colours, which colour-blind readers tell apart, with grey for their black; as in ``page.css``."""

NAMED = ("IFMMIN", "MMIN", "ModalityDropout", "CMARR", "MCTN", "MMINWithoutCycle", "CompleteFusion", "MeanFusion")
"""Models whose look is a colour alone; others have a pattern, a dash or another marker besides."""

STYLES = 3
"""Styles of each colour: plain, and two more."""


def looks(models: Iterable[str]) -> dict[str, int]:
    """A number for each model: its colour is the number modulo 8, its style the whole part of an eighth of it.

    Args:
        models: of one board.

    Returns:
        distinct numbers. Those of named models are always the same, those of others follow from a hash of the name,
        unless two of a board would share one.

    >>> looks(["MMIN", "IFMMIN"]), looks(["Mine"])["Mine"] >= 8
    ({'IFMMIN': 0, 'MMIN': 1}, True)
    """
    models = set(models)
    found = {name: place for place, name in enumerate(NAMED) if name in models}
    first, others = len(COLOURS), len(COLOURS) * (STYLES - 1)
    taken: set[int] = set()
    for name in sorted(models - found.keys()):
        wanted = zlib.crc32(name.encode()) % others
        place = next((place % others for place in range(wanted, wanted + others) if place % others not in taken), None)
        taken.add(len(taken) if place is None else place)
        found[name] = first + (len(taken) - 1 if place is None else place)
    return found
