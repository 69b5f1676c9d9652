"""What stands above a figure."""

from __future__ import annotations

from matplotlib.figure import Figure

SYNTHETIC = "built-in synthetic corpus (not a corpus result)"


def title(figure: Figure) -> str:
    return str(figure.get_suptitle())
