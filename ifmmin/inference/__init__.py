"""Predict utterances with a trained model, from whatever modalities they have."""

from ifmmin.inference.answer import Answer
from ifmmin.inference.explanation import Explanation
from ifmmin.inference.features import Features
from ifmmin.inference.predictor import Predictor
from ifmmin.inference.stream import Stream

__all__ = ["Answer", "Explanation", "Features", "Predictor", "Stream"]
