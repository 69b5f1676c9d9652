"""Sound against the samples that were written, and scipy."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from scipy.signal import resample_poly

from datamodules.extraction.extractor import Absent
from datamodules.extraction.media.sound import Heard, listen, resampled, usable
from datamodules.extraction.recordings import Source
from tests.datamodules.extraction.media_files import face_picture, voice, write_video, write_wav


def heard(path: Path, start: float = 0.0, end: float | None = None) -> Heard:
    [(_, found)] = listen(path, [Source(path, start, end)])
    assert isinstance(found, Heard), found
    return found


def refused(path: Path) -> str:
    [(_, found)] = listen(path, [Source(path)])
    assert isinstance(found, Absent)
    return str(found)


def test_samples_are_those_written(tmp_path: Path) -> None:
    written = voice(1.0)
    found = heard(write_wav(tmp_path / "a.wav", written))
    assert found.rate == 16_000 and found.seconds == 1.0 and found.damaged is None
    np.testing.assert_array_equal(found.samples, (np.round(written * 32768) / 32768).astype(np.float32))


def test_stereo_is_mixed(tmp_path: Path) -> None:
    left, right = voice(1.0), 0.5 * voice(1.0)[::-1]
    found = heard(write_wav(tmp_path / "a.wav", np.stack([left, right], axis=1)))
    np.testing.assert_allclose(found.samples, (left + right) / 2, atol=1 / 32768)


@pytest.mark.parametrize(("name", "codec"), [("a.avi", "pcm_s16le"), ("a.mkv", "flac"), ("a.mov", "pcm_s16be")])
def test_sound_track_of_a_video(tmp_path: Path, name: str, codec: str) -> None:
    written = voice(1.0, 48_000)
    found = heard(write_video(tmp_path / name, [face_picture()] * 25, 25, written, 48_000, sound_codec=codec))
    assert found.rate == 48_000
    np.testing.assert_allclose(found.samples[:48_000], written, atol=1 / 32768)


def test_spans_are_cut_by_sample_in_one_pass(tmp_path: Path) -> None:
    written = voice(3.0)
    path = write_wav(tmp_path / "a.wav", written)
    whole = heard(path).samples
    spans = [(2.5, None), (0.25, 1.03175), (0.0, 3.0), (1.0, 1.5), (2.9, 4.0)]
    found = dict(listen(path, [Source(path, start, end) for start, end in spans]))
    for number, (start, end) in enumerate(spans):
        part = found[number]
        assert isinstance(part, Heard)
        last = None if end is None else round(end * 16_000)
        np.testing.assert_array_equal(part.samples, whole[round(start * 16_000) : last])


def test_span_after_the_end_has_no_sound(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", voice(1.0))
    [(_, found)] = listen(path, [Source(path, 2.0, 3.0)])
    assert str(found) == "no sound in its time"


def test_a_gap_in_the_time_stamps_is_silence(tmp_path: Path) -> None:
    """A telephone drops packets; what follows is heard at its own time."""
    import av

    written = voice(2.0)
    data = np.round(written * 32768).astype(np.int16)
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as file:
        track = file.add_stream("pcm_s16le", rate=16_000, layout="mono")
        for start in range(0, 32_000, 1600):
            if 8_000 <= start < 16_000:
                continue
            frame = av.AudioFrame.from_ndarray(data[None, start : start + 1600], format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 16_000, start, Fraction(1, 16_000)
            file.mux(track.encode(frame))
        file.mux(track.encode(None))
    expected = data / 32768
    expected[8_000:16_000] = 0
    np.testing.assert_array_equal(heard(path).samples, expected.astype(np.float32))
    np.testing.assert_array_equal(heard(path, 0.25, 1.5).samples, expected[4_000:24_000].astype(np.float32))


def test_what_is_no_utterance_does_not_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datamodules.extraction.media.sound.LONGEST", 1.0)
    path = write_wav(tmp_path / "a.wav", voice(2.0))
    spans = [Source(path), Source(path, 0.5, 1.5), Source(path, 0.5, 1.9), Source(path, 1.2)]
    found = {number: str(each) if isinstance(each, Absent) else each.seconds for number, each in listen(path, spans)}
    assert found == {0: "longer than 1 s", 1: 1.0, 2: "longer than 1 s", 3: 0.8}


@pytest.mark.parametrize("rate", [48_000, 44_100, 8_000, 22_050])
def test_resampling_is_that_of_scipy(rate: int) -> None:
    samples = voice(0.5, rate).astype(np.float32)
    up, down = {48_000: (1, 3), 44_100: (160, 441), 8_000: (2, 1), 22_050: (320, 441)}[rate]
    np.testing.assert_array_equal(resampled(samples, rate, 16_000), resample_poly(samples, up, down))


def test_resampled_tone_keeps_its_pitch() -> None:
    tone = np.sin(2 * np.pi * 440 * np.arange(48_000) / 48_000).astype(np.float32)
    spectrum = np.abs(np.fft.rfft(resampled(tone, 48_000, 16_000)))
    assert spectrum.argmax() == 440 and len(spectrum) == 8001


def test_reasons_of_absence(tmp_path: Path) -> None:
    assert refused(tmp_path / "none.wav") == "no such file"
    assert refused(tmp_path) == "not a file"
    (tmp_path / "empty.wav").touch()
    assert refused(tmp_path / "empty.wav") == "the file is empty"
    (tmp_path / "text.wav").write_text("This is no sound.\n" * 99)
    assert refused(tmp_path / "text.wav") == "cannot be read: Invalid data found when processing input"
    assert refused(write_video(tmp_path / "mute.avi", [face_picture()] * 5)) == "no audio track"


@pytest.mark.parametrize(
    ("samples", "why"),
    [
        (np.zeros(16_000), "silent"),
        (np.full(16_000, 0.9e-4), "silent"),
        (voice(0.0599), "shorter than 60 ms"),
        (np.zeros(0), "shorter than 60 ms"),
    ],
)
def test_unusable_sound(samples: np.ndarray, why: str) -> None:
    with pytest.raises(Absent, match=why):
        usable(samples.astype(np.float32), 16_000)


def test_remarks() -> None:
    fine = voice(1.0).astype(np.float32)
    assert usable(fine, 16_000) == ()
    assert usable(np.clip(20 * fine, -1, 32767 / 32768).astype(np.float32), 16_000) == ("clipped",)
    assert usable(0.005 * fine, 16_000) == ("quiet",)
