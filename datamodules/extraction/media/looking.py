"""The pictures that a visual extractor reads, of the utterances of one video."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from datamodules.extraction.extractor import Absent, Pictures, Reads
from datamodules.extraction.media.detectors import FaceDetector, UInt8Array
from datamodules.extraction.media.faces import FaceTrack, content, middle
from datamodules.extraction.media.pictures import Picture, Shown, check_length, sample
from datamodules.extraction.recordings import Half, Source


@dataclass(frozen=True)
class Seen:
    """What was seen of one utterance.

    Attributes:
        pictures: what the extractor reads; or why there is none.
        seconds: how long its picture is.
        remarks: ``several faces``, ``few faces``.
    """

    pictures: Pictures | Absent
    seconds: float = 0.0
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Wanted:
    """One utterance of a video.

    Attributes:
        utterance: its id.
        span: its time.
        half: the part of the picture that shows the speaker.
    """

    utterance: str
    span: Source
    half: Half


def look(
    film: Iterable[Shown], wanted: Sequence[Wanted], reads: Reads, detector: FaceDetector | None
) -> Iterator[tuple[int, Seen]]:
    """Go through a film once, and once more for utterances with a face in under half of their pictures.

    Args:
        film: what is shown; iterated over once or twice. What it raises comes through.
        wanted: the utterances.
        reads: what the extractor reads.
        detector: finds faces; not used for ``frames``.

    Yields:
        The number of an utterance and what was seen of it, in the order that they end; those that need a second look
        come last.
    """
    if reads.kind == "frames":
        yield from _look_at_all(film, wanted, reads)
        return
    assert detector is not None
    tracks = {number: FaceTrack(detector, one.half, reads.side, reads.grey) for number, one in enumerate(wanted)}
    again: dict[int, FaceTrack] = {}
    for number, time, picture in sample(film, [one.span for one in wanted], reads.fps):
        if picture is not None:
            tracks[number].see(time, picture)
            continue
        track = tracks.pop(number)  # its faces are not kept
        if 2 * len(track.crops) < track.looked_at:
            again[number] = track
        else:
            yield number, _seen(track, wanted[number], time)
    if again:
        yield from _look_again(film, wanted, reads, detector, again)


def _look_again(
    film: Iterable[Shown],
    wanted: Sequence[Wanted],
    reads: Reads,
    detector: FaceDetector,
    first: dict[int, FaceTrack],
) -> Iterator[tuple[int, Seen]]:
    """In larger pictures; what finds more is taken."""
    numbers = [*first]
    tracks = {
        position: FaceTrack(detector, wanted[number].half, reads.side, reads.grey, again=True)
        for position, number in enumerate(numbers)
    }
    for position, time, picture in sample(film, [wanted[number].span for number in numbers], reads.fps):
        if picture is not None:
            tracks[position].see(time, picture)
            continue
        number = numbers[position]
        best = max(first.pop(number), tracks.pop(position), key=lambda track: len(track.crops))
        yield number, _seen(best, wanted[number], time)


def _seen(track: FaceTrack, wanted: Wanted, seconds: float) -> Seen:
    try:
        check_length(wanted.span, seconds)
        if not track.looked_at:
            raise Absent("no frame in its time")
        if not track.crops:
            raise Absent(f"no face in {track.looked_at} frame{'s' if track.looked_at > 1 else ''}")
    except Absent as absent:
        return Seen(absent, seconds)
    remarks = []
    if 10 * track.several >= track.looked_at:
        remarks.append("several faces")
    if 10 * len(track.crops) < track.looked_at:
        remarks.append("few faces")
    pictures = Pictures(wanted.utterance, track.pixels(), np.array(track.times), track.looked_at)
    return Seen(pictures, seconds, tuple(remarks))


@dataclass
class _Frames:
    pixels: list[UInt8Array] = field(default_factory=list)
    times: list[float] = field(default_factory=list)

    def see(self, time: float, picture: Picture, half: Half, reads: Reads) -> None:
        region = content(picture, half)
        if not region.empty:
            self.pixels.append(middle(picture.grey if reads.grey else picture.rgb, region, reads.side))
            self.times.append(time)


def _look_at_all(film: Iterable[Shown], wanted: Sequence[Wanted], reads: Reads) -> Iterator[tuple[int, Seen]]:
    """Whole pictures, without bars, those that are not black."""
    tracks = [_Frames() for _ in wanted]
    looked_at = [0] * len(wanted)
    for number, time, picture in sample(film, [one.span for one in wanted], reads.fps):
        frames, one = tracks[number], wanted[number]
        if picture is not None:
            looked_at[number] += 1
            frames.see(time, picture, one.half, reads)
            continue
        try:
            check_length(one.span, time)
            if not frames.pixels:
                raise Absent("no frame in its time" if not looked_at[number] else "black")
        except Absent as absent:
            yield number, Seen(absent, time)
        else:
            pixels = np.stack(frames.pixels)
            yield number, Seen(Pictures(one.utterance, pixels, np.array(frames.times), looked_at[number]), time)
        tracks[number] = _Frames()
