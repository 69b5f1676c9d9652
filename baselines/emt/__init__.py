"""EMT-DLFR: its networks, and the model made of them."""

from __future__ import annotations

from baselines.emt.model import EMT

__all__ = ["EMT"]
