"""CM-ARR: its networks, and the model made of them."""

from __future__ import annotations

from baselines.cm_arr.model import CMARR

__all__ = ["CMARR"]
