"""Media files in, answers out."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datamodules.errors import InputError
from datamodules.extraction.recorded import NoExtractorError
from ifmmin import MediaPredictor, Predictor
from tests.batches import CLASSES
from tests.cli.running import CHECKOUT
from tests.datamodules.extraction.media_files import voice, write_video, write_wav
from tests.ifmmin import media_models
from tests.ifmmin.media_models import RECORD, WIDTHS, extraction, install, letters, loudness, media_predictor
from tests.ifmmin.models import Small
from tests.ifmmin.sharing.saved import record as saved_record

pytest.importorskip("av")

SECONDS = 2.0
WORDS = "You said nothing"


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """With the small extractors, and without a network."""
    install(monkeypatch)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a connection was attempted")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    yield


def sixteen_bits(samples: Any) -> Any:
    return (np.round(samples * 32768) / 32768).astype(np.float32)


def shades(seconds: float, fps: int = 10, dark: float = 0.0) -> list[Any]:
    """Grey pictures that get brighter, the first ``dark`` seconds black but for a dot."""
    pictures = []
    for number in range(round(seconds * fps)):
        picture = np.full((48, 64, 3), 120 + 4 * (number % 30), np.uint8)
        if number < dark * fps:
            picture[:] = 30
        pictures.append(picture)
    return pictures


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A film of two seconds, its sound alone, a silent film, and a long film."""
    root = tmp_path_factory.mktemp("clips")
    sound = voice(SECONDS)
    write_video(root / "clip.avi", shades(SECONDS), 10, sound)
    write_wav(root / "clip.wav", sound)
    write_video(root / "mute.avi", shades(SECONDS, dark=1.0), 10)
    write_wav(root / "silent.wav", np.zeros(32_000))
    rising = voice(40.0) * np.linspace(0.1, 1.0, 40 * 16_000)
    write_video(root / "long.avi", shades(40.0), 10, rising)
    write_wav(root / "long.wav", rising)
    return root


def test_an_answer_is_that_of_the_features(folder: Path) -> None:
    predictor = media_predictor()
    answer = predictor.predict(folder / "clip.avi", text=WORDS)
    features = predictor.features(folder / "clip.avi", text=WORDS)
    assert answer.condition == "{a,v,t}" and answer.absent == {} and answer.problem == ""
    assert answer.probability == predictor.predictor.predict(features)
    assert answer.each == {name: predictor.predictor.predict({name: frames}) for name, frames in features.items()}
    assert answer.frames == {"audio": 20, "visual": 20, "text": 3} and answer.faces == (20, 20)
    assert answer.start == 0.0 and answer.end == pytest.approx(SECONDS, abs=0.01)
    assert answer.prediction == max(answer.probability, key=lambda name: answer.probability[name])


def test_a_saved_folder_answers_for_media_as_before(folder: Path, tmp_path: Path) -> None:
    predictor = media_predictor("MeanFusion")
    trained_on = saved_record(feature_dims=list(WIDTHS.values()), statistics={}, extraction=extraction())
    whole = Predictor(predictor.predictor.model, trained_on | {"normalization": ["none"] * 3})
    whole.save_pretrained(tmp_path / "saved")
    wanted = predictor.predict(folder / "clip.avi", text=WORDS)
    for again in (MediaPredictor.from_pretrained(tmp_path / "saved"), MediaPredictor.load(tmp_path / "saved")):
        assert again.predict(folder / "clip.avi", text=WORDS).probability == wanted.probability
    assert "| audio | comparE, by loudness at 10 Hz | 2 | none |" in (tmp_path / "saved" / "README.md").read_text()


def test_features_are_those_of_a_naive_reading(folder: Path) -> None:
    features = media_predictor().features(folder / "clip.avi", text=f"  {WORDS}\n ")
    np.testing.assert_array_equal(features["audio"], loudness(sixteen_bits(voice(SECONDS))))
    np.testing.assert_array_equal(features["text"], letters(WORDS))
    expected = [picture[12:36, 16:48].mean(axis=(0, 1)) for picture in shades(SECONDS)]
    np.testing.assert_allclose(features["visual"], expected, atol=4)  # the video is compressed


