"""What is planted in invented corpora must be found absent, and nothing else; one's own bad files otherwise."""

import json
import os
import socket
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from datamodules.extraction.extractor import Extracted, Reads
from datamodules.extraction.index import index_of
from datamodules.extraction.media.detectors import HogDetector
from datamodules.extraction.pipeline import Pipeline
from datamodules.extraction.recordings import Recording, Source
from tests.datamodules.extraction.media_files import Array, face_picture, voice, write_video, write_wav
from tests.datamodules.extraction.test_pipeline import Corner, Recorder, recorders

REASONS = {
    "IEMOCAP": {
        ("audio", "silent"),
        ("text", "no transcript"),
        ("visual", "cannot be read: Invalid data found when processing input"),
    },
    "MSPIMPROV": {("audio", "silent"), ("text", "no transcript")},
    "clips": {
        ("audio", "no audio track"),
        ("audio", "no media"),
        ("visual", "no video track"),
        ("visual", "no media"),
        ("text", "no transcript"),
    },
}
NO_FACE = {"IEMOCAP", "MSPIMPROV"}
FOLDERS = {"IEMOCAP": "IEMOCAP_full_release", "MSPIMPROV": "MSP-IMPROV", "clips": "clips"}


def extracted(*recordings: Recording) -> dict[str, Extracted]:
    return {each.utterance: each for each in Pipeline(recorders(), HogDetector()).extract(recordings)}


@pytest.mark.parametrize("corpus", ["IEMOCAP", "MSPIMPROV", "clips"])
def test_exactly_what_was_planted_is_absent(raw_corpora: Path, corpus: str) -> None:
    root = raw_corpora / FOLDERS[corpus]
    truth = json.loads((raw_corpora / f"{FOLDERS[corpus]}.truth.json").read_text())
    planted = {turn["name"]: set(turn["absent"]) for turn in truth["utterances"]}
    recordings = index_of(corpus, root).recordings
    assert len(recordings) == truth["in_four_classes"] > 10
    found = extracted(*recordings)
    assert {name: set(each.absent) for name, each in found.items()} == {name: planted[name] for name in found}
    reasons = {(modality, why) for each in found.values() for modality, why in each.absent.items()}
    faceless = {(modality, why) for modality, why in reasons if why.startswith("no face in ")}
    assert reasons - faceless == REASONS[corpus]
    assert bool(faceless) == (corpus in NO_FACE)
    assert all(set(each.features) | set(each.absent) == {"audio", "visual", "text"} for each in found.values())


def test_the_speakers_half_was_read(raw_corpora: Path) -> None:
    root = raw_corpora / FOLDERS["IEMOCAP"]
    turns = json.loads((raw_corpora / "IEMOCAP_full_release.truth.json").read_text())["utterances"]
    truth = {turn["name"]: turn["half"] for turn in turns}
    visual = Recorder("visual", Reads("faces", side=8))
    recordings = index_of("IEMOCAP", root).recordings
    found = list(Pipeline({"visual": visual}, Corner()).extract(recordings))
    assert sum("visual" in each.features for each in found) == len(visual.given) > 60
    seen: Counter[str] = Counter()
    for pictures in visual.given:
        red, _, blue = pictures.pixels.mean(axis=(0, 1, 2))  # the wall: bluish on the left, reddish on the right
        half = "left" if blue > red + 20 else "right" if red > blue + 20 else "?"
        assert half == truth[pictures.utterance]
        seen[half] += 1
    assert min(seen["left"], seen["right"]) > 20


def test_other_people_in_the_other_half_are_not_followed(raw_corpora: Path) -> None:
    """Someone sits in both halves all the time: of two faces none is counted."""
    recordings = index_of("IEMOCAP", raw_corpora / FOLDERS["IEMOCAP"]).recordings[:6]
    assert not any("several faces" in each.remarks for each in extracted(*recordings).values())


@pytest.fixture(scope="module")
def lively() -> list[Array]:
    return [np.roll(face_picture(), 2 * number, axis=1) for number in range(75)]


