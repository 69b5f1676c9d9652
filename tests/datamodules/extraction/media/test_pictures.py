"""Pictures against those that were written, and sampling against a loop over all of them."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from datamodules.extraction.extractor import Absent
from datamodules.extraction.media.pictures import Film, Frames, Picture, Shown, sample
from datamodules.extraction.recordings import Source
from tests.datamodules.extraction.media_files import Array, face_picture, voice, write_video


def numbered(count: int) -> list[Array]:
    """Pictures with their number in stripes, a bit each."""
    bits = np.arange(count)[:, None] >> np.arange(8) & 1
    stripes = np.repeat(60 + 150 * bits, 6, axis=1).astype(np.uint8)
    return [np.broadcast_to(each[None, :, None], (32, 48, 3)) for each in stripes]


def number_of(picture: Picture) -> int:
    return int(sum(1 << bit for bit in range(8) if picture.grey[16, 6 * bit + 3] > 135))


def sampled(film: Film | Frames | list[Shown], *spans: tuple[float, float | None]) -> list[list[tuple[float, int]]]:
    """Time and number of the pictures of each span."""
    found: list[list[tuple[float, int]]] = [[] for _ in spans]
    ended = []
    for number, time, picture in sample(film, [Source(Path(), *span) for span in spans], 10):
        if picture is None:
            ended.append(number)
        else:
            assert number not in ended
            found[number].append((round(time, 6), number_of(picture)))
    assert sorted(ended) == list(range(len(spans)))
    return found


def greys(film: Film, span: Source) -> list[tuple[float, Array]]:
    """Times and pictures of one span."""
    return [
        (round(time, 6), picture.grey.copy()) for _, time, picture in sample(film, [span], 10) if picture is not None
    ]


def naive(times: list[float], start: float, end: float) -> list[tuple[float, int]]:
    """The picture that is shown every tenth of a second, looked for among all."""
    found: list[tuple[float, int]] = []
    for step in range(10_000):
        now = start + step / 10
        if now >= end - 6e-4:
            return found
        shown = [number for number, time in enumerate(times) if time <= now + 6e-4]
        if shown and now - times[shown[-1]] < 1 and now < times[-1] + 0.04:
            found.append((round(step / 10, 6), shown[-1]))
    return found


@pytest.mark.parametrize("fps", [Fraction(25), Fraction(30000, 1001), Fraction(60), Fraction(12), Fraction(5)])
def test_sampling_is_a_loop_over_all_pictures(tmp_path: Path, fps: Fraction) -> None:
    path = write_video(tmp_path / "a.avi", numbered(90), fps, codec="ffv1")
    times = [number / float(fps) for number in range(90)]
    spans = [(0.0, 0.75), (0.25, 1.03175), (0.25, 0.9), (1.2, 1.25), (0.7, 1.4)]
    for (start, end), found in zip(spans, sampled(Film(path), *spans), strict=True):
        assert found == naive(times, start, end)


def test_variable_frame_rate_is_sampled_by_time(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    steps = rng.choice([0.008, 0.033, 0.1, 0.31, 0.9], size=60)
    times = [0.0, *np.round(np.cumsum(steps), 3).tolist()]
    path = write_video(tmp_path / "a.mkv", numbered(61), 30, codec="ffv1", times=times)
    spans = [(0.0, 3.0), (1.05, 8.0), (0.5, 0.55)]
    for (start, end), found in zip(spans, sampled(Film(path), *spans), strict=True):
        assert found == naive(times, start, end)


def test_a_file_that_begins_late_counts_from_its_beginning(tmp_path: Path) -> None:
    times = [5 + number / 25 for number in range(50)]
    path = write_video(tmp_path / "a.mkv", numbered(50), 25, codec="ffv1", times=times)
    assert sampled(Film(path), (0.0, 0.3)) == [[(0.0, 0), (0.1, 2), (0.2, 5)]]


def test_picture_that_begins_after_the_sound(tmp_path: Path) -> None:
    times = [0.45 + number / 25 for number in range(25)]
    path = write_video(tmp_path / "a.mkv", numbered(25), 25, voice(2.0), codec="ffv1", times=times)
    [found] = sampled(Film(path), (0.0, 0.7))
    assert found == [(0.4, 0), (0.5, 1), (0.6, 3)]  # at 0.4 s the first is not shown yet, but is within 0.1 s


def test_span_of_a_video_is_the_clip_cut_out(tmp_path: Path) -> None:
    pictures = [np.roll(face_picture(), 3 * number, axis=1) for number in range(75)]
    whole = write_video(tmp_path / "whole.mkv", pictures, 25, codec="ffv1")
    clip = write_video(tmp_path / "clip.mkv", pictures[20:60], 25, codec="ffv1")
    first = greys(Film(whole), Source(whole, 0.8, 2.4))
    second = greys(Film(clip), Source(clip))
    assert len(first) == len(second) == 16
    for (time, grey), (other_time, other_grey) in zip(first, second, strict=True):
        assert time == other_time
        np.testing.assert_array_equal(grey, other_grey)


def test_nothing_is_decoded_after_the_last_span() -> None:
    reached = []

    class Counting(Frames):
        def __iter__(self):  # type: ignore[no-untyped-def]
            for number in range(10**9):
                reached.append(number)
                yield Shown(Picture(numbered(1)[0]), number / 25, (number + 1) / 25)

    sampled(Counting([], 25), (0.5, 1.0))
    assert len(reached) <= 26


def test_grey_of_a_frame_is_that_of_its_colours(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", [face_picture()], 25, codec="ffv1")
    picture = next(iter(Film(path))).picture
    expected = picture.rgb.astype(float) @ [0.299, 0.587, 0.114]
    assert np.abs(picture.grey - expected).mean() < 1.5
    assert np.abs(Picture(face_picture()).grey - face_picture().astype(float) @ [0.299, 0.587, 0.114]).max() < 0.51


@pytest.mark.parametrize(
    ("name", "codec", "pixels"),
    [
        ("a.h264", "libx264", "yuv420p"),  # has no container
        ("a.avi", "rawvideo", "bgr24"),  # is stored bottom up
        ("a.mp4", "libx264", "yuv420p10le"),
        ("b.mkv", "ffv1", "yuv444p10le"),
        ("c.mkv", "ffv1", "gray"),
        ("d.mkv", "mjpeg", "yuvj422p"),
    ],
)
def test_kinds_of_pictures(tmp_path: Path, name: str, codec: str, pixels: str) -> None:
    written = face_picture(230, 318)  # rows are padded in memory
    path = write_video(tmp_path / name, [written] * 25, 25, codec=codec, pixels=pixels)
    found = [picture for _, _, picture in sample(Film(path), [Source(path)], 10) if picture is not None]
    assert len(found) == 10
    assert np.abs(found[5].grey - written.astype(float) @ [0.299, 0.587, 0.114]).mean() < 3
    assert np.abs(found[5].rgb.astype(float) - (written if pixels != "gray" else found[5].grey[:, :, None])).mean() < 4


@pytest.mark.parametrize(("quarters", "matrix"), [(1, (0, 1, -1, 0)), (2, (-1, 0, 0, -1)), (3, (0, -1, 1, 0))])
def test_rotation_flag_is_followed(tmp_path: Path, quarters: int, matrix: tuple[int, int, int, int]) -> None:
    upright = face_picture(120, 160, 10, 100)
    stored = np.rot90(upright, quarters)  # to be turned clockwise by as many quarters
    path = write_video(tmp_path / "a.mp4", [stored] * 3)
    plain = next(iter(Film(path))).picture.grey
    data = bytearray(path.read_bytes())
    place = data.index(b"tkhd") + 4 + 40
    a, b, c, d = matrix
    for offset, value in ((0, a), (4, b), (12, c), (16, d)):
        data[place + offset : place + offset + 4] = (value * 65536).to_bytes(4, "big", signed=True)
    path.write_bytes(data)
    picture = next(iter(Film(path))).picture
    assert picture.grey.shape == (120, 160) and picture.rgb.shape == (120, 160, 3)
    np.testing.assert_array_equal(picture.grey, np.rot90(plain, -quarters))
    assert np.abs(picture.grey - upright.astype(float) @ [0.299, 0.587, 0.114]).mean() < 6


def test_reasons_of_absence(tmp_path: Path) -> None:
    from tests.datamodules.extraction.media_files import write_wav

    for path, why in [
        (tmp_path / "none.avi", "no such file"),
        (tmp_path, "not a file"),
        (write_wav(tmp_path / "a.wav", voice(0.5)), "no video track"),
    ]:
        with pytest.raises(Absent, match=why):
            list(Film(path))


def test_cover_of_a_sound_file_is_no_video(tmp_path: Path) -> None:
    import av

    path = tmp_path / "a.mp3"
    with av.open(str(path), "w") as file:
        track = file.add_stream("libmp3lame", rate=16_000, layout="mono")
        cover = file.add_stream("png")
        cover.width, cover.height = 48, 32
        cover.pix_fmt = "rgb24"
        cover.disposition = av.stream.Disposition.attached_pic.value  # type: ignore[assignment]
        file.mux(cover.encode(av.VideoFrame.from_ndarray(numbered(1)[0], format="rgb24")))
        samples = np.zeros((1, 16_000), np.int16)
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        frame.sample_rate = 16_000
        resampler = av.AudioResampler("s16p", "mono", 16_000, track.codec_context.frame_size)
        for part in resampler.resample(frame):
            file.mux(track.encode(part))
        file.mux(track.encode(None))
    with pytest.raises(Absent, match="no video track"):
        list(Film(path))
