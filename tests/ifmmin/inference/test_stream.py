from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from datamodules.batches.batch import Batch
from datamodules.conditions import CONDITIONS, MODALITIES, present_under
from datamodules.errors import InputError
from ifmmin import Predictor
from ifmmin.inference import Stream, stream
from ifmmin.nn.encoders import LSTMEncoder, ModalityEncoders
from tests.batches import CLASSES, DIMS
from tests.ifmmin.inference.test_predictor import RAW, small
from tests.ifmmin.models import MODELS, Small, build_narrow

RATE = {"audio": 10.0, "visual": 5.0}
SEEN_INCREMENTALLY = {
    "IFMMIN": MODALITIES,
    "MMIN": MODALITIES,
    "MMIM": ("audio", "visual"),
    "TFN": ("text",),
    "MulT": (),
}


def recording(seconds: int, seed: int = 0) -> dict[str, Any]:
    """Frames of audio and visual at RATE, and two words a second."""
    rng = np.random.default_rng(seed)
    counts = {"audio": 10 * seconds, "visual": 5 * seconds, "text": 2 * seconds}
    return {name: rng.standard_normal((counts[name], dim)) for name, dim in zip(MODALITIES, DIMS, strict=True)}


def between(frames: dict[str, Any], start: int, end: int) -> dict[str, Any]:
    """What a recording has in some seconds."""
    rate = {"audio": 10, "visual": 5, "text": 2}
    return {name: values[rate[name] * start : rate[name] * end] for name, values in frames.items()}


def predictor_of(name: str) -> Predictor:
    return Predictor(build_narrow(name).float())


@pytest.mark.parametrize("name", sorted(MODELS))
def test_the_answers_are_those_of_the_whole(name: str) -> None:
    """Every model, whether it is read incrementally or again; each push is a second."""
    predictor, frames = predictor_of(name), recording(4)
    streaming = predictor.stream(rate=RATE)
    for second in range(4):
        (answer,) = streaming.push(**between(frames, second, second + 1))
        whole = predictor.predict(between(frames, 0, second + 1))
        assert answer == pytest.approx(whole, abs=1e-5)
        assert (answer.frames, answer.lost, answer.seconds) == (whole.frames, {}, second + 1)
    assert streaming.answer() == answer
    if name in SEEN_INCREMENTALLY:
        assert streaming.incremental == SEEN_INCREMENTALLY[name]


@pytest.mark.parametrize("name", ["IFMMIN", "MMIM", "MulT"])
def test_a_modality_goes_silent_and_comes_back(name: str) -> None:
    predictor, frames = predictor_of(name), recording(6)
    streaming, so_far = predictor.stream(rate=RATE), {part: values[:0] for part, values in frames.items()}
    here = [("audio",), ("audio", "text"), ("audio", "visual", "text"), ("visual",), ("audio", "visual"), MODALITIES]
    for second, names in enumerate(here):
        given = {part: values for part, values in between(frames, second, second + 1).items() if part in names}
        (answer,) = streaming.push(**given)
        so_far |= {part: np.concatenate([so_far[part], values]) for part, values in given.items()}
        assert answer == pytest.approx(predictor.predict({p: v for p, v in so_far.items() if len(v)}), abs=1e-5)
        assert answer.seconds == second + 1


@pytest.mark.parametrize("name", ["IFMMIN", "MulT"])
@pytest.mark.parametrize("how", ["none", "train", "utterance"])
def test_lost_frames_and_normalisation(name: str, how: str) -> None:
    """Frames are lost one by one, and of text all at first; the statistics of an utterance change with each frame."""
    statistics = {"audio": {"mean": torch.full((DIMS[0],), 3.0), "std": torch.full((DIMS[0],), 2.0)}}
    record = {"normalization": [how, "none", "none"], "statistics": statistics}
    predictor, frames = Predictor(build_narrow(name).float(), record), recording(3)
    frames["audio"][[0, 7, 20], 2] = np.nan
    frames["text"][:4] = np.nan
    streaming = predictor.stream(rate=RATE)
    for second in range(3):
        (answer,) = streaming.push(**between(frames, second, second + 1))
        whole = predictor.predict(between(frames, 0, second + 1))
        assert answer == pytest.approx(whole, abs=1e-5)
        assert (answer.lost, answer.condition) == (whole.lost, whole.condition)
    assert ("audio" in streaming.incremental) == (name == "IFMMIN" and how != "utterance")


@pytest.mark.parametrize("name", ["IFMMIN", "MulT"])
def test_a_window_sees_the_last_seconds(name: str) -> None:
    predictor, frames = predictor_of(name), recording(8)
    streaming = predictor.stream(rate=RATE, window_seconds=3)
    assert streaming.incremental == ()
    for second in range(8):
        (answer,) = streaming.push(**between(frames, second, second + 1))
        assert answer == pytest.approx(predictor.predict(between(frames, max(0, second - 2), second + 1)), abs=1e-5)


