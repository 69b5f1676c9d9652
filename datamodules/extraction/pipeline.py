"""From recordings to features, one group at a time."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.conditions import MODALITIES
from datamodules.errors import InputError
from datamodules.extraction.dependencies import require
from datamodules.extraction.extractor import Absent, Extracted, Extractor, FloatArray, Sound, Words
from datamodules.extraction.extractors.registry import build, build_detector
from datamodules.extraction.media.detectors import FaceDetector, UInt8Array
from datamodules.extraction.media.looking import Seen, Wanted, look
from datamodules.extraction.media.pictures import Film, Frames
from datamodules.extraction.media.sound import Heard, listen, resampled, usable
from datamodules.extraction.recipes import ExtractionRecipe
from datamodules.extraction.recordings import Recording, Source
from datamodules.text import printable

_LENGTHS_DIFFER = 0.5
"""Seconds that sound and picture of one utterance may differ by."""


@dataclass(frozen=True)
class _Part:
    """What came of one modality.

    Attributes:
        features: [T, D]; None where it is absent.
        absent: why.
        seconds: how long it is; 0 if that is not known.
        remarks: of it.
    """

    features: FloatArray | None = None
    absent: str = ""
    seconds: float = 0.0
    remarks: tuple[str, ...] = ()


class Pipeline:
    """Turns recordings into features; a modality that is not there gives none.

    Args:
        extractors: by modality; other modalities are left out.
        detector: finds faces; needed by an extractor that reads faces.

    Raises:
        InputError: an extractor reads faces and there is no detector.
    """

    def __init__(self, extractors: Mapping[str, Extractor], detector: FaceDetector | None = None) -> None:
        self.extractors = dict(extractors)
        self.detector = detector
        visual = self.extractors.get("visual")
        if visual is not None and visual.reads.kind == "faces" and detector is None:
            raise InputError(f"extractor {visual.name} reads faces: name a face detector.")

    @classmethod
    def from_recipe(
        cls,
        recipe: ExtractionRecipe,
        device: str = "cpu",
        batch: int = 16,
        download: bool = False,
        only: Collection[str] = MODALITIES,
    ) -> Pipeline:
        """Make the extractors of a recipe.

        Args:
            recipe: which.
            device: where networks run.
            batch: how many pieces a network takes at once; changes no value.
            download: fetch weights of a hub that are not on this machine.
            only: modalities to extract.

        Raises:
            InputError: an extractor is not installed, or an option is wrong.
        """
        wanted = {modality: choice for modality, choice in recipe.choices.items() if modality in only}
        extractors = {modality: build(choice, modality, device, batch, download) for modality, choice in wanted.items()}
        if any(extractor.reads.kind in ("sound", "faces", "frames") for extractor in extractors.values()):
            require("av")
        faces = "visual" in extractors and extractors["visual"].reads.kind == "faces"
        return cls(extractors, build_detector(recipe.detector, device, batch) if faces else None)

    def only(self, modalities: Collection[str]) -> Pipeline:
        """The same for some of the modalities."""
        return Pipeline({name: each for name, each in self.extractors.items() if name in modalities}, self.detector)

    def extract(self, recordings: Sequence[Recording]) -> Iterator[Extracted]:
        """Extract all modalities of each recording.

        A file that several of them share is decoded once, forward, so give those of one video together.

        Returns:
            One result for each, in the order that their pictures end.

        Raises:
            InputError: an extractor failed, or gave what is no features; the message names the utterance.
        """
        sounds = self._sounds(recordings)
        heard: dict[str, _Part] = {}
        for recording, picture in self._pictures(recordings):
            while recording.utterance not in heard:
                earlier, part = next(sounds)
                heard[earlier.utterance] = part
            yield self._result(recording, heard.pop(recording.utterance), picture)

    def extract_one(
        self,
        recording: Recording,
        samples: tuple[FloatArray, int] | None = None,
        frames: tuple[Sequence[UInt8Array], float] | None = None,
    ) -> Extracted:
        """Extract one recording whose sound or picture may be in memory.

        Args:
            recording: its words, its half of the picture, and the sources of what is not given here.
            samples: float32 [n] or [n, channels] in -1..1, and hertz.
            frames: uint8 [H, W, 3] each, in RGB, and how many are shown a second.

        Raises:
            InputError: as :meth:`extract`.
        """
        if samples is None:
            sound = next(self._sounds([recording]))[1]
        else:
            values, rate = samples
            mixed = values if values.ndim == 1 else values.mean(axis=1, dtype=np.float64)
            sound = self._audio(recording, Heard(mixed.astype(np.float32), rate))
        if frames is None:
            picture = next(self._pictures([recording]))[1]
        else:
            picture = next(self._watch(Frames(*frames), [recording], [Source(Path())]))[1]
        return self._result(recording, sound, picture)

    def _result(self, recording: Recording, sound: _Part, picture: _Part) -> Extracted:
        parts = {"audio": sound, "visual": picture, "text": self._words(recording)}
        parts = {modality: part for modality, part in parts.items() if modality in self.extractors}
        remarks = [*sound.remarks, *picture.remarks]
        if sound.seconds and picture.seconds and abs(sound.seconds - picture.seconds) > _LENGTHS_DIFFER:
            remarks.append("lengths differ")
        return Extracted(
            recording.utterance,
            {modality: part.features for modality, part in parts.items() if part.features is not None},
            {modality: part.absent for modality, part in parts.items() if part.features is None},
            max(sound.seconds, picture.seconds),
            tuple(remarks),
        )

    def _sounds(self, recordings: Sequence[Recording]) -> Iterator[tuple[Recording, _Part]]:
        """In the order that they end, file by file."""
        for path, those, sources in _by_file(recordings, [recording.sound for recording in recordings]):
            if path is None or self._reads("audio") != "sound":
                for recording in those:
                    yield recording, self._without_media(recording, "audio", "no sound")
                continue
            for number, heard in listen(path, sources):
                yield those[number], self._audio(those[number], heard)

    def _audio(self, recording: Recording, heard: Heard | Absent) -> _Part:
        if self._reads("audio") != "sound":
            return self._without_media(recording, "audio", "no sound")
        if isinstance(heard, Absent):
            return _Part(absent=str(heard))
        try:
            remarks = usable(heard.samples, heard.rate)
        except Absent as absent:
            return _Part(absent=str(absent), seconds=heard.seconds)
        if heard.damaged is not None:
            remarks = (*remarks, "sound damaged")
        rate = self.extractors["audio"].reads.sample_rate
        sound = Sound(recording.utterance, resampled(heard.samples, heard.rate, rate), rate)
        return self._part("audio", sound, heard.seconds, remarks)

    def _pictures(self, recordings: Sequence[Recording]) -> Iterator[tuple[Recording, _Part]]:
        """In the order that they end, file by file."""
        for path, those, sources in _by_file(recordings, [recording.picture for recording in recordings]):
            if path is None:
                for recording in those:
                    yield recording, self._without_media(recording, "visual", "no picture")
                continue
            yield from self._watch(Film(path), those, sources)

    def _watch(
        self, film: Film | Frames, recordings: Sequence[Recording], spans: Sequence[Source]
    ) -> Iterator[tuple[Recording, _Part]]:
        if self._reads("visual") not in ("faces", "frames"):
            for recording in recordings:
                yield recording, self._without_media(recording, "visual", "no picture")
            return
        wanted = [
            Wanted(recording.utterance, span, recording.half) for recording, span in zip(recordings, spans, strict=True)
        ]
        left = dict(enumerate(recordings))
        try:
            for number, seen in look(film, wanted, self.extractors["visual"].reads, self.detector):
                remarks = seen.remarks if film.damaged is None else (*seen.remarks, "picture damaged")
                yield left.pop(number), self._visual(seen, remarks)
        except Absent as absent:
            for recording in left.values():
                yield recording, _Part(absent=str(absent))

    def _visual(self, seen: Seen, remarks: tuple[str, ...]) -> _Part:
        if isinstance(seen.pictures, Absent):
            return _Part(absent=str(seen.pictures), seconds=seen.seconds, remarks=remarks)
        return self._part("visual", seen.pictures, seen.seconds, remarks)

    def _words(self, recording: Recording) -> _Part:
        text = (recording.text or "").strip()
        if not text or self._reads("text") != "text":
            return self._without_media(recording, "text", "no transcript")
        return self._part("text", Words(recording.utterance, text))

    def _reads(self, modality: str) -> str | None:
        """What kind of input the modality's extractor reads; None without an extractor."""
        return self.extractors[modality].reads.kind if modality in self.extractors else None

    def _without_media(self, recording: Recording, modality: str, absent: str) -> _Part:
        """The result of an extractor that reads nothing but the id; otherwise an absence."""
        if self._reads(modality) == "nothing":
            return self._part(modality, Words(recording.utterance, (recording.text or "").strip()))
        return _Part(absent=recording.absent.get(modality, absent))

    def _part(self, modality: str, item: Any, seconds: float = 0.0, remarks: tuple[str, ...] = ()) -> _Part:
        extractor = self.extractors[modality]
        try:
            features = extractor(item)
        except Absent as absent:
            return _Part(absent=str(absent), seconds=seconds, remarks=remarks)
        except InputError as error:
            raise InputError(f"utterance {printable(item.utterance, 80)}: {error}") from error
        except Exception as error:  # an extractor may be somebody else's
            what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            where = f"utterance {printable(item.utterance, 80)}: extractor {extractor.name} failed"
            raise InputError(f"{where} ({printable(what, 200)}).") from error
        self._check(extractor, item.utterance, features)
        return _Part(np.ascontiguousarray(features, np.float32), "", seconds, remarks)

    @staticmethod
    def _check(extractor: Extractor, utterance: str, features: FloatArray) -> None:
        where = f"utterance {printable(utterance, 80)}: extractor {extractor.name} gave"
        shape = np.shape(features)
        if len(shape) != 2 or shape[0] < 1 or shape[1] != extractor.width:
            raise InputError(f"{where} an array {[*shape]} instead of [T, {extractor.width}].")
        if not np.isfinite(features).all():
            raise InputError(f"{where} values that are not finite.")


def _by_file(
    recordings: Sequence[Recording], sources: Sequence[Source | None]
) -> Iterator[tuple[Path | None, list[Recording], list[Source]]]:
    """Recordings that share a file, with their spans, in the order of their first; without a file: None, no spans."""
    groups: dict[Path | None, tuple[list[Recording], list[Source]]] = {}
    for recording, source in zip(recordings, sources, strict=True):
        those, spans = groups.setdefault(None if source is None else source.path, ([], []))
        those.append(recording)
        if source is not None:
            spans.append(source)
    for path, (those, spans) in groups.items():
        yield path, those, spans