def test_damaged_in_the_middle(tmp_path: Path, lively: list[Array]) -> None:
    path = write_video(tmp_path / "a.avi", lively, 25, voice(3.0))
    data = path.read_bytes()
    (tmp_path / "b.avi").write_bytes(data[: len(data) * 6 // 10])
    path = tmp_path / "b.avi"
    found = extracted(
        *[
            Recording(f"u{second}", Source(path, second, second + 0.9), Source(path, second, second + 0.9))
            for second in (0, 1, 2)
        ]
    )
    assert set(found["u0"].features) == {"audio", "visual"} and found["u0"].absent == {"text": "no transcript"}
    assert found["u2"].absent == {
        "audio": "no sound in its time",
        "visual": "no frame in its time",
        "text": "no transcript",
    }


def test_decoder_that_fails_keeps_what_came_before(
    tmp_path: Path, lively: list[Array], monkeypatch: pytest.MonkeyPatch
) -> None:
    import av

    path = write_video(tmp_path / "a.mkv", lively, 25, voice(3.0), codec="ffv1")
    opened = av.open

    class Failing:
        def __init__(self, container) -> None:  # type: ignore[no-untyped-def]
            self.container = container

        def __getattr__(self, name):  # type: ignore[no-untyped-def]
            return getattr(self.container, name)

        def __enter__(self):  # type: ignore[no-untyped-def]
            return self

        def __exit__(self, *error: object) -> None:
            self.container.close()

        def decode(self, track):  # type: ignore[no-untyped-def]
            for frame in self.container.decode(track):
                if frame.time >= 1.5:
                    raise av.error.InvalidDataError(1, "bad packet")
                yield frame

    monkeypatch.setattr(av, "open", lambda *words, **options: Failing(opened(*words, **options)))
    spans = {"before": (0.0, 1.0), "cut": (1.0, 2.0), "after": (2.0, 3.0)}
    found = extracted(*[Recording(name, Source(path, *span), Source(path, *span)) for name, span in spans.items()])
    assert found["before"].remarks == () and set(found["before"].features) == {"audio", "visual"}
    assert found["cut"].remarks == (
        "sound damaged",
        "picture damaged",
    )
    assert set(found["cut"].features) == {"audio", "visual"}
    assert found["after"].absent["visual"] == "no frame in its time"
    assert found["after"].absent["audio"] == "cannot be read: bad packet"


def test_sound_that_cannot_be_used(tmp_path: Path) -> None:
    files = {
        "silent": np.zeros(16_000),
        "short": voice(0.05),
        "clipped": np.clip(voice(1.0) * 20, -1, 1),
        "quiet": voice(1.0) * 0.005,
    }
    found = extracted(
        *[Recording(name, Source(write_wav(tmp_path / f"{name}.wav", each))) for name, each in files.items()]
    )
    assert found["silent"].absent["audio"] == "silent" and found["short"].absent["audio"] == "shorter than 60 ms"
    assert found["clipped"].remarks == ("clipped",) and found["quiet"].remarks == ("quiet",)
    assert "audio" in found["clipped"].features and "audio" in found["quiet"].features


def test_one_track_is_used_where_the_other_is_missing(tmp_path: Path, lively: list[Array]) -> None:
    mute = write_video(tmp_path / "mute.mp4", lively[:25])
    sound = write_wav(tmp_path / "a.wav", voice(1.0))
    found = extracted(Recording("mute", Source(mute), Source(mute)), Recording("blind", Source(sound), Source(sound)))
    assert found["mute"].absent == {"audio": "no audio track", "text": "no transcript"}
    assert found["blind"].absent == {"visual": "no video track", "text": "no transcript"}


@pytest.mark.parametrize("kind", ["pipe", "folder", "unreadable", "text", "image", "noise"])
def test_what_is_no_recording(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.mp4"
    if kind == "pipe":
        os.mkfifo(path)  # opening it would wait for ever
    elif kind == "folder":
        path.mkdir()
    elif kind == "text":
        path.write_text("Good morning.\n" * 50)
    elif kind == "noise":
        path.write_bytes(np.random.default_rng(0).bytes(50_000))
    elif kind == "image":
        from PIL import Image

        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path, "png")
    else:
        path.write_bytes(b"x")
        path.chmod(0)
        if os.access(path, os.R_OK):
            pytest.skip("this user may read everything")
    [found] = extracted(Recording("u", Source(path), Source(path))).values()
    assert set(found.absent) == {"audio", "visual", "text"}


def test_a_playlist_reaches_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        path = tmp_path / "a.mp4"
        address = f"http://127.0.0.1:{server.getsockname()[1]}/a.ts"
        path.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4.0,\n{address}\n#EXT-X-ENDLIST\n")
        [found] = extracted(Recording("u", Source(path), Source(path))).values()
        assert set(found.absent) == {"audio", "visual", "text"}
        with pytest.raises(BlockingIOError):
            server.accept()


def test_names_of_files_are_no_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    name = "http:clip%03d ü.wav"
    write_wav(tmp_path / name, voice(0.5))
    [found] = extracted(Recording("u", Source(Path(name)))).values()
    assert "audio" in found.features


def test_absurd_rates_are_refused(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", voice(0.5))
    data = bytearray(path.read_bytes())
    data[24:28] = (2_000_000_000).to_bytes(4, "little")
    path.write_bytes(data)
    [found] = extracted(Recording("u", Source(path))).values()
    assert found.absent["audio"] == "cannot be read: its sound has 2000000000 samples a second"