def test_a_window_forgets_who_went_silent() -> None:
    predictor, frames = small(), recording(6)
    streaming = predictor.stream(rate=RATE, window_seconds=2)
    streaming.push(**between(frames, 0, 1))
    conditions = [streaming.push(audio=between(frames, n, n + 1)["audio"])[0].condition for n in range(1, 4)]
    assert conditions == ["avt", "a", "a"]


def test_the_memory_of_a_window_is_bounded() -> None:
    streaming = small().stream(rate=RATE, window_seconds=2)
    frames = recording(1)
    for _ in range(50):
        streaming.push(**frames)
        assert [streaming._length(modality) for modality in range(3)] <= [20, 10, 4]


def test_an_answer_comes_when_it_is_due() -> None:
    """Pushes of any length: answers come every half second, each of what had arrived by then."""
    predictor, frames = predictor_of("IFMMIN"), recording(3)["audio"]
    streaming, pushed, found = predictor.stream(every=0.5, rate={"audio": 10}), 0, []
    for count in (3, 1, 1, 9, 2, 14):
        found += streaming.push(audio=frames[pushed : pushed + count])
        pushed += count
        assert len(found) == pushed // 5
        assert streaming.seconds == pytest.approx(pushed / 10)
    assert [answer.seconds for answer in found] == pytest.approx([0.5, 1.0, 1.5, 2.0, 2.5, 3.0])
    for answer in found:
        assert answer.seconds is not None
        seen = frames[: round(10 * answer.seconds)]
        assert answer.frames == {"audio": len(seen)}
        assert answer == pytest.approx(predictor.predict({"audio": seen}), abs=1e-5)


def test_words_arrive_at_the_end_of_their_push() -> None:
    frames = recording(2)
    streaming = small().stream(rate={"audio": 10})
    assert streaming.push(text=frames["text"][:1]) == []  # no time has passed
    answers = streaming.push(audio=frames["audio"], text=frames["text"][1:])
    assert [answer.frames for answer in answers] == [{"audio": 10, "text": 1}, {"audio": 20, "text": 4}]


def test_rounding_of_time_does_not_lose_an_answer() -> None:
    streaming = small().stream(rate={"audio": 30})
    frame = np.ones((1, DIMS[0]))
    assert sum(len(streaming.push(audio=frame)) for _ in range(30 * 60)) == 60


def test_reset_begins_anew() -> None:
    predictor, frames = predictor_of("IFMMIN"), recording(2)
    streaming = predictor.stream(rate=RATE)
    streaming.push(**recording(2, seed=1))
    streaming.reset()
    assert streaming.seconds == 0
    assert streaming.push(**frames)[-1] == pytest.approx(predictor.predict(frames), abs=1e-5)


@pytest.mark.parametrize("window", [None, 1.0])
def test_an_answer_that_is_not_finite_is_said_and_the_clock_goes_on(window: float | None) -> None:
    predictor, frames = small(), recording(1)["audio"]
    with torch.no_grad():
        for weight in predictor.model.parameters():
            weight.mul_(1e3)
    streaming = predictor.stream(every=0.1, rate={"audio": 10}, window_seconds=window)
    streaming.push(audio=frames[:2])
    huge = np.concatenate([np.full((1, DIMS[0]), 3e38), frames[:5]])
    with pytest.raises(InputError, match="no finite answer"):
        streaming.push(audio=huge)
    assert streaming.seconds == pytest.approx(0.8)
    if window is not None:  # it forgets by itself
        for _ in range(2):
            try:
                streaming.push(audio=frames)
            except InputError:
                continue
        assert streaming.answer() == pytest.approx(predictor.predict({"audio": frames}), abs=1e-5)
    streaming.reset()
    answers = streaming.push(audio=frames)
    assert answers[-1] == pytest.approx(predictor.predict({"audio": frames}), abs=1e-5)


def test_streams_do_not_mix_and_the_model_stays_as_it_is() -> None:
    predictor, one, other = predictor_of("IFMMIN"), recording(2), recording(2, seed=1)
    before, modules = predictor.predict(one), [*predictor.model.modules()]
    first, second = predictor.stream(rate=RATE), predictor.stream(rate=RATE)
    for start in range(2):
        first.push(**between(one, start, start + 1))
        second.push(**between(other, start, start + 1))
    assert first.answer() == pytest.approx(before, abs=1e-5)
    assert second.answer() == pytest.approx(predictor.predict(other), abs=1e-5)
    assert predictor.predict(one) == before
    assert all(ours is theirs for ours, theirs in zip(predictor.model.modules(), modules, strict=True))
    assert not any("pool" in vars(module) for module in predictor.model.modules())


