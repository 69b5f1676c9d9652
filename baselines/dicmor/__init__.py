"""DiCMoR: its flow and priors, and the model made of them."""

from __future__ import annotations

from baselines.dicmor.model import DiCMoR

__all__ = ["DiCMoR"]
