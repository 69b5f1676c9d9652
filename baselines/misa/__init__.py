"""MISA: its networks, and the model made of them."""

from __future__ import annotations

from baselines.misa.model import MISA

__all__ = ["MISA"]