@pytest.mark.parametrize(
    ("file", "given", "condition", "absent"),
    [
        ("clip.wav", {}, "{a}", {"visual": "no video track", "text": "no transcript"}),
        ("mute.avi", {}, "{v}", {"audio": "no audio track", "text": "no transcript"}),
        ("clip.avi", {"without": ["visual"]}, "{a}", {"visual": "left out", "text": "no transcript"}),
        (
            "clip.avi",
            {"without": ("audio", "visual"), "text": "Hm."},
            "{t}",
            {"audio": "left out", "visual": "left out"},
        ),
        ("silent.wav", {"text": "Hm."}, "{t}", {"audio": "silent", "visual": "no video track"}),
        ("clip.wav", {"text": " \n"}, "{a}", {"visual": "no video track", "text": "no transcript"}),
        (None, {"text": "Hm."}, "{t}", {"audio": "not given", "visual": "not given"}),
    ],
)
def test_what_is_absent_is_said(file: str, given: Any, condition: str, absent: Any, folder: Path) -> None:
    answer = media_predictor().predict(file and folder / file, **given)
    assert (answer.condition, answer.absent) == (condition, absent)
    assert [*answer.each] == [*answer.frames] and not {*answer.frames} & {*absent}


def test_faces_are_counted(folder: Path) -> None:
    answer = media_predictor().predict(folder / "mute.avi")
    assert answer.faces == (10, 20) and answer.frames == {"visual": 10}


def test_extractors_are_made_where_they_are_needed(folder: Path) -> None:
    predictor = media_predictor()
    assert media_models.made == []
    predictor.predict(folder / "clip.wav")
    assert media_models.made == ["loudness"]
    predictor.predict(folder / "clip.wav", text=WORDS)
    predictor.predict(folder / "clip.wav", text=WORDS)
    assert media_models.made == ["loudness", "letters"]


def test_memory_is_the_same_as_a_file(folder: Path) -> None:
    predictor, samples = media_predictor(), sixteen_bits(voice(SECONDS))
    file = predictor.predict(folder / "clip.wav", text=WORDS)
    memory = predictor.predict(samples=(samples, 16_000), text=WORDS)
    assert memory.probability == file.probability and memory.name == "memory"
    stereo = predictor.predict(samples=(np.stack([samples, samples], axis=1), 16_000), text=WORDS)
    assert stereo.probability == file.probability
    seen = predictor.features(frames=shades(SECONDS), fps=10)
    film = predictor.features(folder / "clip.avi", without=["audio"])
    np.testing.assert_allclose(seen["visual"], film["visual"], atol=4)
    assert predictor.predict(folder / "clip.avi", samples=(samples, 16_000)).condition == "{a,v}"


def test_each_window_is_answered_like_a_file_of_its_own(folder: Path, tmp_path: Path) -> None:
    predictor = media_predictor()
    answers = [*predictor.answers(folder / "long.wav", window=15.0, hop=12.5)]
    assert [(answer.start, answer.end) for answer in answers] == [(0.0, 15.0), (12.5, 27.5), (25.0, 40.0)]
    whole = voice(40.0) * np.linspace(0.1, 1.0, 40 * 16_000)
    for answer in answers:
        part = whole[round(answer.start * 16_000) : round(answer.end * 16_000)]
        alone = predictor.predict(write_wav(tmp_path / "part.wav", part))
        assert alone.probability == answer.probability
    assert len({str(answer.probability) for answer in answers}) == 3
    assert answers == [*predictor.answers(str(folder / "long.wav"), window=15.0, hop=12.5)]


def test_pictures_of_windows_are_those_of_their_time(folder: Path) -> None:
    predictor = media_predictor()
    answers = sorted(predictor.answers(folder / "long.avi", window=10.0), key=lambda answer: answer.start)
    assert [answer.condition for answer in answers] == ["{a,v}"] * 4
    assert [answer.faces for answer in answers] == [(100, 100)] * 4


SRT = """1
00:00:00,500 --> 00:00:01,500
You said nothing

2
00:00:01,000 --> 00:00:02,000
Not a word

3
00:00:00,000 --> 00:00:35,000
All of it
"""


