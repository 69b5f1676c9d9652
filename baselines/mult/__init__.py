"""MulT: its networks, the model, and its training on complete data, from which models that adapt it start."""

from __future__ import annotations

from baselines.mult.model import MulT

__all__ = ["MulT"]
