"""The pipeline: every modality that is there, and no other."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datamodules.errors import InputError
from datamodules.extraction.extractor import Extracted, FloatArray, Pictures, Reads, Sound, Words
from datamodules.extraction.media.detectors import Face, HogDetector
from datamodules.extraction.pipeline import Pipeline
from datamodules.extraction.recipes import RECIPES
from datamodules.extraction.recordings import Recording, Source
from tests.datamodules.extraction.media_files import Array, face_picture, voice, write_video, write_wav


class Recorder:
    """An extractor that keeps what it is given and returns one row."""

    width = 1

    def __init__(self, modality: Any, reads: Reads, answer: Any = ((0.0,),)) -> None:
        self.name, self.modality, self.reads, self.answer = f"recorder-{modality}", modality, reads, answer
        self.given: list[Any] = []

    def __call__(self, item: Any) -> FloatArray:
        self.given.append(item)
        if isinstance(self.answer, Exception):
            raise self.answer
        return np.array(self.answer, np.float32)

    def recipe(self) -> dict[str, Any]:
        return {}


class Corner:
    """A detector that always finds the upper left corner."""

    name, grey = "corner", True

    def __call__(self, picture: Array) -> list[Face]:
        return [Face(4, 4, 16, 16, 1.0)]

    def recipe(self) -> dict[str, Any]:
        return {}


def recorders(**answers: Any) -> dict[str, Recorder]:
    reads = {"audio": Reads("sound"), "visual": Reads("faces", side=32), "text": Reads("text")}
    return {modality: Recorder(modality, what, answers.get(modality, ((0.0,),))) for modality, what in reads.items()}


def run(extractors: dict[str, Recorder], *recordings: Recording) -> dict[str, Extracted]:
    detector = HogDetector() if "visual" in extractors else None
    return {found.utterance: found for found in Pipeline(extractors, detector).extract(recordings)}


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "clip.avi"
    return write_video(path, [face_picture()] * 50, 25, voice(2.0, 48_000), 48_000)


def test_items_are_those_of_the_contract(clip: Path) -> None:
    extractors = recorders()
    found = run(extractors, Recording("u", Source(clip), Source(clip), " Good morning. "))["u"]
    assert set(found.features) == {"audio", "visual", "text"} and not found.absent and not found.remarks
    assert found.seconds == pytest.approx(2.0, abs=0.05)
    [sound], [pictures], [words] = (extractors[modality].given for modality in ("audio", "visual", "text"))
    assert isinstance(sound, Sound) and sound.rate == 16_000 and len(sound.samples) == pytest.approx(32_000, abs=100)
    assert sound.samples.dtype == np.float32
    assert isinstance(pictures, Pictures) and pictures.pixels.shape == (20, 32, 32, 3) and pictures.looked_at == 20
    np.testing.assert_allclose(pictures.times, np.arange(20) / 10)
    assert words == Words("u", "Good morning.")


def test_absent_modalities_give_reasons_and_no_features(tmp_path: Path) -> None:
    found = run(
        recorders(),
        Recording("nothing"),
        Recording("named", absent={"audio": "label without wav", "text": "only tags"}),
        Recording("gone", Source(tmp_path / "none.wav"), Source(tmp_path / "none.avi"), "  \n"),
    )
    assert found["nothing"].absent == {"audio": "no sound", "visual": "no picture", "text": "no transcript"}
    assert found["named"].absent == {"audio": "label without wav", "visual": "no picture", "text": "only tags"}
    assert found["gone"].absent == {"audio": "no such file", "visual": "no such file", "text": "no transcript"}
    assert not any(each.features for each in found.values())


def test_modalities_without_an_extractor_are_left_out(clip: Path) -> None:
    found = run({"audio": recorders()["audio"]}, Recording("u", Source(clip), Source(clip), "Hello."))["u"]
    assert set(found.features) == {"audio"} and found.absent == {}


def test_length_of_sound_and_picture_is_compared(clip: Path, tmp_path: Path) -> None:
    short = write_wav(tmp_path / "short.wav", voice(1.0))
    found = run(recorders(), Recording("u", Source(short), Source(clip)), Recording("v", Source(clip), Source(clip)))
    assert found["u"].remarks == ("lengths differ",) and found["v"].remarks == ()


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (ValueError("no luck"), r"utterance u: extractor recorder-audio failed \(ValueError: no luck\)"),
        ([[float("nan")]], "utterance u: extractor recorder-audio gave values that are not finite"),
        ([[1.0, 2.0]], r"utterance u: extractor recorder-audio gave an array \[1, 2\] instead of \[T, 1\]"),
        (np.zeros((0, 1)), r"gave an array \[0, 1\]"),
    ],
)
def test_a_failing_extractor_is_an_error_with_the_id(clip: Path, answer: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        run(recorders(audio=answer), Recording("u", Source(clip)))


def test_faces_need_a_detector() -> None:
    with pytest.raises(InputError, match="face detector"):
        Pipeline(recorders())


@pytest.mark.parametrize(("module", "extra"), [("av", "media"), ("opensmile", "media"), ("dlib", "media")])
def test_a_missing_dependency_is_one_line(monkeypatch: pytest.MonkeyPatch, module: str, extra: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError) as raised:
        Pipeline.from_recipe(RECIPES["portable"], only=("audio", "visual"))
    assert f'pip install "ifmmin[{extra}]"' in str(raised.value) and "\n" not in str(raised.value)


def test_words_need_no_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("av", "opensmile", "dlib", "skimage"):
        monkeypatch.setitem(sys.modules, module, None)
    [found] = Pipeline.from_recipe(RECIPES["portable"], only=("text",)).extract([Recording("u", text="Hello.")])
    assert set(found.features) == {"text"}


def test_nothing_of_media_is_imported_with_the_pipeline() -> None:
    script = (
        "import sys, datamodules, ifmmin, datamodules.extraction.pipeline\n"
        "print(*[name for name in ('av', 'opensmile', 'dlib', 'skimage', 'transformers') if name in sys.modules])"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == ""


def test_extractor_of_files_needs_no_media() -> None:
    extractors = {modality: Recorder(modality, Reads("nothing")) for modality in ("audio", "visual", "text")}
    found = run(extractors, Recording("u", absent={"audio": "no sound"}))["u"]
    assert set(found.features) == {"audio", "visual", "text"}
    assert extractors["visual"].given == [Words("u", "")]


def test_memory_is_the_same_as_a_file(tmp_path: Path) -> None:
    pictures, samples = [np.roll(face_picture(), 2 * number, axis=1) for number in range(50)], voice(2.0)
    path = write_video(tmp_path / "a.mkv", pictures, 25, codec="ffv1")
    sound = write_wav(tmp_path / "a.wav", samples)
    extractors = recorders()
    run(extractors, Recording("u", Source(sound), Source(path)))
    written = (np.round(samples * 32768) / 32768).astype(np.float32)
    memory = Pipeline(extractors, HogDetector()).extract_one(Recording("u"), (written, 16_000), (pictures, 25.0))
    assert set(memory.features) == {"audio", "visual"} and memory.seconds == 2.0
    first, second = extractors["audio"].given
    np.testing.assert_array_equal(first.samples, second.samples)
    first, second = extractors["visual"].given
    np.testing.assert_array_equal(first.times, second.times)
    assert np.abs(first.pixels.astype(int) - second.pixels).mean() < 8  # colours were stored as YUV