def test_each_subtitle_is_answered_with_its_words(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "clip.srt").write_text(SRT, encoding="utf-8")
    predictor = media_predictor()
    answers = [*predictor.answers(folder / "clip.avi", subtitles=tmp_path / "clip.srt")]
    by_text = {answer.text: answer for answer in answers}
    assert {*by_text} == {"You said nothing", "Not a word", "All of it"}
    assert by_text["All of it"].problem == "35 s long, but models know utterances of up to 30 s"
    assert by_text["All of it"].probability == {} and by_text["All of it"].prediction is None
    for text, start, end in (("You said nothing", 0.5, 1.5), ("Not a word", 1.0, 2.0)):
        answer = by_text[text]
        assert (answer.start, answer.end, answer.condition) == (start, end, "{a,v,t}")
        samples = sixteen_bits(voice(SECONDS))[round(start * 16_000) : round(end * 16_000)]
        alone = predictor.predict(samples=(samples, 16_000), text=text)
        assert alone.each["audio"] == answer.each["audio"] and alone.each["text"] == answer.each["text"]


def test_a_window_of_which_nothing_can_be_used_is_no_answer(folder: Path, tmp_path: Path) -> None:
    path = write_wav(tmp_path / "half.wav", np.concatenate([voice(1.0), np.zeros(16_000)]))
    first, second = media_predictor().answers(path, window=1.0)
    assert first.condition == "{a}" and not first.problem
    assert second.probability == {} and second.condition == "{}"
    assert second.problem == "nothing of it can be used (audio: silent; visual: no video track; text: no transcript)"


TEMPERATURES = {"a": 0.5, "t": 2.0, "at": 3.0}


def at_temperature(probability: dict[str, float], temperature: float) -> dict[str, float]:
    powers = {name: value ** (1 / temperature) for name, value in probability.items()}
    return {name: value / sum(powers.values()) for name, value in powers.items()}


def test_an_answer_is_calibrated_at_the_temperature_of_what_is_there(folder: Path) -> None:
    predictor = media_predictor()
    predictor.predictor.model.temperatures = dict(TEMPERATURES)
    plain = predictor.predict(folder / "clip.wav", text=WORDS)
    answer = predictor.predict(folder / "clip.wav", text=WORDS, calibrated=True)
    assert answer.probability == pytest.approx(at_temperature(plain.probability, 3.0))
    assert answer.prediction == plain.prediction and not answer.abstained
    assert (plain.calibrated, answer.calibrated) == (False, True)
    for modality, temperature in {"audio": 0.5, "text": 2.0}.items():
        alone = plain.each[modality]
        assert alone is not None and answer.each[modality] == pytest.approx(at_temperature(alone, temperature))
    (window,) = predictor.answers(folder / "clip.wav", window=SECONDS, calibrated=True)
    assert window.calibrated and window.probability == pytest.approx(answer.each["audio"])


def test_an_answer_abstains_where_no_class_is_probable_enough(folder: Path) -> None:
    predictor = media_predictor()
    plain = predictor.predict(folder / "clip.wav")
    highest = max(plain.probability.values())
    kept = predictor.predict(folder / "clip.wav", abstain_below=highest)
    assert kept == plain
    abstained = predictor.predict(folder / "clip.wav", abstain_below=np.nextafter(highest, 1))
    assert abstained.abstained and abstained.prediction is None
    assert abstained.probability == plain.probability and abstained.problem == ""
    assert abstained.to_dict()["abstained"] is True
    windows = [*predictor.answers(folder / "clip.wav", window=1.0, abstain_below=1.0)]
    assert [answer.abstained for answer in windows] == [True, True]


