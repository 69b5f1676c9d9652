"""MCTN: its networks, the decoder's recurrence, and the model made of them."""

from __future__ import annotations

from baselines.mctn.model import MCTN

__all__ = ["MCTN"]
