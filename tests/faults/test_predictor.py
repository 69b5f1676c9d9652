"""What a program may hand to ``Predictor.predict``: an answer, or one line."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from datamodules.errors import InputError
from datamodules.storage.features import LONGEST
from ifmmin import Predictor
from tests.batches import CLASSES, DIMS
from tests.ifmmin.models import Small

D = DIMS[0]


def small() -> Predictor:
    torch.manual_seed(0)
    model = Small(feature_dims=list(DIMS), class_names=CLASSES)
    return Predictor(model, {"normalization": ["none", "none", "none"], "statistics": {}}, "small.ckpt")


def spoilt(value: Any, dtype: Any = float) -> Any:
    frames = np.zeros((3, D), dtype)
    frames[1, 1] = value
    return frames


REFUSED: list[tuple[str, Any, str]] = [
    ("no mapping", [np.zeros((2, D))], "features: a list; give frames by name"),
    ("None", None, "features: a NoneType; give frames by name"),
    ("text in place of features", "audio", "features: a str; give frames by name"),
    ("a name that is no text", {0: np.zeros((2, D)), "audio": None}, "0 is no modality: give audio, visual, text"),
    ("several unknown names", {"b": 1, 2: 1}, "'b' is no modality"),
    ("a name with control characters", {"\x1b[2J": 1}, "is no modality"),
    ("text", {"audio": "zeros"}, "audio: not an array of numbers (<U5)"),
    ("digits as text", {"audio": [["1"] * D]}, "audio: not an array of numbers (<U1)"),
    ("bytes", {"audio": np.full((2, D), b"1")}, "audio: not an array of numbers (|S1)"),
    ("ragged lists", {"audio": [[1.0] * D, [1.0]]}, "audio: not an array of numbers (setting an array"),
    ("objects", {"audio": np.full((2, D), object())}, "audio: not an array of numbers (float() argument"),
    ("a dictionary", {"audio": {"frames": 1}}, "audio: shape [], but small.ckpt was trained on frames [T, 5]."),
    ("a number", {"audio": 3.0}, "audio: shape [], but"),
    ("complex", {"audio": spoilt(1j, complex)}, "audio: not an array of numbers (complex128)"),
    ("a complex tensor", {"audio": torch.zeros(2, D, dtype=torch.complex64)}, "(torch.complex64)"),
    ("dates", {"audio": np.zeros((2, D), "datetime64[s]")}, "audio: not an array of numbers (datetime64[s])"),
    (
        "a tensor without data",
        {"audio": torch.zeros(2, D, device="meta")},
        "audio: not an array of numbers (Cannot copy",
    ),
    ("all NaN", {"audio": np.full((3, D), math.nan)}, "every frame of audio is NaN, so that none is left"),
    (
        "NaN in every frame",
        {"audio": np.where(np.eye(3, D), math.nan, 0.0), "text": np.full((1, DIMS[2]), math.nan)},
        "every frame of audio and text is NaN",
    ),
    ("infinite", {"audio": spoilt(-math.inf)}, "audio: infinite values; correct the features, or give NaN for frames"),
    ("infinite beside NaN", {"audio": np.array([[math.nan] * D, [math.inf] * D])}, "audio: infinite values"),
    ("more than float32 can hold", {"audio": spoilt(1e39)}, "audio: infinite values"),
    ("a whole number without end", {"audio": spoilt(10**400, object)}, "audio: not an array of numbers ("),
    ("a batch of utterances", {"audio": np.zeros((1, 2, D))}, "audio: shape [1, 2, 5], but small.ckpt was trained on"),
    ("turned", {"audio": np.zeros((D, 2))}, "audio: shape [5, 2], but small.ckpt was trained on frames [T, 5]."),
    ("no frames", {"audio": np.zeros((0, D))}, "audio: no frames; leave audio out where it is absent"),
    ("an empty list", {"audio": []}, "audio: shape [0], but"),
    ("too many frames", {"audio": np.broadcast_to(0.0, (LONGEST + 1, D))}, f"audio: {LONGEST + 1} frames, more than"),
    ("10 billion frames", {"audio": np.broadcast_to(0.0, (10**10, D))}, "audio: 10000000000 frames, more than"),
    ("an answer that is not finite", {"audio": np.full((2, D), 3e38)}, "small.ckpt: no finite answer"),
]


@pytest.mark.parametrize(("features", "expected"), [pytest.param(*case[1:], id=case[0]) for case in REFUSED])
def test_refused_in_one_line(features: Any, expected: str) -> None:
    with pytest.raises(InputError) as refused:
        small().predict(features)
    line = str(refused.value)
    assert expected in line
    assert line.isprintable() and len(line) < 400


class Frames:
    """Frames of another library: NumPy can read them."""

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        return np.ones((2, D), dtype)


ANSWERED: list[tuple[str, Any]] = [
    ("whole numbers", np.ones((2, D), np.int16)),
    ("half precision", np.ones((2, D), np.float16)),
    ("long doubles", np.ones((2, D), np.longdouble)),
    ("big-endian", np.ones((2, D), ">f4")),
    ("numbers as objects", np.ones((2, D), object)),
    ("reversed", np.ones((2, D))[::-1]),
    ("read-only", np.broadcast_to(1.0, (2, D))),
    ("Fortran's order", np.asfortranarray(np.ones((2, D)))),
    ("nothing masked", np.ma.masked_equal(np.ones((2, D)), 7.0)),
    ("tuples", tuple((1.0,) * D for _ in range(2))),
    ("another library's", Frames()),
    ("bfloat16", torch.ones(2, D, dtype=torch.bfloat16)),
    ("a sparse tensor", torch.ones(2, D).to_sparse()),
    ("a tensor with a gradient", torch.ones(2, D, requires_grad=True)),
]


LOST: list[tuple[str, Any]] = [
    ("NaN", spoilt(math.nan)),
    ("None", spoilt(None, object)),
    ("a masked value", np.ma.masked_equal(spoilt(7.0), 7.0)),
    ("a tensor", torch.tensor(spoilt(math.nan), dtype=torch.float16)),
]


@pytest.mark.parametrize("frames", [pytest.param(case[1], id=case[0]) for case in LOST])
def test_a_lost_frame_however_it_is_given(frames: Any) -> None:
    answer = small().predict({"audio": frames})
    assert answer.lost == {"audio": 1}
    assert answer == small().predict({"audio": np.zeros((3, D))})


def test_what_is_left_after_losses_is_not_answered() -> None:
    class Words(Small):
        def answers(self, condition: str) -> bool:
            return "t" in condition

    predictor = Predictor(Words(feature_dims=list(DIMS), class_names=CLASSES), source="words.ckpt")
    lost = np.full((2, DIMS[2]), math.nan)
    with pytest.raises(InputError, match=r"Words answers t, at, vt, avt, not a: every frame of text is NaN\.$"):
        predictor.predict({"audio": np.zeros((2, D)), "text": lost})


MANY: list[tuple[str, Any, str]] = [
    ("one utterance", {"audio": np.zeros((2, D))}, "utterances: a single one; give a list of them, or call predict."),
    ("no utterance", [{"audio": np.zeros((2, D))}, None], "utterances[1]: features: a NoneType"),
    ("nothing there", [{"audio": np.zeros((2, D))}, {"text": None}], "utterances[1]: no modality is given"),
    ("infinite", [{"audio": spoilt(math.inf)}] * 2, "utterances[0]: audio: infinite values"),
]


@pytest.mark.parametrize(("utterances", "expected"), [pytest.param(*case[1:], id=case[0]) for case in MANY])
def test_many_refused_in_one_line(utterances: Any, expected: str) -> None:
    with pytest.raises(InputError) as refused:
        small().predict_many(utterances)
    assert expected in str(refused.value)
    assert str(refused.value).isprintable()


def test_a_batch_of_nothing() -> None:
    with pytest.raises(InputError, match="batch_size 0: give at least 1"):
        small().predict_many([], batch_size=0)


NO_MODELS: list[tuple[str, Any, str]] = [
    ("a class", Small, "model: Small is no trained model; give an instance, or a file to Predictor.load."),
    ("a file", "small.ckpt", "model: str is no trained model"),
    ("a network", torch.nn.Linear(1, 1), "model: Linear is no trained model"),
]


@pytest.mark.parametrize(("model", "expected"), [pytest.param(*case[1:], id=case[0]) for case in NO_MODELS])
def test_no_model(model: Any, expected: str) -> None:
    with pytest.raises(InputError) as refused:
        Predictor(model)
    assert expected in str(refused.value)


def test_a_record_that_does_not_say_how_frames_were_normalised() -> None:
    with pytest.raises(InputError, match="the record of the training data has no normalization; give datamodule"):
        Predictor(small().model, {"name": "IEMOCAP"})


NO_CLASSES: list[tuple[str, Any, str]] = [
    ("a name", "IFMMIN", "model: 'IFMMIN' is no class of a model; import the class and give it."),
    ("an instance", small().model, "model: a Small is no class of a model"),
    ("another class", dict, "model: <class 'dict'> is no class of a model"),
]


@pytest.mark.parametrize(("model", "expected"), [pytest.param(*case[1:], id=case[0]) for case in NO_CLASSES])
def test_no_class(model: Any, expected: str) -> None:
    with pytest.raises(InputError) as refused:
        Predictor.load("none.ckpt", model=model)
    assert expected in str(refused.value)


@pytest.mark.parametrize("frames", [pytest.param(case[1], id=case[0]) for case in ANSWERED])
def test_answered_like_plain_frames(frames: Any) -> None:
    assert small().predict({"audio": frames}) == small().predict({"audio": np.ones((2, D))})


CLOCKS: list[tuple[str, dict[str, Any], str]] = [
    ("no rate", {}, 'rate: give the frames a second of at least one modality, such as {"audio": 100}.'),
    ("an unknown modality", {"rate": {"video": 30}}, "rate: 'video' is no modality: give frames a second of audio"),
    ("no frames a second", {"rate": {"audio": 0}}, "rate of audio 0: give a number above 0."),
    ("NaN frames a second", {"rate": {"audio": math.nan}}, "rate of audio nan: give a number above 0."),
    ("text as a number", {"rate": {"audio": "30"}}, "rate of audio '30': give a number above 0."),
    ("a negative time", {"rate": {"audio": 1}, "every": -1}, "every -1: give a number above 0."),
    ("an endless window", {"rate": {"audio": 1}, "window_seconds": math.inf}, "window_seconds inf: give a number"),
    ("a short window", {"rate": {"audio": 1}, "window_seconds": 0.5}, "window_seconds 0.5: give at least every, 1."),
    (
        "a long window",
        {"rate": {"audio": 100}, "window_seconds": 1e6},
        "window_seconds 1e+06: 100000000 frames, more than 100000; give fewer.",
    ),
]


@pytest.mark.parametrize(("options", "expected"), [pytest.param(*case[1:], id=case[0]) for case in CLOCKS])
def test_a_stream_refused_in_one_line(options: dict[str, Any], expected: str) -> None:
    with pytest.raises(InputError) as refused:
        small().stream(**options)
    assert expected in str(refused.value)
    assert str(refused.value).isprintable()


PUSHES: list[tuple[str, dict[str, Any], str]] = [
    ("an unknown modality", {"video": np.zeros((2, D))}, "'video' is no modality"),
    ("infinite", {"audio": spoilt(math.inf)}, "audio: infinite values"),
    ("infinite beside what is right", {"audio": np.ones((3, D)), "text": np.full((1, DIMS[2]), math.inf)}, "text: inf"),
    ("a single frame without its axis", {"audio": np.zeros(D)}, "audio: shape [5], but small.ckpt"),
    ("no frames", {"audio": np.zeros((0, D))}, "audio: no frames; leave audio out where it is absent"),
]


@pytest.mark.parametrize(("frames", "expected"), [pytest.param(*case[1:], id=case[0]) for case in PUSHES])
def test_a_push_that_is_refused_changes_nothing(frames: dict[str, Any], expected: str) -> None:
    stream = small().stream(rate={"audio": 2})
    (before,) = stream.push(audio=np.ones((2, D)))
    with pytest.raises(InputError) as refused:
        stream.push(**frames)
    assert expected in str(refused.value)
    assert (stream.answer(), stream.seconds) == (before, 1.0)


def test_a_stream_that_has_seen_nothing() -> None:
    stream = small().stream(rate={"audio": 2})
    with pytest.raises(InputError, match="the stream has seen nothing yet; push frames of audio, visual, text"):
        stream.answer()
    assert stream.push() == []
    assert stream.push(audio=np.full((4, D), math.nan)) == []
    with pytest.raises(InputError, match="the stream has seen nothing yet but audio whose every frame is NaN; push"):
        stream.answer()