def test_a_push_costs_its_new_frames_alone() -> None:
    """Of what an incremental encoder is given, nothing is read twice."""
    predictor = predictor_of("IFMMIN")
    streaming, read = predictor.stream(rate=RATE), []
    rnn = predictor.model.get_submodule("encoders.audio.rnn")
    hook = rnn.register_forward_hook(lambda module, given, found: read.append(len(given[0])))
    for second in range(5):
        streaming.push(audio=between(recording(5), second, second + 1)["audio"])
    hook.remove()
    assert read == [10] * 5


class Sneaking(Small):
    """Reads frames beside its encoders, or the length, which no pool tells."""

    def __init__(self, *, what: str = "", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.encoders = ModalityEncoders([LSTMEncoder(dim, 4, absent_frames=1) for dim in self.feature_dims])
        self.output = nn.Linear(12, self.task.outputs)
        self.what = what

    def forward(self, batch: Batch) -> Tensor:
        logits: Tensor = self.output(self.encoders(batch).flatten(1))
        if self.what == "frames":
            return logits * batch.frames[0].nan_to_num().square().sum((1, 2))[:, None]
        if self.what == "an error":
            torch.linalg.cholesky(torch.eye(2) + 0 * batch.frames[0].sum())
        return logits


@pytest.mark.parametrize("what", ["", "frames", "an error"])
def test_a_model_that_reads_frames_in_another_way_too_reads_them_again(what: str) -> None:
    torch.manual_seed(0)
    predictor = Predictor(Sneaking(what=what, feature_dims=list(DIMS), class_names=CLASSES), RAW)
    streaming, frames = predictor.stream(rate=RATE), recording(2)
    assert streaming.incremental == (("visual", "text") if what else MODALITIES)
    for second in range(2):
        streaming.push(**between(frames, second, second + 1))
    assert streaming.answer() == pytest.approx(predictor.predict(frames), abs=1e-5)


def test_rounding_of_a_model_that_magnifies_it_is_no_other_answer() -> None:
    predictor = Predictor(build_narrow("IFMMIN").float())
    with torch.no_grad():
        for name, weight in predictor.model.named_parameters():
            if name.startswith("classifier") and weight.ndim == 2:
                weight.mul_(100.0)
    assert predictor.stream(rate=RATE).incremental == MODALITIES


def test_it_describes_itself() -> None:
    streaming = predictor_of("MMIM").stream(every=0.5, rate=RATE)
    assert repr(streaming).splitlines() == [
        "Stream: MMIM, an answer since the start every 0.5 s",
        "  frames a second: audio 10, visual 5",
        "  reads: audio and visual incrementally, text again for each answer",
    ]
    windowed = repr(small().stream(rate={"text": 3}, window_seconds=10))
    assert "an answer of the last 10 s every 1 s" in windowed
    assert "reads: audio, visual and text again for each answer" in windowed


def test_what_the_model_does_not_answer_is_no_answer_yet() -> None:
    class Words(Small):
        def answers(self, condition: str) -> bool:
            return "t" in condition

    frames = recording(2)
    streaming = Predictor(Words(feature_dims=list(DIMS), class_names=CLASSES)).stream(rate=RATE)
    assert streaming.push(audio=frames["audio"][:10]) == []
    with pytest.raises(InputError, match=r"Words answers t, at, vt, avt, not a"):
        streaming.answer()
    rest = {"audio": frames["audio"][10:], "text": frames["text"]}
    assert [answer.condition for answer in streaming.push(**rest)] == ["at"]


@pytest.mark.parametrize("condition", CONDITIONS)
def test_every_condition(condition: str) -> None:
    predictor, frames = predictor_of("MMIN"), recording(2)
    given = {n: f for n, f, there in zip(MODALITIES, frames.values(), present_under(condition), strict=True) if there}
    streaming = predictor.stream(rate={"audio": 10, "visual": 5, "text": 2})
    assert streaming.push(**given)[-1] == pytest.approx(predictor.predict(given), abs=1e-5)


def test_frames_that_are_kept_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "LONGEST", 25)
    streaming, frames = small().stream(rate=RATE), recording(2)
    streaming.push(audio=frames["audio"])
    with pytest.raises(InputError, match=r"audio: 30 frames since the start, more than 25, and each answer of Small"):
        streaming.push(audio=frames["audio"][:10])
    assert streaming.seconds == 2
    incremental: Stream = predictor_of("IFMMIN").stream(rate=RATE)
    for _ in range(5):
        incremental.push(audio=frames["audio"])
    assert incremental.answer().frames == {"audio": 100}
