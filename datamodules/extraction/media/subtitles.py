"""Subtitle files, .srt and .vtt: who speaks when is not in them, but what is said when."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from datamodules.errors import InputError
from datamodules.text import printable

LARGEST = 16 * 2**20
"""Bytes of a subtitle file that is read; those of a film take some 100 kB."""

_TIME = r"(?:(\d{1,3}):)?([0-5]?\d):([0-5]?\d)(?:[,.](\d{1,3}))?"
_TIMES = re.compile(rf"\s*{_TIME}\s*-->\s*{_TIME}(?:\s.*)?", re.DOTALL)
_MARKUP = re.compile(r"</?[A-Za-z][^<>]*>|<\d[\d:.]*>|\{\\[^{}]*\}")
_NO_CUES = ("NOTE", "STYLE", "REGION")


@dataclass(frozen=True)
class Cue:
    """One subtitle.

    Attributes:
        start: seconds from the file's beginning.
        end: seconds, after ``start``.
        text: its words in one line, without markup; not blank.
    """

    start: float
    end: float
    text: str


def read_subtitles(path: Path) -> list[Cue]:
    """Read subtitles, in order of time.

    Cues may overlap, be out of order, lack their numbers or the blank lines between them, and end their seconds in a
    comma or a dot. A cue without words, or that takes no time, is left out. Tags, entities and positions are removed.

    Raises:
        InputError: it is no readable .srt or .vtt file in UTF-8 or UTF-16, times cannot be read or run backwards, or
            there is no cue with words in it.
    """
    shown = printable(path)
    lines = _text(path, shown).splitlines()
    is_vtt = path.suffix.lower() == ".vtt"
    if is_vtt and not (lines and re.match(r"WEBVTT(\s|$)", lines[0])):
        raise InputError(f"{shown}: line 1 is not WEBVTT, so this is no .vtt file; name it .srt if it is one.")
    found = [_cue(*block) for block in (_vtt_blocks(lines, shown) if is_vtt else _srt_blocks(lines, shown))]
    cues = sorted((cue for cue in found if cue.text and cue.end > cue.start), key=lambda cue: (cue.start, cue.end))
    if not cues:
        raise InputError(f"{shown}: no cue with words in it; give another file.")
    return cues


def _text(path: Path, shown: str) -> str:
    if path.suffix.lower() not in (".srt", ".vtt"):
        raise InputError(f"{shown}: subtitles are read from .srt and .vtt; give one of them.")
    if not path.is_file():
        what = "not a file" if path.exists() else "there is no such file"
        raise InputError(f"{shown}: {what}; give a .srt or .vtt file.")
    with path.open("rb") as file:
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise InputError(f"{shown}: more than {LARGEST // 2**20} MB, so no subtitles.")
    encoding = "utf-16" if content.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        # To guess an encoding would be to guess the words.
        raise InputError(f"{shown}: line {line} is not UTF-8; save the file in UTF-8.") from error
    if "\0" in text:
        raise InputError(f"{shown}: has NUL characters, so it is no text; give a .srt or .vtt file.")
    return text


Block = tuple[tuple[float, float], list[str]]


def _srt_blocks(lines: Sequence[str], shown: str) -> list[Block]:
    """Times and lines of words. Words may have blank lines among them; a number before the times is none of them."""
    blocks: list[Block] = []
    numbered = False
    for number, line in enumerate(lines, start=1):
        if "-->" not in line:
            if blocks:
                blocks[-1][1].append(line)
            continue
        before = lines[number - 2].strip() if number > 1 else ""
        numbered = before.isdecimal() if not blocks else numbered
        if blocks and numbered and before.isdecimal():
            blocks[-1][1].pop()
        blocks.append((_times(line, number, shown), []))
    return blocks


def _vtt_blocks(lines: Sequence[str], shown: str) -> list[Block]:
    """Times and lines of words; a blank line ends a cue, a note or a style sheet."""
    blocks: list[Block] = []
    within, skipped, fresh = False, False, False
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            within, skipped, fresh = False, False, True
            continue
        skipped = skipped or (fresh and line.split()[0] in _NO_CUES)
        fresh = False
        if skipped:
            continue
        if "-->" in line:
            blocks.append((_times(line, number, shown), []))
            within = True
        elif within:
            blocks[-1][1].append(line)
    return blocks


def _times(line: str, number: int, shown: str) -> tuple[float, float]:
    found = _TIMES.fullmatch(line)
    if found is None:
        raise InputError(
            f"{shown}: line {number}, {printable(line.strip(), 60)}, has no two times such as 00:01:02,500."
        )
    start, end = _seconds(found.groups()[:4]), _seconds(found.groups()[4:])
    if end < start:
        raise InputError(f"{shown}: line {number}, {printable(line.strip(), 60)}, ends before it starts; correct it.")
    return start, end


def _seconds(parts: Sequence[str | None]) -> float:
    hours, minutes, seconds, fraction = parts
    thousandths = int((fraction or "0").ljust(3, "0"))
    return int(hours or 0) * 3600 + int(minutes or 0) * 60 + int(seconds or 0) + thousandths / 1000


def _cue(times: tuple[float, float], lines: Sequence[str]) -> Cue:
    text = html.unescape(_MARKUP.sub("", " ".join(lines)))
    return Cue(*times, " ".join(text.split()))
