"""Which face is followed, where it is looked for, and what is cut out."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import zoom

from datamodules.extraction.extractor import Absent, Pictures, Reads
from datamodules.extraction.media.detectors import Face, FaceDetector, HogDetector
from datamodules.extraction.media.faces import FaceTrack, Region, content, cut
from datamodules.extraction.media.looking import Seen, Wanted, look
from datamodules.extraction.media.pictures import Frames, Picture
from datamodules.extraction.recordings import Half, Source
from tests.datamodules.extraction.media_files import Array, face_picture


class Told:
    """A detector that finds what it is told, one answer a call, and keeps the sizes of what it is shown."""

    name, grey = "told", True

    def __init__(self, *answers: Sequence[Face]) -> None:
        self.answers, self.shapes = list(answers), []  # type: ignore[var-annotated]

    def __call__(self, picture: Array) -> Sequence[Face]:
        self.shapes.append(picture.shape)
        return self.answers.pop(0) if self.answers else []

    def recipe(self) -> dict[str, Any]:
        return {}


def face(column: float, row: float, score: float = 1.0, size: float = 40) -> Face:
    return Face(column - size / 2, row - size / 2, size, size, score)


def lit(height: int = 360, width: int = 540) -> Array:
    """A picture without bars whose colours tell the place."""
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([columns * 200 // width + 30, rows * 200 // height + 30, rows * 0 + 90], axis=2).astype(np.uint8)


def see(pictures: Sequence[Array], detector: FaceDetector, half: Half = "whole", fps: float = 10) -> Seen:
    wanted = [Wanted("u", Source(__file__, 0.0, None), half)]  # type: ignore[arg-type]
    [(_, seen)] = look(Frames(pictures, fps), wanted, Reads("faces", side=32), detector)
    return seen


def test_detectors_keep_their_contract() -> None:
    assert isinstance(HogDetector(), FaceDetector) and isinstance(Told(), FaceDetector)


def test_face_of_a_photograph_is_found_where_it_is() -> None:
    picture = Picture(face_picture(240, 320, 90, 140))
    [found] = HogDetector()(picture.grey)
    assert 120 < found.center[0] < 200 and 90 < found.center[1] < 170 and 60 < found.width < 140
    assert HogDetector(threshold=100.0)(picture.grey) == []


def test_the_best_face_is_taken_first_then_the_nearest() -> None:
    detector = Told(
        [face(50, 50, 0.5), face(250, 100, 0.9)],
        [face(52, 50, 3.0), face(220, 100, 0.1)],
        [],
        [face(60, 50, 3.0), face(180, 110, 0.1)],
    )
    track = FaceTrack(detector, "whole", 8, grey=False)
    for number in range(4):
        track.see(number / 10, Picture(lit()))
    columns = [crop[4, 4, 0] for crop in track.crops]  # redness grows with the column
    np.testing.assert_allclose(columns, np.array([250, 220, 180]) * 200 // 540 + 30, atol=3)
    assert track.times == [0.0, 0.1, 0.3] and track.looked_at == 4 and track.several == 3


@pytest.mark.parametrize(("half", "columns"), [("whole", (0, 301)), ("left", (0, 150)), ("right", (150, 301))])
def test_half_of_a_picture(half: Half, columns: tuple[int, int]) -> None:
    assert content(Picture(lit(200, 301)), half) == Region(0, 200, *columns)


def test_black_bars_are_cut() -> None:
    picture = np.zeros((200, 300, 3), np.uint8)
    picture[30:170, 40:280] = lit(140, 240)
    picture[:30] = 5  # not quite black
    assert content(Picture(picture), "whole") == Region(30, 170, 40, 280)
    assert content(Picture(picture), "right") == Region(30, 170, 150, 280)
    assert content(Picture(np.zeros((20, 30, 3), np.uint8)), "left").empty


def test_boxes_are_those_of_the_whole_picture() -> None:
    picture = np.zeros((800, 600, 3), np.uint8)
    picture[40:760] = lit(720, 600)
    detector = Told([face(75, 180)])  # in a picture of half the size
    track = FaceTrack(detector, "right", 8, grey=False)
    track.see(0.0, Picture(picture))
    assert detector.shapes == [(360, 150)]
    red, green, _ = track.crops[0][4, 4]
    assert abs(int(red) - (450 * 200 // 600 + 30)) < 4 and abs(int(green) - (360 * 200 // 720 + 30)) < 4


def test_cut_is_a_square_around_the_box() -> None:
    pixels = lit(400, 600)
    whole = Region(0, 400, 0, 600)
    found = cut(pixels, whole, face(300, 200, size=100), 115)
    np.testing.assert_array_equal(found, pixels[142:257, 242:357])
    halved = cut(pixels, whole, face(300, 200, size=200), 115)
    expected = zoom(pixels[85:315, 185:415].astype(float), (0.5, 0.5, 1), order=1, grid_mode=True, mode="nearest")
    assert np.abs(halved - expected).max() < 2


def test_cut_repeats_the_edge_of_the_speakers_half() -> None:
    pixels = np.concatenate([lit(100, 100), np.full((100, 100, 3), 255, np.uint8)], axis=1)
    found = cut(pixels, Region(0, 100, 0, 100), face(90, 50, size=40), 46)
    assert found.shape == (46, 46, 3) and found.max() < 255
    np.testing.assert_array_equal(found[:, -12:], np.repeat(found[:, 32:33], 12, axis=1))


def test_under_half_is_looked_at_again_in_large() -> None:
    pictures, here = [lit(180, 240)] * 5, [face(100, 80)]
    detector = Told(here, here, [], [], [], here, here, here, here, [])
    seen = see(pictures, detector)
    assert detector.shapes == [(360, 480)] * 5 + [(720, 960)] * 5
    assert isinstance(seen.pictures, Pictures)
    np.testing.assert_allclose(seen.pictures.times, [0.0, 0.1, 0.2, 0.3])
    assert seen.pictures.looked_at == 5


def test_second_look_that_finds_less_is_not_taken() -> None:
    pictures, here = [lit()] * 5, [face(100, 80)]
    seen = see(pictures, Told(here, here, [], [], [], here))
    assert isinstance(seen.pictures, Pictures) and len(seen.pictures.times) == 2


def test_half_found_is_enough() -> None:
    detector = Told([face(100, 80)], [], [face(100, 80)], [])
    see([lit()] * 4, detector)
    assert len(detector.shapes) == 4


def test_remarks() -> None:
    one, two = [face(100, 80)], [face(100, 80), face(200, 80)]
    assert see([lit()] * 10, Told(*[one] * 10)).remarks == ()
    assert see([lit()] * 10, Told(*[one] * 9, two)).remarks == ("several faces",)
    assert see([lit()] * 11, Told(*[one] * 10, two)).remarks == ()
    assert see([lit()] * 11, Told(one)).remarks == ("few faces",)


def test_nobody_is_a_reason() -> None:
    assert str(see([lit()] * 42, Told()).pictures) == "no face in 42 frames"
    assert str(see([lit()], Told()).pictures) == "no face in 1 frame"
    assert str(see([], Told()).pictures) == "no frame in its time"
    assert str(see([np.zeros((90, 90, 3), np.uint8)] * 3, HogDetector()).pictures) == "no face in 3 frames"


def test_longest_utterance() -> None:
    class Long(Frames):
        def __iter__(self):  # type: ignore[no-untyped-def]
            for number in range(7000):
                yield from Frames([lit(8, 8)], 10) if not number else self._later(number)

        def _later(self, number: int):  # type: ignore[no-untyped-def]
            [shown] = Frames([lit(8, 8)], 10)
            yield type(shown)(shown.picture, number / 10, (number + 1) / 10)

    wanted = [Wanted("u", Source(__file__), "whole")]  # type: ignore[arg-type]
    [(_, seen)] = look(Long([], 10), wanted, Reads("frames", side=4), None)
    assert isinstance(seen.pictures, Absent) and str(seen.pictures) == "longer than 600 s"


def test_frames_are_whole_pictures_without_bars() -> None:
    picture = np.zeros((120, 300, 3), np.uint8)
    picture[10:110] = lit(100, 300)
    wanted = [Wanted("u", Source(__file__), "left")]  # type: ignore[arg-type]
    [(_, seen)] = look(Frames([picture] * 4, 10), wanted, Reads("frames", side=100), None)
    assert isinstance(seen.pictures, Pictures) and seen.pictures.looked_at == 4
    np.testing.assert_array_equal(seen.pictures.pixels, np.stack([picture[10:110, 25:125]] * 4))
    [(_, seen)] = look(Frames([0 * picture] * 4, 10), wanted, Reads("frames", side=100), None)
    assert str(seen.pictures) == "black"
