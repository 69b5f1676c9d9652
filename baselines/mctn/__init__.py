"""MCTN: its networks, the decoders' recurrence, what is read off them, and the model made of all."""

from __future__ import annotations

from baselines.mctn.model import MCTN

__all__ = ["MCTN"]
