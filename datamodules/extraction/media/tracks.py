"""What a media file has: sound, pictures, and how long it is. Nothing is decoded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from datamodules.errors import InputError
from datamodules.extraction.extractor import Absent
from datamodules.extraction.media.containers import beginning, open_track, seconds_of
from datamodules.text import printable

_KINDS: Mapping[str, Literal["audio", "video"]] = {"audio": "audio", "visual": "video"}


@dataclass(frozen=True)
class Tracks:
    """Tracks of a media file.

    Attributes:
        seconds: how long it is.
        absent: why, by modality (``audio``, ``visual``), of the tracks that it does not have; not of all.
    """

    seconds: float
    absent: Mapping[str, str]


def tracks_of(path: Path) -> Tracks:
    """Open a file and look what it has.

    Raises:
        InputError: it is not there or not media, has neither sound nor pictures, or PyAV is not installed.
    """
    try:
        path.is_file()
    except OSError as error:  # of a name that no file can have
        raise InputError(f"{printable(path)}: {error.strerror}; give a video or sound file.") from error
    absent: dict[str, str] = {}
    seconds = 0.0
    for modality, kind in _KINDS.items():
        try:
            seconds = max(seconds, _seconds(path, kind))
        except Absent as reason:
            absent[modality] = str(reason)
    if len(absent) == len(_KINDS):
        reasons = " and ".join(dict.fromkeys(absent.values()))
        raise InputError(f"{printable(path)}: {reasons}; give a video or sound file.")
    return Tracks(seconds, absent)


def _seconds(path: Path, kind: Literal["audio", "video"]) -> float:
    """Length of a file that has a track of this kind: as its header says, or, as streams have none, its last packet's.

    Raises:
        Absent: it has none.
    """
    import av

    with open_track(path, kind) as (container, track):
        if container.duration:
            return max(0.0, float(container.duration / av.time_base))
        end = 0.0
        try:
            for packet in container.demux(track):
                if packet.pts is not None:
                    end = max(end, seconds_of(packet.pts + (packet.duration or 0), packet.time_base))
        except (av.FFmpegError, ValueError, OSError):
            pass  # cut off: it is as long as what can be read
        return max(0.0, end - beginning(container))
