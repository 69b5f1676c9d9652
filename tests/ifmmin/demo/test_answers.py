"""What the page shows, without a page."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datamodules.conditions import CONDITIONS, MODALITIES
from datamodules.errors import InputError
from datamodules.linear_gaussian.generator import CLASS_NAMES, LinearGaussianCorpus
from ifmmin import Predictor
from ifmmin.demo.answers import read_upload, report
from ifmmin.demo.drawing import details, headline
from ifmmin.demo.examples import NUMBER, examples
from ifmmin.demo.page import Inputs
from tests.ifmmin.demo.saved import DIMS, predictor
from tests.ifmmin.media_models import RECORD, extraction, install, letters, media_predictor

ALL = (True, True, True)


def frames(seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal((5, dim)) for name, dim in zip(MODALITIES, DIMS, strict=True)}


def test_each_condition_has_the_predictors_answer_at_its_temperature() -> None:
    given, asked = frames(), predictor()
    found = report(asked, given)
    assert [row.condition for row in found.rows] == list(CONDITIONS)
    for row in found.rows:
        seen = {name: given[name] for name in MODALITIES if name[0] in row.condition}
        # Softmax of the logarithm over 2 is the root, made to add up to 1.
        roots = {name: value**0.5 for name, value in asked.predict(seen).items()}
        wanted = {name: value / sum(roots.values()) for name, value in roots.items()}
        assert row.answer is not None and dict(row.answer) == pytest.approx(wanted, abs=1e-5)
    assert found.answer == found.rows[-1].answer
    assert found.calibrated is True
    assert (found.absent, found.lost, found.problem) == ({}, {}, "")


def test_a_broken_sensor_is_not_read() -> None:
    given, asked = frames(), predictor()
    found = report(asked, given, ["audio", "text"])
    other = report(asked, {**given, "visual": frames(1)["visual"]}, ["audio", "text"])
    assert found == other
    assert found.answer is not None and found.answer.condition == "at"
    assert [row.condition for row in found.rows if row.answer is None] == ["v", "av", "vt", "avt"]
    assert found.rows[1].reason == "video is switched off"
    assert found.absent == {"visual": "switched off"}


def test_shares_are_the_mean_over_the_orders_of_arrival() -> None:
    found = report(predictor(), frames(), ["audio", "text"])
    assert found.answer is not None
    best = found.answer.prediction
    by = {row.condition: row.answer[str(best)] for row in found.rows if row.answer is not None}
    assert found.uninformed == 0.25
    assert found.shares["audio"] == pytest.approx((by["a"] - 0.25 + by["at"] - by["t"]) / 2, abs=1e-6)
    assert found.shares["text"] == pytest.approx((by["t"] - 0.25 + by["at"] - by["a"]) / 2, abs=1e-6)
    assert set(found.shares) == {"audio", "text"}


def test_lost_frames_are_counted_and_a_lost_sensor_is_absent() -> None:
    given = frames()
    given["audio"][1:3, 0] = np.nan
    given["text"][:] = np.nan
    found = report(predictor(), given)
    assert found.lost == {"audio": (2, 5), "text": (5, 5)}
    assert found.absent == {"text": "lost: every frame is NaN"}
    assert found.answer is not None and found.answer.condition == "av"
    shown = headline(found)
    assert "Missing: text (lost: every frame is NaN)." in shown
    assert "Frames lost: 2 of 5 of audio, 5 of 5 of text." in shown


def test_nothing_left_is_said() -> None:
    found = report(predictor(), frames(), [])
    assert found.answer is None
    assert "audio is switched off; video is switched off; text is switched off" in found.problem
    assert "No answer: no sensor is left" in headline(found)
    assert all(row.answer is None for row in found.rows)
    assert details(found).count("card gone") == 7


def test_a_model_of_some_conditions() -> None:
    asked = predictor()
    asked.model.answers = lambda condition: condition != "a"  # type: ignore[method-assign]
    found = report(asked, frames())
    assert found.answer is not None and not found.shares
    assert "audio" in found.unshared
    assert found.rows[0].reason == "MeanFusion does not answer from audio"
    assert report(asked, frames(), ["audio"]).problem == found.rows[0].reason


def test_without_temperatures_it_says_so() -> None:
    given, asked = frames(), predictor(calibrated=False)
    found = report(asked, given)
    assert found.calibrated is False and found.answer is not None
    assert dict(found.answer) == pytest.approx(asked.predict(given), abs=1e-5)
    assert "not calibrated" in headline(found) and "not calibrated" in details(found)


def test_it_abstains_below_a_probability() -> None:
    found = report(predictor(), frames(), abstain_below=1.0)
    assert found.answer is not None and found.answer.abstained
    assert '<p class="said">abstains</p>' in headline(found)
    assert details(found).count("abstains") == 7


def test_a_regression_has_values_on_its_scale() -> None:
    given, asked = frames(), predictor(corpus="SyntheticSentiment")
    found = report(asked, given, abstain_below=0.9)
    assert (found.scale, found.calibrated) == ((-3, 3), None)
    assert found.answer is not None and dict(found.answer) == pytest.approx(asked.predict(given), abs=1e-5)
    assert sum(found.shares.values()) == pytest.approx(found.answer["value"] - 0, abs=1e-6)
    assert f'<p class="said">{found.answer["value"]:+.2f}</p>' in headline(found)
    assert "Value under each condition" in details(found)
    # A bar from the middle of the track to the value, as a share of 6 units.
    width = 100 * abs(found.answer["value"]) / 6
    assert f"width:{width:.1f}%" in details(found)


def test_bars_are_as_long_as_their_probabilities_and_have_them_in_words() -> None:
    found = report(predictor(), frames())
    (card,) = re.findall(r'<section class="card now">.*?</section>', details(found))
    assert found.answer is not None
    for name, value in found.answer.items():
        assert re.search(rf'title="{name}".*?width:{100 * value:.1f}%.*?>{100 * value:.1f} %<', card)


def test_names_are_escaped() -> None:
    names = ["<script>alert(1)</script>", 'a"onmouseover="x', "b&c", "${d}{{e}}"]
    shown = predictor(class_names=names)
    shown.trained_on = {**shown.trained_on, "name": "<img src=x>"}
    inputs = Inputs(shown)
    page = "".join(inputs.shown(ALL, example="none of these")) + "".join(
        [headline(report(shown, frames())), details(report(shown, frames()))]
    )
    assert "<script" not in page and 'a"on' not in page
    assert "&lt;script&gt;" in page and "b&amp;c" in page


def test_examples_are_new_draws_that_the_generators_own_rule_mostly_knows() -> None:
    found = examples({"name": "Synthetic"}, DIMS)
    assert len(found) == NUMBER and list(found) == list(examples({"name": "Synthetic"}, DIMS))
    rule, right = LinearGaussianCorpus(), 0
    for name, given in found.items():
        answer = rule.log_posterior([given[modality] for modality in MODALITIES])
        right += name.endswith(f": {CLASS_NAMES[int(answer.argmax())]}")
    assert right >= NUMBER - 3
    assert examples({"name": "IEMOCAP"}, DIMS) == {}
    assert examples({"name": "Synthetic"}, [1, 2, 3]) == {}
    assert len(examples({"name": "Privileged", "fold": 2}, [130, 260, 16])) == NUMBER


def test_an_upload_takes_the_place_of_the_examples_frames(tmp_path: Path) -> None:
    asked = predictor()
    inputs, given = Inputs(asked), frames(3)["audio"]
    name = next(iter(inputs.examples))
    np.save(tmp_path / "mine.npy", given)
    shown = inputs.shown(ALL, (str(tmp_path / "mine.npy"), None, None), name)
    wanted = report(asked, {**inputs.examples[name], "audio": given})
    assert shown == (headline(wanted), details(wanted))
    assert shown != inputs.shown(ALL, example=name)


def saved(array: Any, **options: Any) -> Any:
    return lambda path: np.save(path, array, **options)


BAD = {
    "another width": (
        saved(np.zeros((3, 7))),
        f"audio: shape [3, 7], but small.ckpt was trained on frames [T, {DIMS[0]}]",
    ),
    "a vector": (saved(np.zeros(DIMS[0])), "audio: shape ["),
    "no frames": (saved(np.zeros((0, DIMS[0]))), "audio: no frames"),
    "all lost": (saved(np.full((2, DIMS[0]), np.nan)), ""),
    "infinite": (saved(np.full((2, DIMS[0]), np.inf)), "audio: infinite values"),
    "objects": (
        saved(np.array([{}, 1], dtype=object), allow_pickle=True),
        "holds Python objects, which",
    ),
    "letters": (saved(np.array([["a"]])), "no numbers"),
    "empty": (lambda path: path.write_bytes(b""), "mine.npy: is empty"),
    "text": (lambda path: path.write_text("0 1 2"), "mine.npy: is no .npy file"),
    "an archive": (lambda path: path.write_bytes(b"PK\x03\x04 as of numpy.savez"), "mine.npy: is no .npy file"),
    "half a header": (lambda path: path.write_bytes(b"\x93NUMPY\x01\x00v\x00{'descr'"), "is damaged or cut off"),
    "deleted": (lambda path: None, "mine.npy: cannot be read"),
}


@pytest.mark.parametrize("fault", BAD)
def test_a_bad_upload_is_one_line(fault: str, tmp_path: Path) -> None:
    make, expected = BAD[fault]
    path = tmp_path / "mine.npy"
    make(path)
    inputs = Inputs(predictor())
    said, rest = inputs.shown(ALL, (str(path), None, None), next(iter(inputs.examples)))
    if not expected:
        assert "Missing: audio (lost: every frame is NaN)" in said
        return
    assert expected in said and said.count("<p") == 1 and rest == ""
    assert "Traceback" not in said


def test_a_file_that_is_cut_off_or_says_a_size_it_has_not(tmp_path: Path) -> None:
    np.save(tmp_path / "whole.npy", np.zeros((9, 4)))
    content = (tmp_path / "whole.npy").read_bytes()
    for name, changed in {"cut": content[:-8], "huge": content.replace(b"(9, 4), ", b"(9999999999, 4), ")}.items():
        (tmp_path / f"{name}.npy").write_bytes(changed)
        with pytest.raises(InputError, match=f"audio: {name}.npy: is damaged or cut off"):
            read_upload(tmp_path / f"{name}.npy", "audio")


def test_nothing_given() -> None:
    other = predictor()
    other.trained_on = {**other.trained_on, "name": "IEMOCAP"}
    assert "Nothing is given yet" in Inputs(other).shown(ALL)[0]


def test_a_recording_is_extracted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, calls = predictor(), []
    asked.trained_on = {**asked.trained_on, "name": "Mine", "extraction": extraction()}

    class Media:
        def __init__(self, given: Predictor, record: Any) -> None:
            assert given is asked and record == extraction()

        def features(self, clip: str | None, text: str | None) -> dict[str, Any]:
            calls.append((clip, text))
            if clip == "broken.mp4":
                raise InputError("broken.mp4: is no media file.")
            return {"audio": frames()["audio"]}

    monkeypatch.setattr("ifmmin.media.MediaPredictor", Media)
    inputs = Inputs(asked)
    assert inputs.takes_clips and not inputs.examples
    first = inputs.shown(ALL, clip="clip.mp4", words=" Hello. ")
    assert "from audio" in first[0] and inputs.shown((True, False, True), clip="clip.mp4", words="Hello.") != first
    assert calls == [("clip.mp4", "Hello.")]
    assert "broken.mp4: is no media file." in inputs.shown(ALL, clip="broken.mp4")[0]


def test_words_are_extracted_as_in_training(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)
    asked = media_predictor().predictor
    asked.trained_on = {**RECORD, "extraction": extraction()}
    said, _ = Inputs(asked).shown(ALL, words="Hello there.")
    wanted = asked.predict({"text": letters("Hello there.")})
    assert f'<p class="said">{wanted.prediction}</p><p>{100 * max(wanted.values()):.1f} %' in said
    assert "Missing: audio (not given); video (not given)." in said
