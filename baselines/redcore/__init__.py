"""RedCore: its networks, and the model made of them."""

from __future__ import annotations

from baselines.redcore.model import RedCore

__all__ = ["RedCore"]
