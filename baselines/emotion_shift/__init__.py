"""Emotion shift: the chains of turns, the component's networks, and the model that wraps another in it."""

from __future__ import annotations

from baselines.emotion_shift.model import EmotionShift

__all__ = ["EmotionShift"]