def test_a_condition_without_a_temperature_is_no_calibrated_answer(folder: Path) -> None:
    predictor = media_predictor()
    predictor.predictor.model.temperatures = {"t": 2.0, "at": 3.0}
    answer = predictor.predict(folder / "clip.wav", text=WORDS, calibrated=True)
    assert answer.each["audio"] is None and answer.each["text"]
    why = "small.ckpt: has no temperature of a, so its probabilities are not calibrated; validate --calibrate true"
    (window,) = predictor.answers(folder / "clip.wav", window=SECONDS, calibrated=True)
    assert why in window.problem and window.probability == {} and not window.calibrated
    with pytest.raises(InputError, match=f"^clip.wav: {why}"):
        predictor.predict(folder / "clip.wav", calibrated=True)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"calibrated": True}, "small.ckpt: has no temperature of any condition, .*validate --calibrate true"),
        ({"abstain_below": 1.5}, "abstain_below 1.5: give a probability, from 0 to 1."),
    ],
)
def test_what_no_answer_can_be_is_refused_before_a_file_is_read(asked: Any, expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        media_predictor().predict("none.wav", **asked)
    with pytest.raises(InputError, match=expected):
        media_predictor().answers("none.wav", window=1.0, **asked)


class NoSoundAlone(Small):
    """Does not answer {a}."""

    def answers(self, condition: str) -> bool:
        return condition != "a"


def test_what_a_modality_alone_says_unless_the_model_does_not_answer_that(folder: Path) -> None:
    predictor = MediaPredictor(
        Predictor(NoSoundAlone(feature_dims=[2, 3, 2], class_names=CLASSES), RECORD), extraction()
    )
    answer = predictor.predict(folder / "clip.wav", text=WORDS)
    assert answer.each["audio"] is None
    assert answer.each["text"] == predictor.predictor.predict({"text": letters(WORDS)})
    with pytest.raises(InputError, match=r"clip.wav: NoSoundAlone answers \{v\}, \{t\}, .*, not \{a\}\.$"):
        predictor.predict(folder / "clip.wav")


def test_a_model_that_answers_one_condition(folder: Path) -> None:
    predictor = media_predictor("MCTN", source="t")
    assert predictor.predict(text=WORDS).condition == "{t}"
    with pytest.raises(InputError, match=r"clip.avi: MCTN answers \{t\}, not \{a,v,t\}; leave out audio and visual\."):
        predictor.predict(folder / "clip.avi", text=WORDS)
    assert predictor.predict(folder / "clip.avi", text=WORDS, without=["audio", "visual"]).condition == "{t}"


def test_tags_are_removed_as_in_training(folder: Path) -> None:
    kept, removed = (media_predictor(facts={"tags": tags}) for tags in ("kept", "removed"))
    np.testing.assert_array_equal(kept.features(text="[LAUGHTER] Hm.")["text"], letters("[LAUGHTER] Hm."))
    np.testing.assert_array_equal(removed.features(text="[LAUGHTER] Hm.")["text"], letters("Hm."))
    assert removed.predict(folder / "clip.wav", text="[LAUGHTER]").condition == "{a}"


def test_a_modality_whose_features_came_ready_made_is_absent(folder: Path) -> None:
    predictor = media_predictor("", "audio", "text")
    answer = predictor.predict(folder / "clip.avi")
    assert answer.absent["visual"] == "this checkpoint's visual features came ready-made"
    with pytest.raises(InputError, match="text is given, but is absent: this checkpoint's text features came ready-m"):
        media_predictor("", "audio").predict(folder / "clip.avi", text=WORDS)


def test_a_checkpoint_of_ready_made_features() -> None:
    records: list[dict[str, Any] | None] = [None, {}]
    for record in records:
        with pytest.raises(InputError) as refused:
            MediaPredictor(Predictor(media_predictor().predictor.model, RECORD, "small.ckpt"), record)
        assert str(refused.value) == (
            "small.ckpt: this checkpoint's features came ready-made; media cannot be turned into them. "
            "Train on extracted features."
        )


def noise(*shape: int) -> Any:
    return np.zeros(shape, np.float32)


REFUSED: list[tuple[str, str | None, Any, str]] = [
    ("nothing", None, {}, "nothing is given: give a file, text, frames with fps, or samples"),
    ("no file", "none.mp4", {}, "none.mp4: no such file; give a video or sound file."),
    ("a folder", ".", {}, ": not a file; give a video or sound file."),
    ("no media", "notes.mp4", {}, "notes.mp4: cannot be read: "),
    ("a text", "notes.txt", {}, "notes.txt: cannot be read: it is text; give a video or sound file."),
    ("a name that no file can have", "a" * 300, {}, "File name too long; give a video or sound file."),
    ("an address", "http://127.0.0.1/clip.mp4", {}, "clip.mp4: no such file"),
    ("an empty file", "empty.mp4", {}, "empty.mp4: the file is empty"),
    (
        "silence",
        "silent.wav",
        {},
        "silent.wav: nothing of it can be used (audio: silent; visual: no video track; text:",
    ),
    (
        "too long",
        "long.wav",
        {},
        "long.wav: 40 s long, but models know utterances of up to 30 s; give subtitles or a wi",
    ),
    ("too long in memory", None, {"samples": (noise(500_000), 16_000)}, "31 s long"),
    ("left out and given", "clip.wav", {"text": "Hm.", "without": ["text"]}, "text is given, but is absent: left out."),
    ("unknown modality", "clip.wav", {"without": ["video"]}, "without: 'video'; give a list of audio, visual, text."),
    ("a modality alone", "clip.wav", {"without": "visual"}, "without: 'visual'; give a list"),
    ("unknown half", "clip.avi", {"half": "upper"}, "half upper: give whole, left, right."),
    ("no fps", None, {"frames": shades(1.0)}, "fps None: give how many of the frames are shown a second."),
    ("no frames", None, {"frames": [], "fps": 10}, "frames: give arrays uint8 [H, W, 3]"),
    ("frames of floats", None, {"frames": [noise(4, 4, 3)], "fps": 10}, "frames: give arrays uint8"),
    ("flat frames", None, {"frames": [np.zeros((4, 4), np.uint8)], "fps": 10}, "frames: give arrays uint8"),
    ("sound of integers", None, {"samples": (np.zeros(4, int), 16_000)}, "samples: give floats [n]"),
    ("a low rate", None, {"samples": (noise(4), 8)}, "samples: 8 a second; give their rate"),
    ("infinite sound", None, {"samples": (noise(4) + np.inf, 16_000)}, "samples: NaN or infinite"),
]


@pytest.mark.parametrize(("file", "given", "expected"), [pytest.param(*case[1:], id=case[0]) for case in REFUSED])
def test_refused_in_one_line(file: str | None, given: Any, expected: str, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.mp4").write_text("no film\n" * 100, encoding="utf-8")
    (tmp_path / "notes.txt").write_text("no film\n" * 100, encoding="utf-8")
    (tmp_path / "empty.mp4").touch()
    made = {path.name for path in folder.iterdir()}
    path = None if file is None else (folder if file in made else tmp_path) / file
    with pytest.raises(InputError) as refused:
        media_predictor().predict(path, **given)
    assert expected in str(refused.value)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "give either subtitles or a window"),
        ({"window": 1.0, "subtitles": "x.srt"}, "give either subtitles or a window"),
        ({"subtitles": "x.srt", "hop": 1.0}, "a hop belongs to windows"),
        ({"window": 0.0}, "window 0: give seconds from 0.1 to 30"),
        ({"window": 1.0, "hop": -1.0}, "hop -1: give at least 0.1 seconds"),
        ({"subtitles": "none.srt"}, "none.srt: there is no such file"),
        ({"subtitles": "clip.wav"}, "clip.wav: subtitles are read from .srt and .vtt"),
    ],
)
def test_windows_that_cannot_be(given: Any, expected: str, folder: Path) -> None:
    with pytest.raises(InputError, match=expected):
        media_predictor().answers(folder / "clip.wav", **given)


def test_an_extractor_that_is_not_installed(folder: Path) -> None:
    record = extraction()
    record["text"]["extractor"] = "missing"
    predictor = MediaPredictor(media_predictor().predictor, record)
    assert predictor.predict(folder / "clip.avi").condition == "{a,v}"
    with pytest.raises(NoExtractorError, match="'missing' is not installed"):
        predictor.predict(folder / "clip.avi", text=WORDS)


def test_nothing_is_written(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    media_predictor().predict(folder / "clip.avi", text=WORDS)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    assert not [*tmp_path.iterdir()]


def test_importing_it_imports_no_media_library() -> None:
    code = """
import sys
import ifmmin
assert "MediaPredictor" in dir(ifmmin)
large = {"av", "opensmile", "dlib", "skimage", "onnxruntime"}  # transformers too, but torchmetrics imports it
assert not large & {*sys.modules} and "torch" not in sys.modules
assert ifmmin.MediaPredictor
print(sorted(large & {*sys.modules}))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
