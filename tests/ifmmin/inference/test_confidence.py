"""Calibrated answers, abstaining, and shares of the modalities."""

from __future__ import annotations

import math
import pickle
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from datamodules.batches.batch import Batch
from datamodules.conditions import CONDITIONS, MODALITIES, present_under
from datamodules.errors import InputError
from ifmmin import Predictor
from ifmmin.inference import Answer
from tests.batches import CLASSES, DIMS
from tests.cli.running import best, fit, sample
from tests.ifmmin.inference.test_predictor import RAW, small, whole
from tests.ifmmin.models import Small

TEMPERATURES = dict(zip(CONDITIONS, (0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0), strict=True))


def warm() -> Predictor:
    predictor = small()
    predictor.model.temperatures = dict(TEMPERATURES)
    return predictor


def seen(condition: str) -> dict[str, Any]:
    return {name: frames for name, frames in whole().items() if present_under(condition)[MODALITIES.index(name)]}


@pytest.mark.parametrize("condition", CONDITIONS)
def test_calibrated_probabilities_are_those_at_the_temperature_of_what_is_present(condition: str) -> None:
    predictor = warm()
    plain = predictor.predict(seen(condition))
    found = predictor.predict(seen(condition), calibrated=True)
    powers = {name: value ** (1 / TEMPERATURES[condition]) for name, value in plain.items()}
    total = sum(powers.values())
    assert found == pytest.approx({name: value / total for name, value in powers.items()})
    assert (found.condition, found.prediction) == (condition, plain.prediction)


def test_it_abstains_where_no_class_is_probable_enough() -> None:
    predictor = warm()
    answer = predictor.predict(whole())
    highest = max(answer.values())
    assert not answer.abstained
    kept = predictor.predict(whole(), abstain_below=highest)
    assert not kept.abstained
    assert kept.prediction == answer.prediction
    abstained = predictor.predict(whole(), abstain_below=math.nextafter(highest, 1))
    assert abstained.abstained
    assert abstained.prediction is None
    assert abstained == answer
    assert pickle.loads(pickle.dumps(abstained)).abstained
    after = max(predictor.predict(whole(), calibrated=True).values())
    assert after < highest
    assert predictor.predict(whole(), calibrated=True, abstain_below=(after + highest) / 2).abstained


@pytest.mark.parametrize("threshold", [-0.1, 1.5, math.nan])
def test_a_threshold_that_is_no_probability_is_refused(threshold: float) -> None:
    with pytest.raises(InputError, match=r"abstain_below .*: give a probability, from 0 to 1"):
        small().predict(whole(), abstain_below=threshold)


def test_a_checkpoint_without_temperatures_says_how_to_get_them() -> None:
    with pytest.raises(InputError, match=r"has no temperature of avt.*validate --calibrate true") as refused:
        small().predict(whole(), calibrated=True)
    assert str(refused.value).isprintable()


def regression() -> Predictor:
    torch.manual_seed(0)
    task = {"name": "regression", "low": -3, "high": 5}
    return Predictor(Small(feature_dims=list(DIMS), task=task), RAW, "small.ckpt")


@pytest.mark.parametrize("options", [{"calibrated": True}, {"abstain_below": 0.5}])
def test_a_regression_has_no_probabilities_to_calibrate(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="a regression answers with a value; only probabilities of classes"):
        regression().predict(whole(), **options)


def test_a_fit_leaves_a_checkpoint_that_answers_calibrated(tmp_path: Path) -> None:
    path = best(fit(tmp_path / "run", *sample("IEMOCAP"), model="MeanFusion"))
    predictor = Predictor.load(path)
    stored = torch.load(path, weights_only=True)["ifmmin"]["temperatures"]
    assert predictor.model.temperatures == stored
    frames = {"audio": np.ones((3, predictor.feature_dims[0]))}
    plain, found = predictor.predict(frames), predictor.predict(frames, calibrated=True)
    ratio = [math.log(answer["angry"] / answer["sad"]) for answer in (plain, found)]
    assert ratio[1] == pytest.approx(ratio[0] / stored["a"], rel=1e-3)


def by_orders(predictor: Predictor, present: str, calibrated: bool) -> dict[str, np.ndarray]:
    """What each modality adds on arrival, averaged over all orders, from answers given one by one."""
    names = list(predictor.class_names) or ["value"]
    orders = list(permutations(present))
    shares = {letter: np.zeros(len(names)) for letter in present}
    for order in orders:
        here, before = "", np.full(len(names), 1 / len(names) if predictor.class_names else 1.0)
        for letter in order:
            here = "".join(sorted(here + letter, key="avt".index))
            answer = predictor.predict(seen(here), calibrated=calibrated)
            now = np.array([answer[name] for name in names])
            shares[letter] += (now - before) / len(orders)
            before = now
    return shares


@pytest.mark.parametrize("calibrated", [False, True])
@pytest.mark.parametrize("condition", ["v", "at", "avt"])
def test_shares_are_the_mean_over_the_orders_of_arrival(condition: str, calibrated: bool) -> None:
    predictor = warm()
    found = predictor.explain(seen(condition), calibrated=calibrated)
    expected = by_orders(predictor, condition, calibrated)
    for place, letter in enumerate("avt"):
        np.testing.assert_allclose(found.shares[place], expected.get(letter, np.zeros(len(CLASSES))), atol=1e-6)
    assert found.answer == pytest.approx(predictor.predict(seen(condition), calibrated=calibrated), abs=1e-6)
    total = np.array([found.answer[name] - found.uninformed[name] for name in CLASSES])
    np.testing.assert_allclose(found.shares.sum(axis=0), total, atol=1e-9)
    assert set(found.why) == {name for name in MODALITIES if name[0] in condition}
    predicted = str(found.answer.prediction)
    assert found.why == found.of(predicted)
    with pytest.raises(InputError, match=f"'bored' was not answered: give one of {', '.join(CLASSES)}."):
        found.of("bored")
    assert sum(found.why.values()) == pytest.approx(found.answer[predicted] - 1 / len(CLASSES))


def test_shares_of_a_regression_add_up_from_the_middle_of_its_scale() -> None:
    found = regression().explain(whole())
    expected = by_orders(regression(), "avt", calibrated=False)
    for place, letter in enumerate("avt"):
        np.testing.assert_allclose(found.shares[place], expected[letter], atol=1e-5)
    assert found.uninformed == {"value": 1.0}
    assert sum(found.why.values()) == pytest.approx(found.answer["value"] - 1)


def test_the_model_encodes_once(monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = warm()
    calls: list[int] = []
    forward = type(predictor.model).forward

    def counted(self: Small, batch: Batch) -> torch.Tensor:
        calls.append(len(batch))
        return forward(self, batch)

    monkeypatch.setattr(type(predictor.model), "forward", counted)
    predictor.explain(whole())
    assert calls == [7]


def test_a_model_that_does_not_answer_every_part_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = small()
    monkeypatch.setattr(type(predictor.model), "answers", lambda self, condition: condition != "at")
    with pytest.raises(InputError, match="Small does not answer at, which shares of avt rest on"):
        predictor.explain(whole())
    assert predictor.explain(seen("av")).why


def test_an_answer_shows_whether_it_abstained() -> None:
    assert not Answer({"a": 1.0}).abstained
    assert Answer({"a": 1.0}, abstained=True).prediction is None
