"""Shares of the modalities in each answer of a split: exact Shapley values of the answers under all conditions."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from datamodules.conditions import CONDITION_TABLE, CONDITIONS, MODALITIES
from ifmmin.calibration.shapley import shapley_values, uninformed
from ifmmin.results.predictions import Predictions


def modality_shares(predictions: Predictions) -> Tensor:
    """Share of each modality in every value of every answer.

    Args:
        predictions: of a split; a row needs those of its utterance under every part of its condition.

    Returns:
        float64 [R, 3, P]: audio, visual and text, 0 where a row did not see one, NaN where an answer that is needed is
        not there. They add up to the answer minus what is said of nothing
        (:func:`~ifmmin.calibration.shapley.uninformed`).
    """
    names = {name: place for place, name in enumerate(dict.fromkeys(predictions.utterances))}
    utterance = torch.tensor([names[name] for name in predictions.utterances], dtype=torch.int64)
    condition = torch.as_tensor(predictions.conditions).long().cpu()
    answers = torch.as_tensor(predictions.answers).double().cpu()
    values = torch.full((len(names), len(CONDITIONS), answers.shape[1]), torch.nan, dtype=torch.float64)
    values[utterance, condition] = answers
    return shapley_values(values[utterance], CONDITION_TABLE[condition], uninformed(predictions.task))


def with_shares(predictions: Predictions) -> Predictions:
    """The same with further values ``share_audio``, ``share_visual`` and ``share_text``.

    They are shares in the probability of the most probable class, or in the value of a regression.
    """
    shares = modality_shares(predictions)
    predicted = torch.as_tensor(predictions.answers).cpu().argmax(dim=1)
    of_predicted = shares[torch.arange(len(shares)), :, predicted]
    columns = {f"share_{name}": column for name, column in zip(MODALITIES, of_predicted.T, strict=True)}
    return replace(predictions, values={**predictions.values, **columns})
