from __future__ import annotations

import copy
import json
import pickle

from ifmmin.inference import Answer
from tests.ifmmin.inference.test_predictor import small, whole


def test_it_says_what_it_rests_on_and_stays_a_dictionary() -> None:
    features = {"visual": whole()["visual"], "text": whole()["text"][:3], "audio": None}
    answer = small().predict(features)
    assert answer.frames == {"visual": 4, "text": 3}
    assert (answer.present, answer.condition) == (("visual", "text"), "vt")
    assert answer.prediction == max(answer, key=lambda name: answer[name])
    assert json.loads(json.dumps(answer)) == dict(answer) == answer


def test_copies_keep_what_it_says() -> None:
    answer = Answer({"value": -1.5}, frames={"audio": 2})
    for copied in (copy.deepcopy(answer), pickle.loads(pickle.dumps(answer))):
        assert (copied, copied.frames, copied.prediction) == (answer, {"audio": 2}, -1.5)
