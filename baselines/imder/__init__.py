"""IMDer: its score networks, and the model made of them."""

from __future__ import annotations

from baselines.imder.model import IMDer

__all__ = ["IMDer"]
