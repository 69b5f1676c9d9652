from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamodules.errors import InputError
from datamodules.extraction.media.subtitles import LARGEST, Cue, read_subtitles
from datamodules.extraction.media.windows import check_windows, windows

SRT = """1
00:00:01,000 --> 00:00:02,500
You said nothing.

2
00:00:03,000 --> 00:00:04,000
Not a word.
"""
READ = [Cue(1.0, 2.5, "You said nothing."), Cue(3.0, 4.0, "Not a word.")]

VTT = """WEBVTT - a film
Kind: captions

STYLE
::cue { color: --> red }

NOTE this is
no --> cue

opening
00:01.000 --> 00:02.500 align:start position:0%
<v Ada>You <i>said</i> <00:01.500>nothing.</v>

00:00:03.000 --> 00:00:04.000
Not a
word.
"""


def read(folder: Path, content: str | bytes, name: str = "talk.srt") -> list[Cue]:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_subtitles(path)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(SRT, id="plain"),
        pytest.param("\ufeff" + SRT, id="BOM"),
        pytest.param(SRT.replace("\n", "\r\n"), id="CRLF"),
        pytest.param(SRT.replace("\n", "\r"), id="CR"),
        pytest.param(SRT.encode("utf-16"), id="UTF-16"),
        pytest.param(SRT.replace("\n\n", "\n"), id="no blank lines"),
        pytest.param(SRT.replace("1\n", "", 1).replace("2\n00", "00"), id="no numbers"),
        pytest.param(SRT.replace(",", "."), id="dots"),
        pytest.param(SRT.replace("00:00:0", "0:0:"), id="single digits"),
        pytest.param(SRT.replace("00:00:", "00:"), id="no hours"),
        pytest.param(SRT.replace("00:00:04,000", "00:00:04,000  X1:10 X2:20"), id="coordinates"),
        pytest.param(SRT.replace("You said", '<font color="red">You</font> <b>said</b>'), id="tags"),
        pytest.param(SRT.replace("You", "{\\an8}You").replace("Not", "&#78;ot"), id="positions and entities"),
        pytest.param(SRT.replace("said ", "said\n\n"), id="a blank line among words"),
        pytest.param(SRT[SRT.index("2\n00") :] + "\n" + SRT[: SRT.index("2\n00")], id="out of order"),
        pytest.param(SRT + "\n3\n00:00:05,000 --> 00:00:06,000\n<i> </i>\n\n", id="an empty cue"),
        pytest.param(SRT + "\n3\n00:00:05,000 --> 00:00:06,000", id="cut off"),
        pytest.param(SRT + "\n3\n00:00:05,000 --> 00:00:05,000\nNever.", id="no time"),
        pytest.param("\n\n" + SRT.rstrip(), id="blank lines around"),
    ],
)
def test_srt_as_people_have_it(content: str | bytes, tmp_path: Path) -> None:
    assert read(tmp_path, content) == READ


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_vtt(ending: str, tmp_path: Path) -> None:
    assert read(tmp_path, VTT.replace("\n", ending), "talk.VTT") == READ


def test_overlapping_cues_and_numbers_that_are_words(tmp_path: Path) -> None:
    content = "00:00:01,000 --> 00:00:03,000\nHow old?\n42\n\n00:00:02,000 --> 00:00:04,000\n1 < 2 & 3 > 2\n"
    assert read(tmp_path, content) == [Cue(1.0, 3.0, "How old? 42"), Cue(2.0, 4.0, "1 < 2 & 3 > 2")]


@pytest.mark.parametrize(
    ("content", "name", "expected"),
    [
        (SRT, "talk.txt", "talk.txt: subtitles are read from .srt and .vtt"),
        ("", "talk.srt", "no cue with words in it"),
        ("hello\n", "talk.srt", "no cue with words in it"),
        ("1\n00:00:01,000 --> 00:00:02,000\n\n", "talk.srt", "no cue with words in it"),
        (SRT, "talk.vtt", "line 1 is not WEBVTT"),
        ("WEBVTTX\n", "talk.vtt", "line 1 is not WEBVTT"),
        (SRT.replace("00:00:04", "00:00:61"), "talk.srt", "line 6, 00:00:03,000 --> 00:00:61,000, has no two times"),
        (SRT.replace("00:00:04,000", "soon"), "talk.srt", "line 6, 00:00:03,000 --> soon, has no two times"),
        (SRT.replace("00:00:04,000", "-1"), "talk.srt", "has no two times"),
        (SRT.replace("00:00:04", "00:00:02"), "talk.srt", "line 6, 00:00:03,000 --> 00:00:02,000, ends before it star"),
        ("\x1b[2J-->\n", "talk.srt", r"line 1, \x1b[2J-->, has no two times"),
        (SRT.replace("You", "Où").encode("latin-1"), "talk.srt", "line 3 is not UTF-8; save the file in UTF-8"),
        (SRT.encode() + b"\xff\xfe", "talk.srt", "line 8 is not UTF-8"),
        (SRT.encode("utf-16") + b"\x00", "talk.srt", "is not UTF-8"),
        (SRT.replace("You", "Y\0u"), "talk.srt", "has NUL characters"),
        (b" " * (LARGEST + 1), "talk.srt", "more than 16 MB"),
    ],
)
def test_refused_in_one_line(content: str | bytes, name: str, expected: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as refused:
        read(tmp_path, content, name)
    assert expected in str(refused.value)
    assert str(refused.value).isprintable()


def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such file"):
        read_subtitles(tmp_path / "none.srt")
    (tmp_path / "folder.srt").mkdir()
    with pytest.raises(InputError, match="not a file"):
        read_subtitles(tmp_path / "folder.srt")


def naive_windows(duration: float, window: float, hop: float) -> list[tuple[float, float]]:
    """Every window that starts within the recording, up to the first that reaches its end."""
    found: list[tuple[float, float]] = []
    for number in range(int(duration / hop) + 2):
        start = number * hop
        if not found or duration - start >= 0.1 - 1e-6:
            found.append((start, min(start + window, duration)))
        if duration - found[-1][1] < 0.1 - 1e-6:
            break
    return found


@given(st.floats(0.05, 40), st.floats(0.1, 30), st.floats(0.1, 30))
def test_windows(duration: float, window: float, hop: float) -> None:
    assert list(windows(duration, window, hop)) == naive_windows(duration, window, hop)


def test_windows_of_a_tenth_of_a_second_have_no_rest() -> None:
    assert len(list(windows(5.0, 0.1, 0.1))) == 50


@pytest.mark.parametrize(
    ("window", "hop", "expected"),
    [
        (0.0, 1.0, "window 0: give seconds from 0.1 to 30"),
        (-5.0, 1.0, "window -5"),
        (31.0, 1.0, "window 31"),
        (float("nan"), 1.0, "window nan"),
        (5.0, 0.0, "hop 0: give at least 0.1 seconds"),
        (5.0, float("inf"), "hop inf"),
        (5.0, float("nan"), "hop nan"),
    ],
)
def test_windows_that_cannot_be(window: float, hop: float, expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        check_windows(window, hop)


def test_a_hop_above_the_window_leaves_gaps() -> None:
    check_windows(2.0, 5.0)
    assert list(windows(11.0, 2.0, 5.0)) == [(0.0, 2.0), (5.0, 7.0), (10.0, 11.0)]
