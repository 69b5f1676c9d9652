from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from datamodules.conditions import MODALITIES
from ifmmin import Predictor
from tests.batches import DIMS
from tests.ifmmin.inference.test_predictor import small, whole
from tests.ifmmin.models import MODELS, build_narrow


def with_losses(frames: Any, *lost: int) -> Any:
    spoilt = np.array(frames)
    for count, position in enumerate(lost):
        spoilt[position, count:] = np.nan  # wholly, then in part
    return spoilt


def test_lost_frames_are_zeros_in_their_place_and_counted() -> None:
    features = whole()
    lost = features | {"audio": with_losses(features["audio"], 0, 2), "text": with_losses(features["text"], 3)}
    zeros = {name: frames.copy() for name, frames in features.items()}
    zeros["audio"][[0, 2]] = zeros["text"][3] = 0.0
    answer = small().predict(lost)
    assert answer == small().predict(zeros)
    assert (answer.lost, answer.lost_frames) == ({"audio": 2, "text": 1}, 3)
    assert answer.frames == {"audio": 2, "visual": 4, "text": 3}
    assert small().predict(features).lost == {}


def test_a_modality_without_a_frame_left_is_absent() -> None:
    features = whole()
    answer = small().predict(features | {"visual": np.full((6, DIMS[1]), np.nan)})
    assert answer == small().predict({"audio": features["audio"], "text": features["text"]})
    assert (answer.present, answer.lost) == (("audio", "text"), {"visual": 6})


@pytest.mark.parametrize("how", ["train", "utterance"])
def test_they_are_zero_after_normalisation(how: str) -> None:
    """An utterance's own mean and deviation are of the frames that are left; the naive loop is NumPy's."""
    rng = np.random.default_rng(0)
    mean, std = rng.standard_normal(DIMS[0]), rng.uniform(1, 2, DIMS[0])
    statistics = {"audio": {"mean": torch.tensor(mean).float(), "std": torch.tensor(std).float()}}
    predictor = Predictor(small().model, {"normalization": [how, "none", "none"], "statistics": statistics})
    frames = 5 + 3 * rng.standard_normal((6, DIMS[0]))
    kept = frames[[1, 2, 5]]
    if how == "utterance":
        mean, std = kept.mean(axis=0), kept.std(axis=0)
    normal = np.zeros_like(frames)
    normal[[1, 2, 5]] = (kept - mean) / std
    answer = predictor.predict({"audio": with_losses(frames, 0, 3, 4)})
    assert answer == pytest.approx(small().predict({"audio": normal}), abs=1e-5)


@pytest.mark.parametrize("name", sorted(MODELS))
def test_no_model_answers_nan(name: str) -> None:
    predictor = Predictor(build_narrow(name).float())
    answer = predictor.predict({part: with_losses(frames, 0, 1) for part, frames in whole().items()})
    assert sum(answer.values()) == pytest.approx(1, abs=1e-5)
    assert answer.lost == dict.fromkeys(MODALITIES, 2)


def test_each_of_many_says_its_own() -> None:
    features = whole()
    lost = features | {"audio": with_losses(features["audio"], 1)}
    answers = small().predict_many([features, lost, features])
    assert [answer.lost for answer in answers] == [{}, {"audio": 1}, {}]
    assert answers[1] == pytest.approx(small().predict(lost), abs=1e-6)
